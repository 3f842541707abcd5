package otpslot_test

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
	"tokendesk/vault/secret"
)

var errLie = errors.New("the transport failed")

// liar is a report that answers with arbitrary bytes. Each answer takes one byte that says what kind it
// is; when the script is over it starts again, so that a driver that waits for sense waits in vain. Each
// call takes a millisecond, as it does on USB.
type liar struct {
	script []byte
	at     int
	calls  int

	last   [8]byte // the newest feature report
	first  [8]byte // the newest one before the first chunk of the last frame
	begun  bool
	broken bool // an error was given
}

func (l *liar) next() byte {
	if len(l.script) == 0 {
		return 0
	}
	b := l.script[l.at%len(l.script)]
	l.at++
	return b
}

func (l *liar) fails(kind byte) error {
	l.calls++
	<-time.After(time.Millisecond)
	switch kind {
	case 0xFE:
		l.broken = true
		return errLie
	case 0xFF:
		l.broken = true
		return device.ErrGone
	}
	return nil
}

func (l *liar) SetFeature(p []byte) error {
	if len(p) != device.ReportSize || p[0] != 0 {
		panic("a malformed report was sent")
	}
	if p[8] == 0x80 {
		l.first, l.begun = l.last, true
	}
	return l.fails(l.next())
}

func (l *liar) GetFeature(p []byte) error {
	kind := l.next()
	if err := l.fails(kind); err != nil {
		return err
	}
	clear(l.last[:])
	switch kind % 4 {
	case 0: // a plausible status
		copy(l.last[:], []byte{0, 5, 4, 3, l.next(), l.next() & 3})
	case 1: // a plausible chunk of an answer
		for i := range l.last {
			l.last[i] = l.next()
		}
		l.last[7] = 0x40 | l.last[7]&0x0F
	case 2: // the status of before, the sequence moved
		l.last = l.first
		copy(l.last[1:], []byte{5, 4, 3})
		l.last[4] += kind >> 2 & 3
		l.last[7] = 0
	default:
		for i := range l.last {
			l.last[i] = l.next()
		}
	}
	copy(p[1:], l.last[:])
	return nil
}

func (l *liar) ReadInput(p []byte, timeout time.Duration) (int, error) {
	kind := l.next()
	if err := l.fails(kind); err != nil {
		return 0, err
	}
	if kind&1 == 0 {
		<-time.After(timeout)
		return 0, nil
	}
	for i := range p[:8] {
		p[i] = l.next() & 0x7F
	}
	return int(kind>>1) % 9, nil
}

func (l *liar) Close() error { return nil }

// moved reports whether the last frame changed the sequence as an accepted write does.
func (l *liar) moved() bool {
	before, after := l.first, l.last
	emptied := after[4] == 0 && after[5]&3 == 0 && before[4] != 0
	return l.begun && !l.broken && after[7] == 0 && (after[4] == before[4]+1 || emptied)
}

var digits = regexp.MustCompile(`^([0-9]{6}|[0-9]{8})$`)

// believable answers every look with the status of before, the sequence moved by one.
var believable = []byte{6}

// TestLiarIsBelieved keeps the fuzz target honest: it must be able to reach success.
func TestLiarIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if !lie(t, believable, 2) {
			t.Fatal("no write ever succeeds against the liar")
		}
	})
}

func FuzzSession(f *testing.F) {
	f.Add([]byte(nil), byte(0))
	f.Add([]byte{0}, byte(2))
	f.Add([]byte{0, 7, 1}, byte(3))
	f.Add(believable, byte(2))
	f.Add(believable, byte(5))
	f.Add([]byte{1, 0, 0xbc, 0x61, 0x4e, 1, 2, 0, 0x40}, byte(1))
	f.Add([]byte{3, 0, 0, 0, 0, 0, 0, 0, 0x80}, byte(2))
	f.Add([]byte{3, 0, 0, 0, 0, 0, 0, 0, 0x9F}, byte(4))
	f.Add([]byte{0, 1, 1, 0, 0, 0, 0, 0xFE}, byte(5))
	f.Add(bytes.Repeat([]byte{17, 0, 0, 30, 31, 32, 33, 34, 35}, 3), byte(6))
	f.Fuzz(func(t *testing.T, script []byte, op byte) {
		synctest.Test(t, func(t *testing.T) { lie(t, script, op) })
	})
}

// lie has a session do one operation against a liar and reports whether it claimed success.
func lie(t *testing.T, script []byte, op byte) bool {
	l := &liar{script: script}
	s := otpslot.New(l)
	one := slot(t, s, 1+int(op>>4&1))
	config := device.HOTPConfig{Seed: oldSeed, Digits: 6, NewAccessCode: codeA}
	ctx := t.Context()
	start := time.Now()
	var err error
	switch op % 7 {
	case 0:
		_, err = s.Status(ctx)
	case 1:
		_, err = s.Serial(ctx)
	case 2:
		if err = one.Program(ctx, config); err == nil && !l.moved() {
			t.Fatalf("success, although the status went from %x to %x", l.first, l.last)
		}
	case 3:
		config.TokenIdentifier = true
		if err = one.Program(ctx, config); err == nil && !l.moved() {
			t.Fatalf("success, although the status went from %x to %x", l.first, l.last)
		}
	case 4:
		_, err = one.Describe(ctx)
	case 5:
		if err = one.Delete(ctx, secret.Secret{}); err == nil && l.begun && !l.moved() {
			t.Fatalf("success, although the status went from %x to %x", l.first, l.last)
		}
	case 6:
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var code string
		if code, err = one.Code(ctx); err == nil && !digits.MatchString(code) {
			t.Fatalf("%q is no code", code)
		}
	}
	// Six tries for the serial, three waits in each, and a frame of ten chunks that all come late.
	if d := time.Since(start); d > time.Minute {
		t.Fatalf("it took %v", d)
	}
	if l.calls > 20_000 {
		t.Fatalf("%d calls", l.calls)
	}
	return err == nil
}
