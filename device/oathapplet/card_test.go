package oathapplet_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/oathapplet"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// Codes come in order over reopening and power, from whatever counter, of 6 or 8 digits; what is replaced or deleted is gone.
func TestToken(t *testing.T) {
	each(t, func(b *bench) {
		b.expect(b.alice(), false)
		if _, err := b.alice().Code(b.Context()); err == nil || !strings.Contains(err.Error(), "enroll the token again") {
			b.Errorf("a code of nothing: %v", err)
		}
		for i, c := range []device.HOTPConfig{
			{Seed: rfc(), Digits: 6},
			{Seed: text("another seed"), Digits: 8, StartCounter: 1<<32 - 10, Enter: true},
			{Seed: rfc(), Digits: 8, StartCounter: 7},
		} {
			b.touches = 0
			b.must(b.alice().Program(b.Context(), c))
			if want := 0; b.nitrokey && i > 0 && b.touches != 1 || (!b.nitrokey || i == 0) && b.touches != want {
				b.Errorf("writing %d took %d touches", i, b.touches)
			}
			b.expect(b.alice(), true)
			one := b.alice()
			for n := range uint64(3) {
				if n == 2 {
					b.card.PowerUp()
					one = b.alice()
				}
				b.expectCode(one, hotpscan.Code(c.Seed, c.Digits, c.StartCounter+n))
			}
		}
		bob := b.token(b.open(), "bob")
		b.must(bob.Program(b.Context(), device.HOTPConfig{Seed: rfc(), Digits: 6}))
		for range 2 {
			b.must(b.alice().Delete(b.Context(), secret.Secret{}))
			b.expect(b.alice(), false)
		}
		b.expectCode(b.token(b.open(), "bob"), "755224")
	})
}

func (b *bench) expect(t device.HOTPToken, configured bool) {
	b.Helper()
	state, err := t.Describe(b.Context())
	b.must(err)
	want := device.State{Firmware: b.firmware, Configured: configured}
	if b.nitrokey {
		want.Serial = serial
	}
	if state != want {
		b.Errorf("%+v, not %+v", state, want)
	}
}

func (b *bench) expectCode(t device.HOTPToken, want string) {
	b.Helper()
	code, err := t.Code(b.Context())
	b.must(err)
	if code != want {
		b.Errorf("code %s, not %s", code, want)
	}
}

func TestSeedsOfAllLengths(t *testing.T) {
	each(t, func(b *bench) {
		s := b.open()
		for n := 1; n <= device.MaxSeedSize; n++ {
			c := device.HOTPConfig{Seed: secret.Random(n), Digits: 6, StartCounter: uint64(n)}
			one := b.token(s, fmt.Sprintf("seed%d", n))
			b.must(one.Program(b.Context(), c))
			b.expectCode(one, hotpscan.Code(c.Seed, 6, uint64(n)))
		}
		for _, n := range []int{0, device.MaxSeedSize + 1} {
			before := b.sent
			err := b.token(s, "seed").Program(b.Context(), device.HOTPConfig{Seed: secret.Random(n), Digits: 6})
			if err == nil || b.sent != before {
				b.Errorf("a seed of %d bytes: %v", n, err)
			}
		}
	})
}

func TestRefusedConfigurations(t *testing.T) {
	each(t, func(b *bench) {
		one := b.alice()
		before := b.sent
		for name, c := range map[string]device.HOTPConfig{
			"7 digits":           {Seed: rfc(), Digits: 7},
			"a large counter":    {Seed: rfc(), Digits: 6, StartCounter: 1 << 32},
			"a token identifier": {Seed: rfc(), Digits: 6, TokenIdentifier: true},
			"an access code":     {Seed: rfc(), Digits: 6, NewAccessCode: text("123456")},
		} {
			if err := one.Program(b.Context(), c); err == nil || b.sent != before {
				b.Errorf("%s: %v", name, err)
			}
		}
		if one.Emission() != device.Calculated {
			b.Error(one.Emission())
		}
	})
}

