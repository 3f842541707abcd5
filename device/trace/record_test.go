package trace_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/trace"
)

// typist is a token that gives codes as it is told, after something was typed.
type typist struct {
	device.HOTPToken
	report device.Report
	code   string
	err    error
}

func (y typist) Program(context.Context, device.HOTPConfig) error { return nil }

func (y typist) Code(context.Context) (string, error) {
	_, _ = y.report.ReadInput(make([]byte, 8), time.Second)
	return y.code, y.err
}

// keys is a report on which something is typed.
type keys struct{ device.Report }

func (keys) ReadInput(p []byte, _ time.Duration) (int, error) { return copy(p, []byte{0, 0, 4}), nil }

// What may be somebody's secret gets into no trace.
func TestForeignCodes(t *testing.T) {
	programmed := program(nil)
	for _, c := range []struct {
		name    string
		keep    bool
		before  []trace.Operation
		code    string
		err     error
		foreign bool
	}{
		{"its own", false, []trace.Operation{programmed}, "755224", nil, false},
		{"its own, some later", false, []trace.Operation{programmed}, "520489", nil, false},
		{"another", false, []trace.Operation{programmed}, "123456", nil, true},
		{"before anything was programmed", false, nil, "755224", nil, true},
		{"something else", false, []trace.Operation{programmed}, "", device.ErrNotACode, true},
		{"something, then pulled", false, []trace.Operation{programmed}, "", device.ErrGone, true},
		{"another, of a token without secrets", true, []trace.Operation{programmed}, "123456", nil, false},
		{"something else, of a token without secrets", true, []trace.Operation{programmed}, "", device.ErrNotACode, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := trace.NewRecorder(trace.Header{Token: "yk-12345678/otp2", Vendor: yubiKey.Vendor, Product: yubiKey.Product})
			r.KeepForeign = c.keep
			token := typist{report: r.Report(keys{}), code: c.code, err: c.err}
			for _, o := range c.before {
				if _, err := r.Do(t.Context(), token, o); err != nil {
					t.Fatal(err)
				}
			}
			_, err := r.Do(t.Context(), token, code)
			if errors.Is(err, trace.ErrForeign) != c.foreign || c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("it fails with %v", err)
			}
			if _, err := r.Trace(); errors.Is(err, trace.ErrForeign) != c.foreign {
				t.Errorf("the trace: %v", err)
			}
		})
	}
}

// Nothing can have been done after an opening that has failed.
func TestStepsAfterFailedOpening(t *testing.T) {
	tr, err := trace.Parse([]byte(cardTop + "do open\napdu 00a4040008a000000527471117 ! gone\nis fails gone\ndo describe\nis ok\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Replay(t.Context(), ours); err == nil || !strings.Contains(err.Error(), "1 steps follow") {
		t.Error(err)
	}
}

// drawing is a token that chooses something at random.
type drawing struct {
	device.HOTPToken
	over any
	got  *[]byte
}

func (d drawing) Describe(context.Context) (device.State, error) {
	p := make([]byte, 8)
	device.Draw(d.over, p)
	*d.got = append(*d.got, p...)
	return device.State{}, nil
}

type session struct{ token device.HOTPToken }

func (session) Identify(context.Context) (device.Identity, error) { return device.Identity{}, nil }

func (s session) Token(context.Context, device.TokenID) (device.HOTPToken, error) {
	return s.token, nil
}

// What the host has chosen at random is the same when it is repeated.
func TestDraw(t *testing.T) {
	var first, again, other []byte
	over := func(got *[]byte) trace.Drivers {
		return trace.Drivers{
			OverReport: func(_ device.Info, r device.Report) device.Session { return session{drawing{nil, r, got}} },
			OverCard: func(_ context.Context, c device.Card) (device.Session, error) {
				return session{drawing{nil, c, got}}, nil
			},
		}
	}
	for _, h := range []trace.Header{{Token: "yk-12345678/otp2", Vendor: yubiKey.Vendor, Product: yubiKey.Product}, {Token: "yk-12345678/oath:a"}} {
		first, again, other = nil, nil, nil
		r := trace.NewRecorder(h)
		token := drawing{nil, r.Card(nil), &first}
		if h.Vendor != 0 {
			token.over = r.Report(nil)
		}
		for range 2 {
			if _, err := r.Do(t.Context(), token, describe); err != nil {
				t.Fatal(err)
			}
		}
		now, err := r.Trace()
		if err != nil {
			t.Fatal(err)
		}
		if err := now.Replay(t.Context(), over(&again)); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(first, again) || slices.Equal(first[:8], first[8:]) {
			t.Errorf("%x, and again %x", first, again)
		}
		if err := now.Replay(t.Context(), over(&other)); err != nil || !slices.Equal(first, other) {
			t.Errorf("a trace can be replayed once only: %v", err)
		}
	}
	p := make([]byte, 16)
	device.Draw(keys{}, p)
	if slices.Equal(p, make([]byte, 16)) {
		t.Error("nothing was drawn over a device")
	}
}
