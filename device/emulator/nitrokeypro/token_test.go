package nitrokeypro

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
)

var temporary = []byte(strings.Repeat("t", passwordSize))

// host is a program that uses a token.
type host struct {
	*testing.T
	k    *Token
	mark byte
}

func field(text string) []byte { return append([]byte(text), make([]byte, passwordSize-len(text))...) }

func compose(number, mark byte, parts ...[]byte) report {
	r := report{number, crcOffset - 1: mark}
	copy(r[1:crcOffset-1], slices.Concat(parts...))
	r.seal()
	return r
}

// do sends a command and waits until the answer to it is complete.
func (h *host) do(number byte, parts ...[]byte) (result, []byte) {
	h.Helper()
	h.mark++
	r := compose(number, h.mark, parts...)
	return h.send(r)
}

func (h *host) send(r report) (result, []byte) {
	h.Helper()
	if !h.k.SetFeature(r[:]) {
		h.Fatal("the token has no power")
	}
	for range 1000 {
		var a report
		if !h.k.GetFeature(a[:]) {
			h.Fatal("the token has no power")
		}
		if a[0] == 0 && a.received() == a.checksum() && binary.LittleEndian.Uint32(a[echoOffset:]) == r.received() &&
			!(storageCommand(r[0]) && a[storageStatus] == storageBusy) {
			return result(a[statusOffset]), a[resultOffset:crcOffset]
		}
		time.Sleep(time.Millisecond)
	}
	h.Fatal("no answer")
	return 0, nil
}

func (h *host) must(number byte, parts ...[]byte) []byte {
	h.Helper()
	res, data := h.do(number, parts...)
	if res != resultOK {
		h.Fatalf("command %#x ended with status %d", number, res)
	}
	return data
}

func (h *host) refused(want result, number byte, parts ...[]byte) {
	h.Helper()
	if res, _ := h.do(number, parts...); res != want {
		h.Errorf("command %#x ended with status %d, want %d", number, res, want)
	}
}

// authorized carries out a command that needs the temporary password, as the firmware wants it.
func (h *host) authorized(number byte, payload []byte) (result, []byte) {
	h.Helper()
	if !h.k.legacy() {
		return h.do(number, payload, temporary)
	}
	r := compose(number, 200, payload)
	h.must(0x08, r[crcOffset:], temporary)
	return h.send(r)
}

// write puts a seed into slot 1.
func (h *host) write(seed []byte, counter uint64) {
	h.Helper()
	h.must(0x07, field(FactoryAdminPIN), temporary)
	number := binary.LittleEndian.AppendUint64(nil, counter)
	if h.k.legacy() {
		if h.k.storage() {
			number = []byte{byte('0' + counter), 7: 0}
		}
		payload := slices.Concat([]byte{0x10}, []byte("name"), make([]byte, nameSize-4), seed, make([]byte, oldSeedSize-len(seed)),
			make([]byte, 1+tokenIDSize), number)
		if res, _ := h.authorized(0x01, payload); res != resultOK {
			h.Fatalf("writing ended with status %d", res)
		}
		return
	}
	h.must(0x17, temporary, []byte("N\x00name"))
	h.must(0x17, temporary, []byte("S\x00"), seed)
	h.must(0x01, temporary, []byte{0x10}, number)
}

func (h *host) code() uint32 {
	h.Helper()
	return binary.LittleEndian.Uint32(h.must(0x04, []byte{0x10}))
}

var (
	rfc4226 = []byte("12345678901234567890")
	pro     = device.Model{Vendor: device.NitrokeyVendor, Product: 0x4108}
	storage = device.Model{Vendor: device.NitrokeyVendor, Product: 0x4109}
)

// each runs fn for each kind of firmware, in time that passes only while everybody waits.
func each(t *testing.T, fn func(h *host)) {
	for name, o := range map[string]Options{
		"pro": {Model: pro}, "pro-7": {Model: pro, Firmware: device.Version{Minor: 7}},
		"storage": {Model: storage}, "storage-53": {Model: storage, Firmware: device.Version{Minor: 53}},
	} {
		o.Serial = 0x5D19
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { fn(&host{T: t, k: New(o)}) }) })
	}
}

// TestChecksum compares with what libnitrokey 3.7 sends.
func TestChecksum(t *testing.T) {
	for text, want := range map[string]string{
		"00": "dfb76eef", "09": "92c23abc", "0410": "c67f0275", "2e": "efc49b84", "06106e6f6e73656e7365": "e3be884a",
	} {
		var r report
		if _, err := hex.Decode(r[:], []byte(text)); err != nil {
			t.Fatal(err)
		}
		r.seal()
		if got := hex.EncodeToString(r[crcOffset:]); got != want {
			t.Errorf("%s has the checksum %s, want %s", text, got, want)
		}
	}
}