// RFC 6238, appendix B: the seed is repeated to the size of the hash.
func TestTOTP(t *testing.T) {
	seeds := map[oathapplet.Algorithm]string{
		oathapplet.SHA1:   "12345678901234567890",
		oathapplet.SHA256: "12345678901234567890123456789012",
		oathapplet.SHA512: "1234567890123456789012345678901234567890123456789012345678901234",
	}
	codes := map[oathapplet.Algorithm]map[int64]string{
		oathapplet.SHA1:   {59: "94287082", 1111111109: "07081804", 20000000000: "65353130"},
		oathapplet.SHA256: {59: "46119246", 1111111109: "68084774", 20000000000: "77737706"},
		oathapplet.SHA512: {59: "90693936", 1111111109: "25091201", 20000000000: "47863826"},
	}
	each(t, func(b *bench) {
		s := b.open()
		for hash, seed := range seeds {
			for _, name := range []string{"issuer:account", "60/issuer:account"} {
				c := oathapplet.Credential{Name: name, Type: oathapplet.TOTP, Algorithm: hash, Digits: 8}
				err := s.Put(b.Context(), c, text(seed))
				if b.nitrokey && hash == oathapplet.SHA512 {
					if err == nil {
						b.Error("a Nitrokey 3 has SHA-512")
					}
					continue
				}
				b.must(err)
				for at, want := range codes[hash] {
					if name[0] == '6' {
						at *= 2
					}
					code, err := s.Calculate(b.Context(), c, time.Unix(at, 0))
					if err != nil || code != want {
						b.Errorf("%s at %d with %d: %s, not %s, %v", name, at, hash, code, want, err)
					}
				}
			}
		}
	})
}

// ordinary is a credential as programs make them.
func ordinary(name string) oathapplet.Credential {
	return oathapplet.Credential{Name: name, Type: oathapplet.HOTP, Algorithm: oathapplet.SHA1, Digits: 6}
}

func TestListAndRename(t *testing.T) {
	each(t, func(b *bench) {
		s := b.open()
		var want []oathapplet.Credential
		for i := range 20 { // more than fits into one answer
			c := ordinary(fmt.Sprintf("%02d:%s", i, strings.Repeat("x", 3*i)))
			if i%2 == 1 {
				c.Type, c.Algorithm = oathapplet.TOTP, oathapplet.SHA256
			}
			b.must(s.Put(b.Context(), c, rfc()))
			c.Digits = 0
			want = append(want, c)
		}
		b.expectList(s, want)
		id, err := s.Identify(b.Context())
		b.must(err)
		oath := device.Holding{Name: "oath", Configured: true, Used: 20, Capacity: b.capacity}
		wantID := device.Identity{Firmware: b.firmware}
		if b.nitrokey {
			oath.Capacity, wantID.ID, wantID.Serial = 0, "nk-00005d19", serial
		}
		if wantID.Holds = []device.Holding{oath}; !reflect.DeepEqual(id, wantID) {
			b.Errorf("%+v", id)
		}
		err = s.Rename(b.Context(), want[0].Name, "renamed")
		if b.firmware.Major == 4 && !b.nitrokey {
			if !errors.As(err, new(*device.FirmwareError)) {
				b.Error(err)
			}
			return
		}
		b.must(err)
		want[0].Name = "renamed"
		b.expectList(s, want)
		for _, name := range []string{"", strings.Repeat("x", 65)} {
			if err := s.Rename(b.Context(), "renamed", name); err == nil {
				b.Errorf("renamed to %q", name)
			}
		}
	})
}

func (b *bench) expectList(s *oathapplet.Session, want []oathapplet.Credential) {
	b.Helper()
	got, err := s.List(b.Context())
	b.must(err)
	byName := func(x, y oathapplet.Credential) int { return strings.Compare(x.Name, y.Name) }
	want = slices.Clone(want)
	slices.SortFunc(got, byName)
	slices.SortFunc(want, byName)
	if !slices.Equal(got, want) {
		b.Errorf("%+v, not %+v", got, want)
	}
}

// One that is full says so, and takes what replaces something all the same.
func TestFull(t *testing.T) {
	each(t, func(b *bench) {
		s := b.open()
		c := device.HOTPConfig{Seed: rfc(), Digits: 6}
		for i := range b.capacity {
			b.must(b.token(s, fmt.Sprintf("n%d", i)).Program(b.Context(), c))
		}
		if err := b.token(s, "alice").Program(b.Context(), c); !errors.Is(err, device.ErrFull) {
			b.Error(err)
		}
		c.Digits = 8
		b.must(b.token(s, "n0").Program(b.Context(), c))
		b.expectCode(b.token(s, "n0"), "84755224")
		b.must(b.token(s, "n0").Delete(b.Context(), secret.Secret{}))
		b.must(b.token(s, "alice").Program(b.Context(), c))
	})
}

