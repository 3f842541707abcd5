package otpslot_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
	"tokendesk/sync/hotpscan"
)

// interrupted is a report whose reader loses patience in the middle of a line.
type interrupted struct {
	device.Report
	reads int // until then
	end   func()
}

func (r *interrupted) ReadInput(p []byte, timeout time.Duration) (int, error) {
	n, err := r.Report.ReadInput(p, timeout)
	if n > 0 {
		if r.reads--; r.reads == 0 {
			r.end()
		}
	}
	return n, err
}

func TestWaitEndedInTheMiddleOfALine(t *testing.T) {
	bubble(t, "what was typed before is not lost", func(t *testing.T) {
		s := halfALine(t)
		if code, err := s.Code(t.Context()); err != nil || code != hotpscan.Code(newSeed, 6, 0) {
			t.Errorf("%q, %v", code, err)
		}
	})
	bubble(t, "a later line does not begin with it", func(t *testing.T) {
		s := halfALine(t)
		<-time.After(time.Minute) // of the bubble
		again, enough := context.WithTimeout(t.Context(), time.Second)
		defer enough()
		if code, err := s.Code(again); !errors.Is(err, device.ErrNotACode) {
			t.Errorf("half a line is taken for %q, %v", code, err)
		}
	})
}

// halfALine is a slot that was touched, and read up to the middle of what it types.
func halfALine(t *testing.T) (s *otpslot.Slot) {
	t.Helper()
	k := newKey(fw5)
	r, err := k.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	ctx, end := context.WithCancel(t.Context())
	s = slot(t, otpslot.New(&interrupted{r, 7, end}), 2)
	if err := s.Program(t.Context(), device.HOTPConfig{Seed: newSeed, Digits: 6, Enter: true}); err != nil {
		t.Fatal(err)
	}
	_, held, err := k.Touch(true)
	if err != nil || !held {
		t.Fatalf("held %v, %v", held, err)
	}
	if _, err := s.Code(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("read up to its middle: %v", err)
	}
	return s
}