func TestCodes(t *testing.T) {
	each(t, func(h *host) {
		h.refused(resultNotProgrammed, 0x04, []byte{0x10})
		h.refused(resultNotProgrammed, 0x02, []byte{0x10})
		h.refused(resultNotProgrammed, 0x02, []byte{0x20}) // TOTP
		h.refused(resultWrongSlot, 0x02, []byte{0x0F})
		h.write(rfc4226, 3)
		if name := h.must(0x02, []byte{0x10})[:5]; string(name) != "name\x00" {
			h.Errorf("the slot is named %q", name)
		}
		for _, want := range []uint32{969429, 338314, 254676} { // RFC 4226, appendix D
			if got := h.code(); got != want {
				h.Errorf("code %06d, want %06d", got, want)
			}
		}
		h.k.PowerUp()
		if got := h.code(); got != 287922 {
			h.Errorf("code %06d after power, want 287922", got)
		}
		counter := h.must(0x03, []byte{0x10, 1})[29:37]
		want := []byte{7, 0, 0, 0, 0, 0, 0, 0}
		if h.k.storage() && h.k.legacy() {
			want[0] = '7'
		}
		if !bytes.Equal(counter, want) {
			h.Errorf("the counter is shown as %x", counter)
		}
	})
}

// TestSeedIsKept is what an editor relies on that changes a name only. Old firmware looks at the first byte only.
func TestSeedIsKept(t *testing.T) {
	each(t, func(h *host) {
		h.write(rfc4226, 0)
		h.write(make([]byte, 20), 1)
		if got := h.code(); got != 287082 {
			h.Errorf("code %06d, want 287082", got)
		}
		h.write([]byte("\x002345678901234567890"), 0)
		want := uint32(546076)
		if !h.k.storage() && h.k.legacy() {
			want = 755224
		}
		if got := h.code(); got != want {
			h.Errorf("code %06d, want %06d", got, want)
		}
	})
}

func TestAuthority(t *testing.T) {
	each(t, func(h *host) {
		h.write(rfc4226, 0)
		h.k.PowerUp()
		h.refused(resultNotAuthorized, 0x06, []byte{0x10}, temporary)
		h.must(0x07, field(FactoryAdminPIN), temporary)
		if res, _ := h.authorized(0x06, []byte{0x11}); res != resultOK {
			h.Errorf("status %d", res)
		}
		h.refused(resultWrongPassword, 0x07, field("87654321"), temporary)
		h.refused(resultNotAuthorized, 0x06, []byte{0x10}, temporary)
		if got := h.k.Configured(); got != [3]bool{true, false, false} {
			h.Errorf("configured: %v", got)
		}
		h.must(0x07, field(FactoryAdminPIN), temporary)
		if res, _ := h.authorized(0x06, []byte{0x10}); res != resultOK || h.k.Configured()[0] {
			h.Errorf("status %d, configured: %v", res, h.k.Configured())
		}
	})
}

func TestPINs(t *testing.T) {
	each(t, func(h *host) {
		for left := MaxTries - 1; left >= 0; left-- {
			h.refused(resultWrongPassword, 0x07, field("x"), temporary)
			h.refused(resultWrongPassword, 0x0E, field("x"), temporary)
			if h.k.storage() {
				h.must(0x2E)
			}
			if got := h.must(0x09)[0]; int(got) != left || h.k.AdminTries() != left {
				h.Errorf("%d tries are left, want %d", got, left)
			}
			if got := h.must(0x0F)[0]; int(got) != left {
				h.Errorf("%d tries are left for the user PIN, want %d", got, left)
			}
		}
		h.refused(resultWrongPassword, 0x07, field(FactoryAdminPIN), temporary)
		h.refused(resultWrongPassword, 0x0E, field(FactoryUserPIN), temporary)
	})
}

func TestUserPINBeforeCodes(t *testing.T) {
	each(t, func(h *host) {
		h.write(rfc4226, 0)
		if res, _ := h.authorized(0x05, []byte{0xFF, 0xFF, 0xFF, 1, 0}); res != resultOK {
			h.Fatalf("status %d", res)
		}
		h.refused(resultNotAuthorized, 0x04, []byte{0x10})
		h.must(0x0E, field(FactoryUserPIN), temporary)
		r := compose(0x04, 77, []byte{0x10}, make([]byte, 17), temporary)
		if h.k.legacy() {
			r = compose(0x04, 77, []byte{0x10})
			h.must(0x10, r[crcOffset:], temporary)
		}
		if res, data := h.send(r); res != resultOK || binary.LittleEndian.Uint32(data) != 755224 {
			h.Errorf("status %d, code %d", res, binary.LittleEndian.Uint32(data))
		}
	})
}

