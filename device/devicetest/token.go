package devicetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"tokendesk/device"
	"tokendesk/device/drivers"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// TokenRig is one token that may be erased, on a device that holds nothing, and the hand beside it. Whatever it is made of: what
// may be expected of it says its row in device.Applications, and its Emission.
type TokenRig struct {
	ID       device.TokenID
	Firmware device.Version // as the session tells it
	// OpenReport or OpenCard opens the device through the face that is meant; the other one is nil.
	OpenReport func(ctx context.Context) (device.Info, device.Report, error)
	OpenCard   func(ctx context.Context) (device.Card, error)
	// Insert and Remove plug the device in and pull it. When Insert returns, the device can be opened.
	Insert, Remove func(ctx context.Context) error
	// Touch has the token type a code, and returns what it typed if nobody has the device's interface open. Only tokens that
	// type need it.
	Touch func(ctx context.Context) (typed string, err error)
	// Leave has nobody there any more who confirms by a touch that something may be lost, which is done at once before. Only
	// devices that want it need it.
	Leave func()
	// Password is what protects the device, if its applications share one; empty: nothing does.
	Password secret.Secret
	// Samples says at how many calls of an operation the device is pulled, at others every time; 0: at every one.
	Samples int
}

// RunToken runs the suite for what programs HOTP tokens. Each test calls rig for a device of its own, which is plugged in; rig
// releases what it has taken through t.Cleanup.
func RunToken(t *testing.T, rig func(t *testing.T) TokenRig) {
	runToken(t, rig, func(t *testing.T, test func(t *testing.T)) { test(t) })
}

// RunTokenInBubble is RunToken for a device in this process, whose time passes while everybody waits.
func RunTokenInBubble(t *testing.T, rig func(t *testing.T) TokenRig) {
	runToken(t, rig, synctest.Test)
}

func runToken(t *testing.T, rig func(t *testing.T) TokenRig, within func(t *testing.T, test func(t *testing.T))) {
	for _, test := range []struct {
		name string
		run  func(*tokenBench)
	}{
		{"who it is", whoItIs},
		{"tokens that it has not", foreignTokens},
		{"configurations", configurations},
		{"what it does not take", refusedConfigurations},
		{"seeds of every size", seedSizes},
		{"codes go on", codesGoOn},
		{"replacing", replacing},
		{"deleting", deleting},
		{"its neighbour", neighbour},
		{"a password of its own", ownPassword},
		{"a shared password", sharedPassword},
		{"no room left", noRoomLeft},
		{"nobody confirms", unconfirmed},
		{"an ended context", endedContext},
		{"pulled while it is programmed", pulledProgramming},
		{"pulled while it is deleted", pulledDeleting},
		{"pulled while it is asked", pulledAsking},
		{"given up while it is programmed", givenUpProgramming},
	} {
		t.Run(test.name, func(t *testing.T) {
			within(t, func(t *testing.T) {
				b := &tokenBench{bench: bench{T: t}, TokenRig: rig(t)}
				b.row, b.credential = device.ApplicationOf(b.ID)
				b.expectNoLeak()
				test.run(b)
			})
		})
	}
}

// tokenBench is a test with its rig.
type tokenBench struct {
	bench
	TokenRig
	row        device.Application
	credential string
	tap        *tap // on what is opened next; nil: none
}

// face is what the rig reaches the token by.
func (b *tokenBench) face() device.Face {
	if b.OpenCard != nil {
		return device.Cards
	}
	return device.Reports
}

// session opens the device, until close is called or the test ends.
func (b *tokenBench) session() (s device.Session, close func()) {
	b.Helper()
	s, close, err := b.tryOpen()
	if err != nil {
		b.Fatal(err)
	}
	return s, close
}

func (b *tokenBench) tryOpen() (s device.Session, close func(), err error) {
	t := b.tap
	if t == nil {
		t = &tap{}
	}
	if b.OpenCard != nil {
		card, err := b.OpenCard(b.Context())
		if err != nil {
			return nil, nil, err
		}
		b.Cleanup(func() { card.Close() })
		if s, err = drivers.OverCard(b.Context(), &tappedCard{card, t}); err != nil {
			card.Close()
		}
		return s, func() { card.Close() }, err
	}
	info, report, err := b.OpenReport(b.Context())
	if err != nil {
		return nil, nil, err
	}
	b.Cleanup(func() { report.Close() })
	return drivers.OverReport(info, &tappedReport{report, t}), func() { report.Close() }, nil
}

