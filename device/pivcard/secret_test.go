package pivcard_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/go-piv/piv-go/v2/piv"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

func TestBlockedSecrets(t *testing.T) {
	for _, firmware := range firmwares {
		c, ctx := direct(t, firmware), t.Context()
		for left := 2; left >= 0; left-- {
			expectPIN(t, c.VerifyPIN(ctx, pin("000000")), "PIN", left)
		}
		expectPIN(t, c.VerifyPIN(ctx, factory), "PIN", 0)
		expectPIN(t, c.ChangePIN(ctx, factory, pin("111111")), "PIN", 0)
		if s := describe(t, c); s.PINRetries != 0 {
			t.Errorf("%+v", s)
		}
		expectPIN(t, c.Unblock(ctx, pin("00000000"), pin("222222")), "PUK", 2)
		must(t, c.Unblock(ctx, factory, pin("222222")))
		must(t, c.VerifyPIN(ctx, pin("222222")))
		if s := describe(t, c); s.PINRetries != 3 {
			t.Errorf("unblocked: %+v", s)
		}
		for left := 2; left >= 0; left-- {
			expectPIN(t, c.ChangePUK(ctx, pin("00000000"), pin("33333333")), "PUK", left)
		}
		expectPIN(t, c.ChangePUK(ctx, factory, pin("33333333")), "PUK", 0)
		expectPIN(t, c.Unblock(ctx, factory, pin("444444")), "PUK", 0)
		must(t, c.Reset(ctx))
		must(t, c.VerifyPIN(ctx, factory))
	}
}

func TestSizesAreCheckedBeforeTriesAreSpent(t *testing.T) {
	c, ctx := direct(t, firmwares[2]), t.Context()
	for _, err := range []error{
		c.VerifyPIN(ctx, pin("12345")), c.VerifyPIN(ctx, pin("123456789")), c.ChangePIN(ctx, factory, pin("1")), c.ChangePUK(ctx, pin("1"), factory),
		c.Unblock(ctx, factory, pin("123456789")), c.SetManagementKey(ctx, factory, secret.Random(16)),
	} {
		if err == nil || errors.As(err, new(*device.PINError)) {
			t.Error(err)
		}
	}
	if s := describe(t, c); !s.Fresh() || s.PINRetries != 3 || s.PUKRetries != 3 {
		t.Errorf("%+v", s)
	}
}

// What a card is to get is never what everybody knows, because a secret is empty or was wiped.
func TestNoSecretIsSetToTheFactorys(t *testing.T) {
	for _, firmware := range firmwares {
		c, ctx := direct(t, firmware), t.Context()
		code, key := pin("654321"), secret.Random(device.ManagementKeySize)
		must(t, c.ChangePIN(ctx, factory, code))
		must(t, c.SetManagementKey(ctx, factory, key))
		wiped := secret.Random(device.ManagementKeySize)
		wiped.Wipe()
		for _, next := range []secret.Secret{{}, wiped} {
			for _, err := range []error{
				c.ChangePIN(ctx, code, next), c.ChangePUK(ctx, factory, next), c.Unblock(ctx, factory, next), c.SetManagementKey(ctx, key, next),
			} {
				if err == nil || errors.As(err, new(*device.PINError)) {
					t.Error(err)
				}
			}
		}
		must(t, c.VerifyPIN(ctx, code))
		must(t, c.CheckManagementKey(ctx, key))
		if s := describe(t, c); s.DefaultPIN || s.PINRetries != 3 || s.DefaultManagementKey {
			t.Errorf("%+v", s)
		}
	}
}

func TestOtherManagementKey(t *testing.T) {
	for _, firmware := range firmwares {
		c, ctx := direct(t, firmware), t.Context()
		other := secret.Random(device.ManagementKeySize)
		must(t, c.SetManagementKey(ctx, factory, other))
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		_, generate := c.Generate(ctx, factory, device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256})
		for _, err := range []error{
			generate, c.CheckManagementKey(ctx, factory), c.CheckManagementKey(ctx, secret.Random(16)), c.SetManagementKey(ctx, factory, secret.Random(24)),
			c.SetCertificate(ctx, factory, 0x9A, issue(t, key.Public(), 0)),
		} {
			if !errors.Is(err, device.ErrManagementKey) {
				t.Error(err)
			}
		}
		must(t, c.SetManagementKey(ctx, other, secret.New(bytes.Clone(piv.DefaultManagementKey))))
		must(t, c.CheckManagementKey(ctx, factory))
	}
}

// Another program has given the card a management key of another kind.
func TestManagementKeyOfAnotherKind(t *testing.T) {
	k := newToken(t, firmwares[2])
	yk, err := piv.Open(rig.Readers[0])
	must(t, err)
	err = yk.SetManagementKey(piv.DefaultManagementKey, make([]byte, 32))
	yk.Close()
	must(t, err)
	c := k.open()
	if err := c.CheckManagementKey(t.Context(), factory); !errors.Is(err, device.ErrManagementKey) {
		t.Error(err)
	}
	if s := describe(t, c); s.DefaultManagementKey || s.Fresh() {
		t.Errorf("%+v", s)
	}
	must(t, c.Reset(t.Context()))
	must(t, c.CheckManagementKey(t.Context(), factory))
}