func TestTouch(t *testing.T) {
	each(t, func(b *bench) {
		s := b.open()
		c := oathapplet.Credential{Name: "touched", Type: oathapplet.HOTP, Algorithm: oathapplet.SHA1, Digits: 6, Touch: true}
		b.must(s.Put(b.Context(), c, rfc()))
		b.touches = 0
		if code, err := s.Calculate(b.Context(), c, time.Time{}); err != nil || code != "755224" || b.touches != 1 {
			b.Errorf("%s after %d touches, %v", code, b.touches, err)
		}
		b.away = true
		if _, err := s.Calculate(b.Context(), c, time.Time{}); !errors.Is(err, device.ErrNoTouch) {
			b.Error(err)
		}
		b.must(s.Delete(b.Context(), "nothing"))
		if err := s.Delete(b.Context(), "touched"); errors.Is(err, device.ErrNoTouch) != b.nitrokey || !b.nitrokey && err != nil {
			b.Error(err)
		}
	})
}

func TestOtherTokens(t *testing.T) {
	each(t, func(b *bench) {
		s := b.open()
		for _, id := range []device.TokenID{"nk-00005d1a/oath:alice", "nk-00005d19/hotp1", "yk-23833/otp1", "yk-23833/piv", "fob-1", ""} {
			if _, err := s.Token(b.Context(), id); !errors.Is(err, device.ErrNoApplication) {
				b.Errorf("%s: %v", id, err)
			}
		}
		other := device.TokenID("nk-00005d19/oath:alice")
		if b.nitrokey {
			other = "yk-23833/oath:alice"
		}
		if _, err := s.Token(b.Context(), other); !errors.Is(err, device.ErrNoApplication) {
			b.Errorf("%s: %v", other, err)
		}
	})
}

