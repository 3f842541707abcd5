package otpslot_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/otpslot"
	"tokendesk/vault/secret"
)

// answering is a card that gives answers in hexadecimal, status words included, one after the other; "" is that it was pulled.
type answering struct {
	t       *testing.T
	answers []string
}

func (c *answering) Transmit([]byte) ([]byte, uint16, error) {
	if len(c.answers) == 0 {
		c.t.Fatal("a command too many")
	}
	answer, err := hex.DecodeString(c.answers[0])
	if c.answers = c.answers[1:]; err != nil || len(answer) < 2 {
		return nil, 0, device.ErrGone
	}
	n := len(answer) - 2
	return answer[:n], uint16(answer[n])<<8 | uint16(answer[n+1]), nil
}

func (c *answering) Close() error { return nil }

// Kinds of failure of the tables below.
const (
	fine     = ""
	rejected = "refused to"
	corrupt  = "damaged answer"
	hidden   = "does not tell its serial number"
	absent   = "no such application"
	gone     = "unplugged"
)

func expectFailure(t *testing.T, name string, err error, want string) {
	t.Helper()
	if want == fine && err != nil || want != fine && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: %v", name, err)
	}
	for kind, is := range map[string]error{
		corrupt: device.ErrCorrupt, hidden: otpslot.ErrSerialHidden, absent: device.ErrNoApplication, gone: device.ErrGone,
	} {
		if errors.Is(err, is) != (want == kind) {
			t.Errorf("%s is %v: %v", name, is, err)
		}
	}
	if errors.As(err, new(*device.RejectedError)) != (want == rejected) {
		t.Errorf("%s is a rejection: %v", name, err)
	}
}

func TestAnswersToSelect(t *testing.T) {
	for answer, want := range map[string]string{
		"0504030000009000": fine, "6a82": absent, "6a81": absent, "6d00": absent, "6e00": absent, "6b00": absent, "6a86": absent,
		"6985": "status 6985", "6f00": "status 6f00",
		"9000": corrupt, "05040300009000": corrupt, "05040300000006009000": fine, "": gone,
	} {
		_, err := otpslot.OverCard(t.Context(), &answering{t, []string{answer}})
		expectFailure(t, answer, err, want)
	}
}

func TestAnswersToWrites(t *testing.T) {
	for _, c := range []struct{ name, before, answer, after, want string }{
		{"it moves", "050403010100", "0504030203009000", "", fine},
		{"it wraps", "050403ff0300", "0504030003009000", "", fine},
		{"it stays", "050403010100", "0504030101009000", "", rejected},
		{"it moves by two", "050403010100", "0504030303009000", "", rejected},
		{"both are empty", "050403020100", "0504030000009000", "", fine},
		{"both stay empty", "050403000000", "0504030000009000", "", rejected},
		{"5.4.3 falls", "050403020100", "0504030003009000", "", rejected},
		{"5.4.2 falls", "050402020100", "0504020003009000", "", fine},
		{"5.4.2 stays", "050402000100", "0504020001009000", "", rejected},
		{"5.0.0 falls", "050000020100", "0500000003009000", "", fine},
		{"4.3.7 falls", "040307020100", "0403070003009000", "", rejected},
		{"3.4.9 falls", "030409020100", "0304090003009000", "", rejected},
		{"no answer, and it moves", "050403010100", "9000", "0504030203009000", fine},
		{"no answer, and it stays", "050403010100", "9000", "0504030101009000", rejected},
		{"no answer, and no status", "050403010100", "9000", "9000", corrupt},
		{"refused", "050403010100", "6985", "", rejected},
		{"denied", "050403010100", "6982", "", rejected},
		{"wrong", "050403010100", "6a80", "", rejected},
		{"not known", "050403010100", "6d00", "", "status 6d00"},
		{"failed", "050403010100", "6f00", "", "status 6f00"},
		{"a short status", "050403010100", "05040302039000", "", corrupt},
		{"pulled", "050403010100", "", "", gone},
	} {
		s, err := otpslot.OverCard(t.Context(), &answering{t, []string{c.before + "9000", c.before + "9000", c.answer, c.after}})
		if err != nil {
			t.Fatal(err)
		}
		err = slot(t, s, 1).Program(t.Context(), device.HOTPConfig{Seed: newSeed, Digits: 6})
		expectFailure(t, c.name, err, c.want)
	}
}

