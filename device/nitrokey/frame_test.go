package nitrokey

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// TestChecksum compares with what libnitrokey 3.7 sends.
func TestChecksum(t *testing.T) {
	for _, want := range []struct {
		command command
		payload string
		crc     uint32
	}{
		{commandStatus, "", 0xEF6EB7DF},
		{commandTries, "", 0xBC3AC292},
		{commandStorageStatus, "", 0x849BC4EF},
		{commandCode, "\x12", 0xEC2F2BA6},
		{commandErase, "\x10nonsense", 0x4A88BEE3},
	} {
		r := newReport(want.command, []byte(want.payload), 0)
		if r.crc() != want.crc || r.checksum() != want.crc || r.command() != want.command || r[0] != 0 {
			t.Errorf("command %#x %q: checksum %#x, want %#x", want.command, want.payload, r.crc(), want.crc)
		}
	}
	marked := newReport(commandStatus, nil, 7)
	if marked[60] != 7 || marked.crc() == 0xEF6EB7DF {
		t.Error("the mark makes no difference")
	}
}

func TestParseCode(t *testing.T) {
	for _, c := range []struct {
		value uint32
		flags byte
		want  string
	}{
		{0, 0, "000000"}, {755224, 0, "755224"}, {84755224, 1, "84755224"}, {5, 3, "00000005"}, {5, 2, "000005"},
		{999_999, 4, "999999"}, {1_000_000, 4, ""}, {99_999_999, 1, "99999999"}, {100_000_000, 1, ""}, {0xFFFFFFFF, 0xFF, ""},
	} {
		var data [dataSize]byte
		binary.LittleEndian.PutUint32(data[:], c.value)
		data[4] = c.flags
		code, err := parseCode(data[:])
		if code != c.want || (err != nil) != (c.want == "") || err != nil && !errors.Is(err, device.ErrCorrupt) {
			t.Errorf("%d with flags %#x is %q, error %v", c.value, c.flags, code, err)
		}
	}
}

// FuzzAnswers has a device answer whatever it likes.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(make([]byte, 200), false)
	f.Add(bytes.Repeat([]byte{0, 0, 0, 1, 2, 3}, 100), true)
	f.Add(bytes.Repeat([]byte{1}, 500), true)
	f.Fuzz(func(t *testing.T, script []byte, storage bool) {
		synctest.Test(t, func(t *testing.T) { converse(t, script, storage) })
	})
}

func converse(t *testing.T, script []byte, storage bool) {
	m := device.Model{Vendor: device.NitrokeyVendor, Product: 0x4108}
	if storage {
		m.Product++
	}
	s := New(&teller{script: script}, m)
	slot := &Slot{s, 1}
	if code, err := slot.Code(t.Context()); err == nil && len(code) != 6 && len(code) != 8 {
		t.Errorf("%q is no code", code)
	}
	if left, err := s.tries(t.Context()); err == nil && (left < 0 || left > maxTries) {
		t.Errorf("%d tries", left)
	}
	id, err := s.Identify(t.Context())
	if n, ok := id.ID.Serial(); err == nil && (!ok || n == 0 || n != id.Serial || len(id.Holds) != slotCount) {
		t.Errorf("identity %+v", id)
	}
	pin, seed := secret.New([]byte("12345678")), secret.Random(20)
	for _, err := range []error{
		slot.Program(t.Context(), device.HOTPConfig{Seed: seed, Digits: 6, CurrentAccessCode: pin}), slot.Delete(t.Context(), pin),
	} {
		var wrong *device.PINError
		if errors.As(err, &wrong) && (wrong.Retries < 0 || wrong.Retries > maxTries) {
			t.Errorf("%d tries", wrong.Retries)
		}
	}
}

// teller answers from a script, each time with a byte that says what kind of an answer it is. At its end it is unplugged.
type teller struct {
	device.Report
	script []byte
	last   report
}

func (r *teller) SetFeature(p []byte) error {
	r.last = report(p)
	return nil
}

func (r *teller) GetFeature(p []byte) error {
	if len(r.script) == 0 {
		return device.ErrGone
	}
	kind := r.script[0]
	r.script = r.script[1:]
	a := (*report)(p)
	clear(a[:])
	if kind%4 == 3 {
		r.script = r.script[copy(a[1:], r.script):]
		return nil
	}
	data := a[offsetResult+1 : offsetCRC]
	if kind%4 == 2 {
		data = a[offsetResult:offsetCRC]
	}
	r.script = r.script[copy(data, r.script):]
	a[offsetCommand+1] = r.last[offsetCommand]
	binary.LittleEndian.PutUint32(a[offsetEcho:], r.last.crc())
	binary.LittleEndian.PutUint32(a[offsetCRC:], a.checksum())
	return nil
}