// opened opens a token of the device, and shows it the password.
func (b *tokenBench) opened(id device.TokenID) (t device.HOTPToken, close func()) {
	b.Helper()
	s, close := b.session()
	t, err := s.Token(b.Context(), id)
	if err == nil {
		err = t.Unlock(b.Context(), b.Password)
	}
	if err != nil {
		b.Fatal(err)
	}
	return t, close
}

// use is opened for as long as fn.
func (b *tokenBench) use(fn func(t device.HOTPToken)) {
	b.Helper()
	t, close := b.opened(b.ID)
	defer close()
	fn(t)
}

// config is a configuration as the desk has them: with the password, or with an access code if the token has one of its own.
func (b *tokenBench) config(seed secret.Secret) device.HOTPConfig {
	c := device.HOTPConfig{Seed: seed, Digits: 8, Enter: true, CurrentAccessCode: b.current()}
	if b.row.Access == device.OwnCode {
		c.NewAccessCode = codeOne
	}
	return c
}

// current is what protects a token that was programmed by config. Where nothing does, any will do.
func (b *tokenBench) current() secret.Secret {
	if b.row.Access == device.OwnCode {
		return codeOne
	}
	return b.Password
}

func (b *tokenBench) program(t device.HOTPToken, c device.HOTPConfig) {
	b.Helper()
	if err := t.Program(b.Context(), c); err != nil {
		b.Fatal(err)
	}
}

// code has the token give a code, in whatever way it does.
func (b *tokenBench) code(t device.HOTPToken) (string, error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	switch e := t.Emission(); {
	case e == device.Calculated:
		return t.Code(ctx)
	case e.Typed():
		type result struct {
			code string
			err  error
		}
		results := make(chan result, 1)
		go func() {
			code, err := t.Code(ctx)
			results <- result{code, err}
		}()
		if _, err := b.Touch(ctx); err != nil {
			cancel()
			<-results
			return "", err
		}
		r := <-results
		return r.code, r.err
	}
	if _, err := t.Code(ctx); err == nil || errors.Is(err, device.ErrNoTouch) {
		b.Fatalf("codes come out elsewhere, but asking for one ends with %v", err)
	}
	typed, err := b.Touch(ctx)
	return strings.TrimSpace(typed), err
}

// expect has the token give the codes from a counter on.
func (b *tokenBench) expect(t device.HOTPToken, c device.HOTPConfig, from uint64, n int, what string) {
	b.Helper()
	for i := range uint64(n) {
		want := hotpscan.Code(c.Seed, c.Digits, from+i)
		if got, err := b.code(t); err != nil || got != want {
			b.Fatalf("%s: code %d is %q, not %q, %v", what, from+i, got, want, err)
		}
	}
}

func (b *tokenBench) expectConfigured(t device.HOTPToken, want bool) {
	b.Helper()
	state, err := t.Describe(b.Context())
	if err != nil || state.Configured != want {
		b.Fatalf("the token is %+v, and should be configured: %v, %v", state, want, err)
	}
}

// beside is another token of the device, of a row as like to this one's as there is.
func (b *tokenBench) beside() device.TokenID {
	b.Helper()
	if b.credential != "" {
		return device.AppToken(b.ID.Device(), b.row.Name+"beside")
	}
	for _, other := range device.Applications {
		if other.Family == b.row.Family && other.Type == b.row.Type && other.Name != b.row.Name && !strings.HasSuffix(other.Name, ":") {
			return device.AppToken(b.ID.Device(), other.Name)
		}
	}
	b.Fatal("there is no other token beside this one")
	return ""
}

// insert plugs the device in again after it was pulled.
func (b *tokenBench) insert() {
	b.Helper()
	if err := b.Insert(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func (b *tokenBench) remove() {
	b.Helper()
	if err := b.Remove(b.Context()); err != nil {
		b.Fatal(err)
	}
}