func TestAnswersToSerial(t *testing.T) {
	const status = "0504030000009000"
	for answer, want := range map[string]string{
		"00bc614e9000": fine, "9000": hidden, "6985": hidden,
		"bc614e9000": corrupt, "0000bc614e9000": corrupt, "6f00": "status 6f00", "": gone,
	} {
		s, err := otpslot.OverCard(t.Context(), &answering{t, []string{status, status, answer}})
		if err != nil {
			t.Fatal(err)
		}
		n, err := s.Serial(t.Context())
		expectFailure(t, answer, err, want)
		if err == nil && n != serial {
			t.Errorf("%v", n)
		}
	}
}

// scriptedCard is a card whose answers are arbitrary bytes: the first of each says what kind it is.
type scriptedCard struct {
	script []byte
	calls  int
	status []byte   // that it told last
	writes [][]byte // the status before a slot was configured, and after it
}

func (c *scriptedCard) take(n int) []byte {
	n = min(n, len(c.script))
	b := c.script[:n:n]
	c.script = c.script[n:]
	return b
}

func (c *scriptedCard) Transmit(apdu []byte) ([]byte, uint16, error) {
	c.calls++
	whole := len(apdu) >= 5 && len(apdu) <= 5+58 && int(apdu[4]) == len(apdu)-5
	if !whole || apdu[0] != 0 || apdu[1] != 0xA4 && apdu[1] != 1 {
		panic("a malformed APDU was sent")
	}
	kind := c.take(1)
	if len(kind) == 0 || kind[0] == 0xFF {
		return nil, 0, device.ErrGone
	}
	before, sw := c.status, uint16(0x9000)
	var answer []byte
	switch kind[0] % 4 {
	case 0, 1: // a status
		answer = make([]byte, 6)
		copy(answer, c.take(6))
		c.status = answer
	case 2:
		answer = c.take(int(kind[0] >> 2))
	default:
		b := append(c.take(2), 0, 0)
		sw = uint16(b[0])<<8 | uint16(b[1])
	}
	if apdu[1] == 1 && len(apdu) > 5 {
		c.writes = [][]byte{before, answer}
	}
	return answer, sw, nil
}

func (c *scriptedCard) Close() error { return nil }

// Whatever a card answers, nothing counts as written that its status does not confirm.
func FuzzCard(f *testing.F) {
	status := func(b ...byte) []byte { return append([]byte{0}, b...) }
	f.Add([]byte{}, byte(0))
	f.Add(append(append(status(5, 4, 3, 1, 1, 0), status(5, 4, 3, 1, 1, 0)...), status(5, 4, 3, 2, 3, 0)...), byte(1))
	f.Add(append(append(status(5, 4, 2, 9, 1, 0), status(5, 4, 2, 9, 1, 0)...), status(5, 4, 2, 0, 3, 0)...), byte(1))
	f.Add(append(append(status(5, 4, 3, 1, 1, 0), status(5, 4, 3, 1, 1, 0)...), 3, 0x69, 0x85), byte(2))
	f.Add(append(append(status(5, 4, 3, 1, 1, 0), status(5, 4, 3, 1, 1, 0)...), 4<<2|2, 0, 0xbc, 0x61, 0x4e), byte(3))
	f.Fuzz(func(t *testing.T, script []byte, op byte) {
		c := &scriptedCard{script: script}
		s, err := otpslot.OverCard(t.Context(), c)
		if err != nil {
			return
		}
		one := slot(t, s, 1+int(op>>4&1))
		switch op % 5 {
		case 0:
			_, err = one.Describe(t.Context())
		case 1:
			config := device.HOTPConfig{Seed: oldSeed, Digits: 6, NewAccessCode: codeA, TokenIdentifier: op&0x20 != 0}
			err = one.Program(t.Context(), config)
		case 2:
			err = one.Delete(t.Context(), secret.Secret{})
		case 3:
			_, err = s.Serial(t.Context())
		case 4:
			_, err = s.Identify(t.Context())
		}
		if c.calls > 8 {
			t.Fatalf("%d commands", c.calls)
		}
		if writes := c.writes; err == nil && writes != nil {
			before, after := writes[0], writes[1]
			if len(after) == 0 {
				after = c.status
			}
			if len(before) < 6 || len(after) < 6 || after[3] == before[3] {
				t.Fatalf("success, although the status went from %x to %x", before, after)
			}
		}
		if op%5 == 1 && err == nil && c.writes == nil {
			t.Fatal("success without a write")
		}
	})
}