func TestCancelled(t *testing.T) {
	each(t, func(b *bench) {
		one := b.alice()
		ctx, cancel := context.WithCancel(b.Context())
		cancel()
		before := b.sent
		for name, err := range map[string]error{
			"describe": second(one.Describe(ctx)), "program": one.Program(ctx, device.HOTPConfig{Seed: rfc(), Digits: 6}),
			"code": second(one.Code(ctx)), "delete": one.Delete(ctx, secret.Secret{}), "unlock": one.Unlock(ctx, secret.Secret{}),
			"open": second(oathapplet.Open(ctx, b)),
		} {
			if !errors.Is(err, context.Canceled) {
				b.Errorf("%s: %v", name, err)
			}
		}
		if b.sent != before {
			b.Errorf("%d APDUs were sent", b.sent-before)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// What firmware lacks is refused by its name, before anything is written.
func TestOldFirmware(t *testing.T) {
	b := newBench(t, kind{name: "old", firmware: device.Version{Major: 4, Minor: 2, Build: 3}})
	s := b.open()
	before := b.sent
	for name, c := range map[string]oathapplet.Credential{
		"touch":   {Name: "a", Type: oathapplet.TOTP, Algorithm: oathapplet.SHA1, Digits: 6, Touch: true},
		"SHA-512": {Name: "a", Type: oathapplet.TOTP, Algorithm: oathapplet.SHA512, Digits: 6},
	} {
		if err := s.Put(t.Context(), c, rfc()); !errors.As(err, new(*device.FirmwareError)) || b.sent != before {
			t.Errorf("%s: %v", name, err)
		}
	}
	// It would write over alice.
	b.must(b.token(s, "alice").Program(t.Context(), device.HOTPConfig{Seed: rfc(), Digits: 6}))
	if err := b.token(s, "ali").Program(t.Context(), device.HOTPConfig{Seed: text("another seed"), Digits: 6}); err == nil {
		t.Error("ali was written where alice is")
	}
	b.must(b.token(s, "alice").Program(t.Context(), device.HOTPConfig{Seed: rfc(), Digits: 8}))
	b.must(b.token(s, "alice2").Program(t.Context(), device.HOTPConfig{Seed: text("another seed"), Digits: 6}))
	b.expectCode(b.token(s, "alice"), "84755224")
}

func TestNoApplication(t *testing.T) {
	b := newBench(t, kinds[1])
	b.must(b.card.SetFault(smartcard.FaultStatus, 0x6A82))
	_, err := oathapplet.Open(t.Context(), b)
	if _, cure := device.Cure(err); !errors.Is(err, device.ErrNoApplication) || !strings.Contains(cure, "--enable OATH") {
		t.Error(err)
	}
}

func TestRefusedCredentials(t *testing.T) {
	each(t, func(b *bench) {
		s := b.open()
		good := oathapplet.Credential{Name: "a", Type: oathapplet.TOTP, Algorithm: oathapplet.SHA1, Digits: 6}
		before := b.sent
		for name, change := range map[string]func(*oathapplet.Credential, *secret.Secret){
			"no name":           func(c *oathapplet.Credential, _ *secret.Secret) { c.Name = "" },
			"a long name":       func(c *oathapplet.Credential, _ *secret.Secret) { c.Name = strings.Repeat("x", 65) },
			"a type":            func(c *oathapplet.Credential, _ *secret.Secret) { c.Type = 0x30 },
			"a hash":            func(c *oathapplet.Credential, _ *secret.Secret) { c.Algorithm = 4 },
			"no hash":           func(c *oathapplet.Credential, _ *secret.Secret) { c.Algorithm = 0 },
			"5 digits":          func(c *oathapplet.Credential, _ *secret.Secret) { c.Digits = 5 },
			"9 digits":          func(c *oathapplet.Credential, _ *secret.Secret) { c.Digits = 9 },
			"a counter of TOTP": func(c *oathapplet.Credential, _ *secret.Secret) { c.Counter = 1 },
			"no seed":           func(_ *oathapplet.Credential, seed *secret.Secret) { *seed = secret.Secret{} },
			"a long seed":       func(_ *oathapplet.Credential, seed *secret.Secret) { *seed = secret.Random(65) },
		} {
			c, seed := good, rfc()
			change(&c, &seed)
			if err := s.Put(b.Context(), c, seed); err == nil || b.sent != before {
				b.Errorf("%s: %v", name, err)
			}
		}
		b.must(s.Put(b.Context(), good, secret.Random(64)))
	})
}

// What a card says of itself when it is selected, and what is made of that.
func TestSelectAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer           string
		damaged, tooOld  bool
		nitrokey, locked bool
	}{
		"YubiKey":                            {answer: "7903050403 7102aabb"},
		"YubiKey with a password":            {answer: "7903050403 7102aabb 7401cc 7b0101", locked: true},
		"an unknown field":                   {answer: "7903050403 7102aabb 7f00"},
		"Nitrokey 3":                         {answer: "7903040b00 7102aabb 8f0400005d19", nitrokey: true},
		"Nitrokey 3 with a PIN":              {answer: "7903040b00 820108 8f0400005d19", nitrokey: true},
		"Nitrokey 3 that tells no tries":     {answer: "7903040b00 8200 8f0400005d19", nitrokey: true},
		"Nitrokey 3 without a serial":        {answer: "7903040a00 820108", tooOld: true},
		"one that tells its version only":    {answer: "7903040a00", tooOld: true},
		"nothing":                            {damaged: true},
		"no version":                         {answer: "7102aabb", damaged: true},
		"a short version":                    {answer: "79020504 7102aabb", damaged: true},
		"an empty salt":                      {answer: "7903050403 7100", damaged: true},
		"an empty challenge":                 {answer: "7903050403 7102aabb 7400", damaged: true},
		"a short serial":                     {answer: "7903040b00 8f03005d19", damaged: true},
		"many tries":                         {answer: "7903040b00 82020108 8f0400005d19", damaged: true},
		"a field that ends in the middle":    {answer: "7903050403 7108aabb", damaged: true},
		"a field that ends after its tag":    {answer: "7903050403 71", damaged: true},
		"a version that says nothing at all": {answer: "7903000000 7102aabb", damaged: true},
	} {
		s, err := oathapplet.Open(t.Context(), newScript(t, "00a40400 07 a0000005272101 > "+c.answer+" 9000"))
		if errors.Is(err, device.ErrCorrupt) != c.damaged || errors.As(err, new(*device.FirmwareError)) != c.tooOld {
			t.Errorf("%s: %v", name, err)
		} else if err == nil && (s.Nitrokey() != c.nitrokey || s.Locked() != c.locked) {
			t.Errorf("%s: Nitrokey %v, locked %v", name, s.Nitrokey(), s.Locked())
		}
	}
}
