package smartcard

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
)

const selectOATH = "00a4040007a0000005272101"

var (
	seed1   = []byte("12345678901234567890") // RFC 4226, appendix D; RFC 6238, appendix B
	seed256 = []byte("12345678901234567890123456789012")
	seed512 = []byte("1234567890123456789012345678901234567890123456789012345678901234")
)

// withOATH is a host that has selected the OATH application.
func withOATH(t *testing.T, firmware string) host {
	t.Helper()
	h := newHost(t, firmware)
	h.selectOATH()
	return h
}

// selectOATH returns what SELECT tells.
func (h host) selectOATH() tlvs {
	h.Helper()
	e, ok := parseTLVs(h.must("00a40400", aidOATH))
	if !ok {
		h.Fatal("SELECT is not answered with elements")
	}
	return e
}

// put is the data of PUT; what follows the key is given in hexadecimal.
func put(t testing.TB, name string, how, digits byte, key []byte, rest string) []byte {
	t.Helper()
	b := appendTLV(nil, tagOATHName, []byte(name)...)
	b = appendTLV(b, tagOATHKey, append([]byte{how, digits}, key...)...)
	return append(b, unhex(t, rest)...)
}

func named(name string) []byte { return appendTLV(nil, tagOATHName, []byte(name)...) }

// asked is the data of CALCULATE.
func asked(name string, challenge []byte) []byte {
	return appendTLV(named(name), tagOATHChallenge, challenge...)
}

// code calculates one, and writes it out as RFC 4226 does.
func (h host) code(name string, challenge []byte) string {
	h.Helper()
	b := h.must("00a20001", asked(name, challenge))
	if len(b) != 7 || b[0] != tagOATHTruncated || b[1] != 5 {
		h.Fatalf("CALCULATE is answered with %x", b)
	}
	mod := uint32(1)
	for range b[2] {
		mod *= 10
	}
	return fmt.Sprintf("%0*d", b[2], binary.BigEndian.Uint32(b[3:])%mod)
}

// names lists the credentials, each after its type and algorithm.
func (h host) names() string {
	h.Helper()
	e, ok := parseTLVs(h.must("00a10000", nil))
	if !ok {
		h.Fatal("LIST is not answered with elements")
	}
	var all []string
	for _, c := range e {
		all = append(all, fmt.Sprintf("%x %s", c.value[0], c.value[1:]))
	}
	return strings.Join(all, ", ")
}

// TestHOTP has the codes of RFC 4226, appendix D, from both makes of keys.
func TestHOTP(t *testing.T) {
	codes := []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"}
	for name, h := range map[string]host{"YubiKey": withOATH(t, "5.4.3"), "Nitrokey": withSecrets(t)} {
		t.Run(name, func(t *testing.T) {
			h := host{t, h.card}
			h.must("00010000", put(t, "alice", kindHOTP|algSHA1, 6, seed1, ""))
			h.must("00010000", put(t, "bob", kindHOTP|algSHA1, 6, seed1, "7a0400000007"))
			for i, want := range codes {
				if got := h.code("alice", nil); got != want {
					t.Errorf("code %d is %s, not %s", i, got, want)
				}
				if i == 5 { // the counter outlives the power
					h.card.PowerUp()
					h.selectOATH()
				}
			}
			for i, want := range codes[7:] {
				if got := h.code("bob", make([]byte, 8)); got != want {
					t.Errorf("code %d of the one that starts at 7 is %s, not %s", i, got, want)
				}
			}
		})
	}
}