func TestChangedAdminPIN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{T: t, k: New(Options{})}
		h.refused(resultWrongPassword, 0x15, field("x"), field("a new PIN"))
		h.must(0x15, field(FactoryAdminPIN), field("a new PIN"))
		h.refused(resultWrongPassword, 0x07, field(FactoryAdminPIN), temporary)
		h.must(0x07, field("a new PIN"), temporary)
	})
}

// TestTooEarly sends commands while another one is under way.
func TestTooEarly(t *testing.T) {
	each(t, func(h *host) {
		h.write(rfc4226, 0)
		first, second := compose(0x04, 1, []byte{0x10}), compose(0x04, 2, []byte{0x10})
		h.k.SetFeature(first[:])
		h.k.SetFeature(second[:])
		time.Sleep(time.Second)
		var a report
		h.k.GetFeature(a[:])
		if got := binary.LittleEndian.Uint32(a[echoOffset:]); got != first.received() {
			t.Error("the second command was not lost")
		}
		if got := h.code(); got != 287082 {
			t.Errorf("code %06d, want 287082", got)
		}
	})
}

// TestStorageStatus is told once, and never by commands of both kinds of tokens.
func TestStorageStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{T: t, k: New(Options{Model: storage, Serial: 0x01020304, Firmware: device.Version{Minor: 55, Build: 2}})}
		data := h.must(0x2E)
		want, _ := hex.DecodeString("0003001918330000" + "00370002" + "00000000" + "00000000" + "0000" + "0303" + "04030201" + "00")
		if !bytes.Equal(data[storageData-resultOffset:][:len(want)], want) {
			t.Errorf("it tells %x, want %x", data[storageData-resultOffset:], want)
		}
		var again report
		h.k.GetFeature(again[:])
		if again[storageData+1] != 0 {
			t.Error("it tells it twice")
		}
	})
}

func TestPower(t *testing.T) {
	each(t, func(h *host) {
		r := h.k.Open()
		h.k.PowerDown()
		var p [device.NitrokeyReportSize]byte
		if err := r.SetFeature(p[:]); err == nil {
			h.Error("it takes a command without power")
		}
		h.k.PowerUp()
		if err := r.GetFeature(p[:]); err == nil {
			h.Error("it came back to who had it before")
		}
		r = h.k.Open()
		if err := r.GetFeature(p[:]); err != nil {
			h.Error(err)
		}
		if err := r.GetFeature(p[:9]); err == nil {
			h.Error("it gave a short report")
		}
		if n, err := r.ReadInput(make([]byte, 8), time.Millisecond); n != 0 || err != nil {
			h.Errorf("it typed %d bytes, error %v", n, err)
		}
		r.Close()
		if err := r.GetFeature(p[:]); err == nil {
			h.Error("it is closed, and answers")
		}
	})
}

func TestFaults(t *testing.T) {
	k := New(Options{})
	for _, f := range Faults {
		if f == FaultClear {
			continue
		}
		if err := k.SetFault(f, 7); err != nil {
			t.Error(err)
		}
	}
	if got := len(k.Faults()); got != len(Faults)-1 {
		t.Errorf("%d faults are active: %v", got, k.Faults())
	}
	for _, bad := range []struct {
		f Fault
		n int
	}{
		{"nonsense", 1}, {FaultPullBefore, 0}, {FaultPullAfter, -1}, {FaultStatus, 256}, {FaultStatus, 0}, {FaultDrop, maxFault + 1},
		{FaultBadCRC, -1},
	} {
		if err := k.SetFault(bad.f, bad.n); err == nil {
			t.Errorf("fault %s takes %d", bad.f, bad.n)
		}
	}
	if err := k.SetFault(FaultClear, 0); err != nil || len(k.Faults()) != 0 {
		t.Errorf("error %v, faults %v", err, k.Faults())
	}
}

// FuzzReports sends a token whatever there is.
func FuzzReports(f *testing.F) {
	for _, number := range []byte{0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0E, 0x10, 0x12, 0x15, 0x17, 0x2E, 0x60} {
		f.Add([]byte{number, 0x10}, uint8(15), false)
	}
	f.Add(slices.Concat([]byte{7}, field(FactoryAdminPIN), temporary), uint8(7), true)
	f.Fuzz(func(t *testing.T, script []byte, minor uint8, asStorage bool) {
		o := Options{Model: pro, Firmware: device.Version{Minor: minor}, Serial: 1, Timing: &Timing{}}
		if asStorage {
			o.Model = storage
		}
		k := New(o)
		for len(script) > 0 {
			var r report
			script = script[copy(r[:crcOffset], script):]
			r.seal()
			if !k.SetFeature(r[:]) {
				t.Fatal("it lost its power")
			}
			var a report
			if !k.GetFeature(a[:]) || a.received() != a.checksum() {
				t.Fatalf("%x is answered with %x", r, a)
			}
		}
		if n := k.AdminTries(); n < 0 || n > MaxTries {
			t.Errorf("%d tries are left", n)
		}
	})
}
