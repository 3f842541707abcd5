package otpslot

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/device/keyboard"
)

const (
	inputSlice = 100 * time.Millisecond // how long a cancelled wait can go unnoticed
	lineIdle   = 300 * time.Millisecond // silence that ends a line without Enter; tokens pace keys at 60 ms at most
	maxLine    = 128
)

// typist reads what the key types.
type typist struct {
	report  device.Report
	decoder keyboard.Decoder
	typed   strings.Builder // of a line whose end has not come yet; it outlives a wait that was ended in its middle
	at      time.Time       // when that was typed
}

// line collects typed text up to Enter, or up to a silence. One that has begun is read to its end also when its time is over.
func (t *typist) line(ctx context.Context) (string, error) {
	if time.Since(t.at) > lineIdle {
		t.typed.Reset()
	}
	for {
		err := ctx.Err()
		late := errors.Is(err, context.DeadlineExceeded) && t.typed.Len() > 0
		if err != nil && !late {
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("%w: %w", device.ErrNoTouch, err)
			}
			return "", err
		}
		slice := inputSlice
		if end, bounded := ctx.Deadline(); bounded && !late {
			slice = max(min(slice, time.Until(end)), 0)
		}
		var p [keyboard.ReportSize]byte
		n, err := t.report.ReadInput(p[:], slice)
		if err != nil {
			return "", err
		}
		typed := t.decoder.Feed(p[:n])
		before, _, ended := strings.Cut(typed, "\n")
		t.typed.WriteString(before)
		switch now := time.Now(); {
		case ended:
			return t.endLine(), nil
		case typed != "":
			t.at = now
		case t.typed.Len() > 0 && now.Sub(t.at) > lineIdle, t.typed.Len() > maxLine:
			return t.endLine(), nil
		}
	}
}

func (t *typist) endLine() string {
	defer t.typed.Reset()
	return t.typed.String()
}

var typedLine = regexp.MustCompile(`^\t?(?:ubhe([0-9]{8}))?\t?([0-9]{6}|[0-9]{8})\t?$`)

// Code waits until a touch has typed one line and returns the code in it. It waits until ctx ends. Over a card it fails.
func (s *Slot) Code(ctx context.Context) (string, error) {
	if s.session.keys == nil {
		return "", &device.CureError{
			Err:  fmt.Errorf("cannot capture a code: the key types it as a keyboard, which its smart card does not see"),
			Cure: "touch the key in a text field, and give the code by hand",
		}
	}
	line, err := s.session.keys.line(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot capture a code: %w", err)
	}
	m := typedLine.FindStringSubmatch(line)
	if m == nil {
		return "", device.ErrNotACode
	}
	if m[1] != "" && s.session.hasSerial && m[1] != fmt.Sprintf("%08d", s.session.serial) {
		return "", device.ErrNotACode
	}
	return m[2], nil
}