// TestTOTP has the codes of RFC 6238, appendix B.
func TestTOTP(t *testing.T) {
	h := withOATH(t, "5.4.3")
	h.must("00010000", put(t, "sha1", kindTOTP|algSHA1, 8, seed1, ""))
	h.must("00010000", put(t, "sha256", kindTOTP|algSHA256, 8, seed256, ""))
	h.must("00010000", put(t, "sha512", kindTOTP|algSHA512, 8, seed512, ""))
	for _, c := range []struct {
		time  uint64
		codes [3]string
	}{
		{59, [3]string{"94287082", "46119246", "90693936"}},
		{1111111109, [3]string{"07081804", "68084774", "25091201"}},
		{1111111111, [3]string{"14050471", "67062674", "99943326"}},
		{1234567890, [3]string{"89005924", "91819424", "93441116"}},
		{2000000000, [3]string{"69279037", "90698825", "38618901"}},
		{20000000000, [3]string{"65353130", "77737706", "47863826"}},
	} {
		step := binary.BigEndian.AppendUint64(nil, c.time/30)
		for i, name := range []string{"sha1", "sha256", "sha512"} {
			if got := h.code(name, step); got != c.codes[i] {
				t.Errorf("%s at %d: %s, not %s", name, c.time, got, c.codes[i])
			}
		}
	}
	full := h.must("00a20000", asked("sha1", make([]byte, 8)))
	// HMAC-SHA-1 of a counter of 0: RFC 4226, appendix D
	if want := "751508cc93cf18508d94934c64b65d8ba7667fb7cde4b0"; hex.EncodeToString(full) != want {
		t.Errorf("not truncated: %x", full)
	}
	// What is asked for less than HOTP's 8 bytes is taken as it is.
	h.refused("00a20001", asked("sha1", nil), swWrongData)
	h.must("00a20001", asked("sha1", []byte{1}))
	h.refused("00a20001", asked("sha1", make([]byte, 65)), swWrongData)
}

func TestCalculateAll(t *testing.T) {
	h := withOATH(t, "5.4.3")
	h.card.touch = func(context.Context) bool { t.Error("it asks for a touch"); return false }
	h.must("00010000", put(t, "h", kindHOTP|algSHA1, 6, seed1, ""))
	h.must("00010000", put(t, "t", kindTOTP|algSHA1, 8, seed1, ""))
	h.must("00010000", put(t, "x", kindTOTP|algSHA1, 7, seed1, "7802"))
	h.want("00a400010a 74080000000000000001 00", "710168770106 7101747605 0841397eea 7101787c0107 9000")
	const sum = "75a48a19d4cbe100644e8ac1397eea747a2d33ab" // RFC 4226, appendix D
	h.want("00a400000a 74080000000000000001 00", "710168770106 7101747515 08"+sum+"7101787c0107 9000")
	if got := h.code("h", nil); got != "755224" {
		t.Errorf("after all, HOTP gives %s", got)
	}
}

