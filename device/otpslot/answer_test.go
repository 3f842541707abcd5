package otpslot_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
)

// scripted is a report that answers every command in the same way: with its status until the last chunk of
// a frame, then with answer, and with the last of that for ever until it is reset.
type scripted struct {
	answer [][8]byte
	at     int // in answer; negative: the status
}

func (r *scripted) SetFeature(p []byte) error {
	switch p[8] {
	case 0x89:
		r.at = 0
	case 0x8F:
		r.at = -1
	}
	return nil
}

func (r *scripted) GetFeature(p []byte) error {
	<-time.After(time.Millisecond)
	report := [8]byte{0, 5, 4, 3}
	if r.at >= 0 {
		report = r.answer[r.at]
		r.at = min(r.at+1, len(r.answer)-1)
	}
	copy(p, append([]byte{0}, report[:]...))
	return nil
}

func (r *scripted) ReadInput([]byte, time.Duration) (int, error) { return 0, nil }
func (r *scripted) Close() error                                 { return nil }

func TestAnswers(t *testing.T) {
	var (
		whole  = [8]byte{0x00, 0xbc, 0x61, 0x4e, 0xc8, 0x04, 0x00, 0x40} // 12345678, inverted CRC
		spoilt = [8]byte{0x00, 0xbc, 0x61, 0x4f, 0xc8, 0x04, 0x00, 0x40}
		end    = [8]byte{7: 0x40}
		status = [8]byte{0, 5, 4, 3}
		busy   = [8]byte{0, 5, 4, 3, 7: 0x80}
		touch  = [8]byte{0, 5, 4, 3, 7: 0x2F}
	)
	for name, c := range map[string]struct {
		answer [][8]byte
		want   error
	}{
		"in order":                  {[][8]byte{whole, end}, nil},
		"late":                      {[][8]byte{busy, busy, whole, end}, nil},
		"damaged":                   {[][8]byte{spoilt, end}, device.ErrCorrupt},
		"ended early":               {[][8]byte{whole, status}, device.ErrCorrupt},
		"empty":                     {[][8]byte{end, end}, device.ErrCorrupt},
		"from the middle":           {[][8]byte{{7: 0x41}, {7: 0x42}, end}, device.ErrCorrupt},
		"one chunk left out":        {[][8]byte{whole, {7: 0x42}, end}, device.ErrCorrupt},
		"one chunk twice":           {[][8]byte{whole, {7: 0x41}, {7: 0x41}, end}, device.ErrCorrupt},
		"none":                      {[][8]byte{status}, otpslot.ErrSerialHidden},
		"never":                     {[][8]byte{busy}, device.ErrTimeout},
		"a touch that nobody gives": {[][8]byte{touch}, device.ErrTimeout},
	} {
		bubble(t, name, func(t *testing.T) {
			n, err := otpslot.New(&scripted{answer: c.answer, at: -1}).Serial(t.Context())
			if !errors.Is(err, c.want) || c.want == nil && n != serial {
				t.Fatalf("%v, %v", n, err)
			}
		})
	}
}

// An answer without end must be given up, also if it is numbered well.
func TestEndlessAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer [][8]byte
		for i := range byte(31) {
			answer = append(answer, [8]byte{7: 0x40 | i})
		}
		if _, err := otpslot.New(&scripted{answer: answer, at: -1}).Serial(t.Context()); !errors.Is(err, device.ErrCorrupt) {
			t.Fatal(err)
		}
	})
}
