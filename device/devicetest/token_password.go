package devicetest

import (
	"errors"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

var (
	wrongPassword = secret.New([]byte("87654321")) // could be a PIN as well
	mostTries     = 20                             // more than any device has
)

func (b *tokenBench) expectError(err, want error, what string) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Fatalf("%s: %v, not %v", what, err, want)
	}
}

// ownPassword is about tokens with access codes of their own, which the desk draws.
func ownPassword(b *tokenBench) {
	if b.row.Access != device.OwnCode {
		b.use(func(t device.HOTPToken) { // see refusedConfigurations, too
			c := b.config(seedOne)
			b.program(t, c)
			b.expect(t, c, 0, 1, "a token without an access code of its own")
		})
		return
	}
	b.use(func(t device.HOTPToken) {
		for _, code := range []secret.Secret{none, codeTwo} {
			if err := t.Unlock(b.Context(), code); err != nil {
				b.Errorf("there is nothing to unlock: %v", err)
			}
		}
		c := b.config(seedOne)
		b.program(t, c)
		for what, code := range map[string]secret.Secret{"without the access code": none, "with another one": codeTwo} {
			wrong := b.config(seedTwo)
			wrong.CurrentAccessCode = code
			b.expectRejected(t.Program(b.Context(), wrong), "written "+what)
			b.expectRejected(t.Delete(b.Context(), code), "deleted "+what)
		}
		b.expect(t, c, 0, 1, "after wrong access codes")
		next := b.config(seedTwo)
		next.NewAccessCode = codeTwo
		b.program(t, next)
		b.expectRejected(t.Delete(b.Context(), codeOne), "deleted with the access code of before")
		next.CurrentAccessCode, next.NewAccessCode = codeTwo, none
		b.program(t, next)
		b.program(t, b.config(seedOne)) // where there is none, any will do
	})
}

// sharedPassword is about devices whose applications share a password or PIN. Whether one is wanted at all tells Unlock; all other
// methods have to agree with it.
func sharedPassword(b *tokenBench) {
	ctx := b.Context()
	fresh := func() (t device.HOTPToken, close func()) {
		s, close := b.session()
		t, err := s.Token(ctx, b.ID)
		if err != nil {
			b.Fatal(err)
		}
		return t, close
	}
	t, close := fresh()
	locked := t.Unlock(ctx, none)
	if locked != nil {
		b.expectError(locked, device.ErrLocked, "no password")
	}
	if b.Password.IsZero() || b.row.Access != device.SharedPassword {
		if locked != nil {
			b.Fatalf("it wants a password, and has none: %v", locked)
		}
		b.expectConfigured(t, false)
		close()
		return
	}
	close()

	c := b.config(seedOne)
	b.use(func(t device.HOTPToken) { b.program(t, c) })
	counter := uint64(0)
	for what, password := range map[string]secret.Secret{"no password": none, "a wrong password": wrongPassword} {
		t, close := fresh()
		other := b.config(seedTwo)
		other.CurrentAccessCode = password
		perr := t.Program(ctx, other)
		if locked == nil { // the device lets it, or at least does not keep it from anybody by its password
			if perr == nil {
				b.expect(t, other, 0, 1, what)
			}
			close()
			b.use(func(t device.HOTPToken) { b.program(t, c) })
			counter = 0
			continue
		}
		b.expectLocked(perr, "written with "+what)
		close()
		b.use(func(device.HOTPToken) {}) // gives back the try that it may have cost
		t, close = fresh()
		b.expectLocked(t.Delete(ctx, password), "deleted with "+what)
		close()
		b.use(func(device.HOTPToken) {})
		t, close = fresh()
		if state, err := t.Describe(ctx); err != nil {
			b.expectError(err, device.ErrLocked, "described")
		} else if !state.Configured {
			b.Errorf("%s has erased it", what)
		}
		if code, err := t.Code(ctx); err != nil {
			b.expectError(err, device.ErrLocked, "asked for a code")
		} else {
			b.expectIs(code, c, counter)
			counter++
		}
		close()
		b.use(func(t device.HOTPToken) { b.expect(t, c, counter, 1, "after "+what) }) // and all tries are there again
		counter++
	}

	// A wrong one is named, costs a try if those are counted, and never the last one.
	left := device.Unlimited
	for n := range mostTries {
		t, close := fresh()
		err := t.Unlock(ctx, wrongPassword)
		close()
		pin, ok := errors.AsType[*device.PINError](err)
		if !ok || pin.Name == "" {
			b.Fatalf("a wrong password: %v", err)
		}
		if pin.Retries == device.Unlimited {
			if n > 0 && left != device.Unlimited {
				b.Fatalf("%d tries were left, and now they are not counted", left)
			}
			b.use(func(t device.HOTPToken) { b.expect(t, c, counter, 1, "after wrong passwords") })
			return
		}
		if n > 0 && pin.Retries != max(1, left-1) {
			b.Fatalf("%d tries are left after %d", pin.Retries, left)
		}
		left = pin.Retries
	}
	if left != 1 {
		b.Errorf("%d tries are left", left)
	}
	t, close = fresh()
	defer close()
	if pin, ok := errors.AsType[*device.PINError](t.Unlock(ctx, b.Password)); !ok || pin.Retries != 1 {
		b.Error("the last try was spent")
	}
}

func (b *tokenBench) expectLocked(err error, what string) {
	b.Helper()
	if _, wrong := errors.AsType[*device.PINError](err); !wrong && !errors.Is(err, device.ErrLocked) {
		b.Fatalf("%s: %v", what, err)
	}
}

// unconfirmed is about devices that want to be touched before something is lost.
func unconfirmed(b *tokenBench) {
	c := b.config(seedOne)
	b.use(func(t device.HOTPToken) {
		b.program(t, c)
		b.expect(t, c, 0, 1, "a first seed, for which nobody has to touch anything")
	})
	if !b.row.Confirms {
		return
	}
	b.Leave()
	unconfirmed := func(do func(t device.HOTPToken) error) error {
		s, close := b.session()
		defer close()
		t, err := s.Token(b.Context(), b.ID)
		if err == nil {
			err = t.Unlock(b.Context(), b.Password)
		}
		if err != nil && !errors.Is(err, device.ErrNoTouch) { // some want it for that, too
			b.Fatal(err)
		}
		return do(t)
	}
	for what, change := range map[string]func(t device.HOTPToken) error{
		"replaced": func(t device.HOTPToken) error { return t.Program(b.Context(), b.config(seedTwo)) },
		"deleted":  func(t device.HOTPToken) error { return t.Delete(b.Context(), b.current()) },
	} {
		b.expectError(unconfirmed(change), device.ErrNoTouch, what)
	}
	_ = unconfirmed(func(t device.HOTPToken) error { b.expect(t, c, 1, 1, "after nobody touched it"); return nil })
}