func TestPut(t *testing.T) {
	short := func(n int) []byte { return bytes.Repeat([]byte{7}, n) }
	for _, c := range []struct {
		name, firmware string
		data           []byte
		want           status
	}{
		{"HOTP", "5.4.3", put(t, "n", 0x11, 6, seed1, ""), swOK},
		{"as much as there can be", "5.4.3", put(t, strings.Repeat("n", 64), 0x23, 8, short(128), "7802"), swOK},
		{"touch and counter", "5.4.3", put(t, "n", 0x11, 7, seed1, "7802 7a04ffffffff"), swOK},
		{"short key", "5.4.3", put(t, "n", 0x11, 6, short(13), ""), swWrongData},
		{"long key", "5.4.3", put(t, "n", 0x22, 6, short(65), ""), swWrongData},
		{"no name", "5.4.3", put(t, "", 0x11, 6, seed1, ""), swWrongData},
		{"long name", "5.4.3", put(t, strings.Repeat("n", 65), 0x11, 6, seed1, ""), swWrongData},
		{"5 digits", "5.4.3", put(t, "n", 0x11, 5, seed1, ""), swWrongData},
		{"9 digits", "5.4.3", put(t, "n", 0x11, 9, seed1, ""), swWrongData},
		{"another type", "5.4.3", put(t, "n", 0x31, 6, seed1, ""), swWrongData},
		{"another algorithm", "5.4.3", put(t, "n", 0x14, 6, seed1, ""), swWrongData},
		{"another property", "5.4.3", put(t, "n", 0x11, 6, seed1, "7804"), swWrongData},
		{"a counter of 3 bytes", "5.4.3", put(t, "n", 0x11, 6, seed1, "7a03000001"), swWrongData},
		{"something after it", "5.4.3", put(t, "n", 0x11, 6, seed1, "7a0400000001 7100"), swWrongData},
		{"half an element", "5.4.3", put(t, "n", 0x11, 6, seed1, "7a04000000"), swWrongData},
		{"no type", "5.4.3", unhex(t, "71016e 7301 11"), swWrongData},
		{"nothing", "5.4.3", nil, swWrongData},
		{"SHA-512 before its time", "4.3.0", put(t, "n", 0x23, 6, seed512, ""), swWrongData},
		{"touch before its time", "4.2.3", put(t, "n", 0x11, 6, seed1, "7802"), swWrongData},
		{"touch in time", "4.2.4", put(t, "n", 0x11, 6, seed1, "7802"), swOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := host{t, withOATH(t, c.firmware).card}
			h.refused("00010000", c.data, c.want)
			if listed := h.names() != ""; listed != (c.want == swOK) {
				t.Errorf("listed: %s", h.names())
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	h := withOATH(t, "5.4.3")
	h.must("00010000", put(t, "alice", 0x11, 6, seed1, ""))
	h.must("00010000", put(t, "bob", 0x21, 6, seed1, ""))
	h.code("alice", nil)
	h.must("00010000", put(t, "alice", 0x12, 8, seed256, "7a0400000001")) // in place of the other
	if got := h.names(); got != "12 alice, 21 bob" {
		t.Errorf("listed: %s", got)
	}
	h.refused("00050000", append(named("alice"), named("bob")...), swWrongData)
	h.refused("00050000", append(named("carol"), named("dora")...), swNoObject)
	h.refused("00050000", append(named("alice"), named("")...), swWrongData)
	h.must("00050000", append(named("alice"), named("carol")...))
	if got := h.names(); got != "12 carol, 21 bob" {
		t.Errorf("listed: %s", got)
	}
	h.refused("00a20001", asked("alice", nil), swNoObject)
	h.refused("00020000", named("alice"), swNoObject)
	h.refused("00020000", append(named("carol"), 0x71, 0), swWrongData)
	h.must("00020000", named("carol"))
	h.must("00020000", named("bob"))
	h.want("00a10000", "9000")
	h.refused("00a20100", asked("alice", nil), swParams)
	h.want("0004000000", "6b00")
	h.want("00c0000000", "6d00")
	old := host{t, withOATH(t, "5.3.0").card}
	old.refused("00050000", append(named("alice"), named("bob")...), swInstruction)
}

// TestOverwrites has the fault of firmware before 4.3.5 that makes ykman refuse names with which others begin.
func TestOverwrites(t *testing.T) {
	for firmware, want := range map[string]string{"4.3.4": "11 tok", "4.3.5": "11 token, 11 tok"} {
		h := withOATH(t, firmware)
		h.must("00010000", put(t, "token", 0x11, 6, seed1, ""))
		h.must("00010000", put(t, "tok", 0x11, 6, seed1, ""))
		if got := h.names(); got != want {
			t.Errorf("%s: listed: %s", firmware, got)
		}
	}
}

func TestCapacity(t *testing.T) {
	for firmware, capacity := range map[string]int{"5.4.3": 32, "5.7.1": 64} {
		h := withOATH(t, firmware)
		var want []byte
		for i := range capacity {
			name := fmt.Sprintf("tokendesk:%054d", i)
			h.must("00010000", put(t, name, 0x11, 6, seed1, ""))
			want = appendTLV(want, tagOATHListed, append([]byte{0x11}, name...)...)
		}
		h.refused("00010000", put(t, "one more", 0x11, 6, seed1, ""), swFull)
		h.must("00010000", put(t, fmt.Sprintf("tokendesk:%054d", 0), 0x11, 8, seed1, ""))
		// All of them take more than one answer, the rest of which SEND REMAINING fetches.
		var got []byte
		parts := 0
		for apdu := "00a1000000"; ; apdu = "00a5000000" {
			answer := h.card.Transmit(unhex(t, apdu))
			n := len(answer) - 2
			got = append(got, answer[:n]...)
			if parts++; answer[n] != byte(swMore>>8) {
				break
			}
		}
		if !bytes.Equal(got, want) || parts != (len(want)+0xFF)/0x100 {
			t.Errorf("%s: listed in %d parts: %x", firmware, parts, got)
		}
		h.must("00020000", named(fmt.Sprintf("tokendesk:%054d", 7)))
		h.must("00010000", put(t, "one more", 0x11, 6, seed1, ""))
	}
}

func TestPassword(t *testing.T) {
	h := withOATH(t, "5.4.3")
	salt, _ := h.selectOATH().get(tagOATHName)
	h.must("00010000", put(t, "alice", 0x11, 6, seed1, ""))
	h.refused("00a30000", unhex(t, "7514"+strings.Repeat("00", 20)+"74080000000000000000"), swNoObject) // there is none
	// An example of Yubico's (.NET SDK, users' manual, OATH commands).
	key := "780e45a00652ccb08c4bdacddaca5134"
	example := "731101" + key + "7408f103da8958e440857514011ee1ff2a982d4dcccd8eb33a12e4887ef5e00c"
	h.refused("00030000", unhex(t, strings.Replace(example, "7514011e", "7514011f", 1)), swNoObject)
	h.refused("00030000", unhex(t, "731101"+key), swWrongData)
	h.refused("00030000", unhex(t, strings.Replace(example, "731101", "731104", 1)), swWrongData)
	h.must("00030000", unhex(t, example))
	h.names() // who has set it need not show it

	p := authenticator{algSHA1, unhex(t, key)}
	unlock := func(p authenticator) ([]byte, status) {
		e := h.selectOATH()
		challenge, _ := e.get(tagOATHChallenge)
		algorithm, _ := e.get(tagOATHAlgorithm)
		again, _ := e.get(tagOATHName)
		if len(challenge) != 8 || !bytes.Equal(algorithm, []byte{algSHA1}) || !bytes.Equal(again, salt) {
			t.Fatalf("SELECT tells %x", e)
		}
		response := appendTLV(nil, tagOATHResponse, p.respond(challenge)...)
		return h.run("00a30000", append(response, 0x74, 8, 1, 2, 3, 4, 5, 6, 7, 8))
	}
	h.card.PowerUp()
	h.selectOATH()
	for head, data := range map[string][]byte{
		"00010000": put(t, "bob", 0x11, 6, seed1, ""), "00020000": named("alice"), "00030000": {tagOATHKey, 0}, "00a10000": nil,
		"00050000": append(named("alice"), named("bob")...), "00a20001": asked("alice", nil), "00a40001": {tagOATHChallenge, 1, 0},
	} {
		h.refused(head, data, swSecurity)
	}
	if _, sw := unlock(authenticator{algSHA1, make([]byte, 16)}); sw != swWrongData {
		t.Errorf("a wrong password is answered with %04x", sw)
	}
	h.refused("00a10000", nil, swSecurity)
	proof, sw := unlock(p)
	want := appendTLV(nil, tagOATHResponse, p.respond([]byte{1, 2, 3, 4, 5, 6, 7, 8})...)
	if sw != swOK || !bytes.Equal(proof, want) {
		t.Fatalf("the right password is answered with %x %04x", proof, sw)
	}
	if got := h.code("alice", nil); got != "755224" {
		t.Errorf("unlocked, it gives %s", got)
	}
	h.selectPIV() // who selects another application locks it again
	h.selectOATH()
	h.refused("00a10000", nil, swSecurity)
	unlock(p)
	h.must("00030000", []byte{tagOATHKey, 0})
	h.card.PowerUp()
	if _, locked := h.selectOATH().get(tagOATHChallenge); locked {
		t.Error("without a password it is locked")
	}
	h.must("00030000", unhex(t, example))
	h.card.PowerUp()
	h.selectOATH()
	h.want("0004dead00", "9000") // needs no password, and takes all away
	e := h.selectOATH()
	if now, _ := e.get(tagOATHName); len(e) != 2 || bytes.Equal(now, salt) || h.names() != "" {
		t.Errorf("after a reset, SELECT tells %x, and there is %s", e, h.names())
	}
}

func TestOATHTouch(t *testing.T) {
	touches := false
	h := withOATH(t, "5.4.3")
	h.card.touch = func(context.Context) bool { return touches }
	h.must("00010000", put(t, "alice", 0x11, 6, seed1, "7802"))
	h.refused("00a20001", asked("alice", nil), swSecurity)
	touches = true
	if got := h.code("alice", nil); got != "755224" {
		t.Errorf("the first touch gives %s", got)
	}
}

// TestOATHPulled shows what is left after a pull: the counter has moved or not, the credential is there or not.
func TestOATHPulled(t *testing.T) {
	for fault, next := range map[Fault]string{FaultPullBefore: "755224", FaultPullAfter: "287082"} {
		h := withOATH(t, "5.4.3")
		pull := func(apdu []byte) {
			t.Helper()
			if err := h.card.SetFault(fault, 1); err != nil {
				t.Fatal(err)
			}
			if answer := h.card.Transmit(apdu); answer != nil {
				t.Fatalf("%s: %x is answered with %x", fault, apdu, answer)
			}
			h.card.PowerUp()
			h.selectOATH()
		}
		apdu := func(head string, data []byte) []byte {
			return append(append(unhex(t, head), byte(len(data))), data...)
		}
		pull(apdu("00010000", put(t, "bob", 0x11, 6, seed1, "")))
		if there := h.names() != ""; there != (fault == FaultPullAfter) {
			t.Errorf("%s: after PUT there is %q", fault, h.names())
		}
		h.must("00010000", put(t, "alice", 0x11, 6, seed1, ""))
		pull(apdu("00a20001", asked("alice", nil)))
		if got := h.code("alice", nil); got != next {
			t.Errorf("%s: after CALCULATE the next code is %s, not %s", fault, got, next)
		}
	}
}

// FuzzOATH sends APDUs, each after its length, to either make of card. Every one has to be answered.
func FuzzOATH(f *testing.F) {
	for _, s := range []string{
		"00a1000000", "000100001d 71016e 7316110631323334353637383930313233343536373839307802", "00a2000105 71016e7400",
		"00a400010374010100",
		"0002000003 71016e", "0005000006 71016e 710178", "00030000027300", "0004dead", "00a5000000",
		"00b4000004 800231320000", "00b2000004 80023132", "00b3000008 80023132 81023334", "00b7000006 71016e 710178", "00a100000101",
	} {
		b := unhex(f, s)
		b = append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, script []byte, nitrokey bool) {
		c := New(Options{Firmware: device.Version{Major: 5, Minor: 7, Build: 1}, Nitrokey3: nitrokey})
		c.Transmit(unhex(t, selectOATH))
		for i := 0; i < 50 && len(script) >= 2; i++ {
			n := min(int(binary.BigEndian.Uint16(script)), len(script)-2)
			apdu := script[2 : 2+n]
			script = script[2+n:]
			if answer := c.Transmit(apdu); len(answer) < 2 || len(answer) > roomExtended+2 {
				t.Fatalf("%x was answered with %d bytes", apdu, len(answer))
			}
		}
	})
}

// TestOATHWaits ends a wait for a touch by taking the power.
func TestOATHWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := withOATH(t, "5.4.3")
		h.card.touch = func(ctx context.Context) bool { <-ctx.Done(); return false }
		h.must("00010000", put(t, "alice", 0x11, 6, seed1, "7802"))
		answered, start := make(chan []byte), time.Now()
		go func() { answered <- h.card.Transmit(unhex(t, "00a2000109"+hex.EncodeToString(asked("alice", nil)))) }()
		synctest.Wait()
		h.card.PowerDown()
		if answer, took := <-answered, time.Since(start); answer != nil || took > 0 {
			t.Errorf("a card without power answers %x after %v", answer, took)
		}
		h.card.PowerUp()
		h.selectOATH()
		h.refused("00a20001", asked("alice", nil), swSecurity)
		if took := time.Since(start); took != touchTime {
			t.Errorf("it waited for a touch for %v", took)
		}
		h.card.touch = nil
		if got := h.code("alice", nil); got != "755224" {
			t.Errorf("the next code is %s", got)
		}
	})
}

func TestOATHFaults(t *testing.T) {
	h := withOATH(t, "5.4.3")
	h.must("00010000", put(t, "alice", 0x11, 6, seed1, ""))
	for _, c := range []struct {
		fault        Fault
		n            int
		apdu, answer string
	}{
		{FaultStatus, 0x6581, "00a1000000", "6581"},
		{FaultLyingLength, 0, "00a1000000", "727f 11616c696365 9000"},
		{FaultLyingLength, 0, "00a2000109 7105616c696365 7400 00", "767f 06 4c93cf18 9000"},
		{FaultMute, 0, "00a1000000", ""},
		{FaultClear, 0, "00a1000000", "7206 11616c696365 9000"},
	} {
		if err := h.card.SetFault(c.fault, c.n); err != nil {
			t.Fatal(err)
		}
		h.want(c.apdu, c.answer)
	}
}
