package tpmseal

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func parentOf(t testing.TB, tpm *TPM) []byte {
	t.Helper()
	p, err := tpm.Parent()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMoveToAnotherTPM(t *testing.T) {
	old, fresh := start(t), start(t)
	k := key(t, old, rightPIN, nil)
	for _, n := range []int{1, 32, maxWrapped} {
		plain := secret.Random(n)
		blob := seal(t, old, plain, k, vault.Mark{})
		_, err := fresh.Unseal(blob, k)
		wantState(t, err, vault.StateTPMChanged, "another storage root key")
		opened, err := old.Unseal(blob, k)
		if err != nil {
			t.Fatal(err)
		}
		w, err := Wrap(parentOf(t, fresh), opened)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(w, plain.Reveal()) && n > 1 {
			t.Error("the wrapped secret shows")
		}
		_, err = old.Unwrap(w)
		wantState(t, err, vault.StateTPMChanged, "another storage root key")
		got, err := fresh.Unwrap(w)
		if err != nil || !got.Equal(plain) {
			t.Fatalf("unwrap: %v", err)
		}
		newKey := key(t, fresh, "another PIN", nil)
		opens(t, fresh, seal(t, fresh, got, newKey, vault.Mark{}), newKey, plain)
	}
	if a := failures(t, fresh); a.failed != 0 {
		t.Errorf("%d failures count against the lockout", a.failed)
	}
	empty(t, old)
	empty(t, fresh)
}

func TestWrappedSecretIsForOneTPM(t *testing.T) {
	a, b := start(t), start(t)
	raw, err := Wrap(parentOf(t, a), secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	w, err := decodeWrapped(raw)
	if err != nil {
		t.Fatal(err)
	}
	p, err := parseParent(parentOf(t, b))
	if err != nil {
		t.Fatal(err)
	}
	w.srk = p.name.Buffer // the TPM has the last word, not the Name beside it
	if _, err := b.Unwrap(w.encode()); err == nil {
		t.Error("unwrapped on another TPM")
	} else {
		wantState(t, err, vault.StateTPMChanged, "did not make")
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, err := a.Unwrap(bad); err == nil {
			t.Errorf("unwrapped with byte %d altered", i)
		}
	}
	if _, err := a.Unwrap(raw); err != nil {
		t.Error(err)
	}
	empty(t, a)
	empty(t, b)
}

func TestWrapRefusesOtherKeys(t *testing.T) {
	tpm := start(t)
	good := parentOf(t, tpm)
	p, err := parseParent(good)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*tpm2.TPMTPublic)) []byte {
		public := p.public
		f(&public)
		return tpm2.Marshal(public)
	}
	for name, b := range map[string][]byte{
		"empty":         {},
		"short":         good[:len(good)-1],
		"long":          append(bytes.Clone(good), 0),
		"not on curve":  append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1),
		"unrestricted":  change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false }),
		"not fixed":     change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false }),
		"no parent":     change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false }),
		"signs":         change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = true }),
		"no decryption": change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = false }),
		"own data":      change(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false }),
		"policy":        change(func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) }),
		"RSA":           tpm2.Marshal(tpm2.RSASRKTemplate),
		"endorsement":   tpm2.Marshal(tpm2.ECCEKTemplate),
		"no point":      tpm2.Marshal(tpm2.ECCSRKTemplate),
	} {
		if _, err := Wrap(b, secret.Random(32)); err == nil {
			t.Errorf("%s: wrapped", name)
		}
		if _, err := Fingerprint(b); err == nil {
			t.Errorf("%s: has a fingerprint", name)
		}
	}
	for _, n := range []int{0, maxWrapped + 1} {
		if _, err := Wrap(good, secret.Random(n)); err == nil {
			t.Errorf("wrapped %d bytes", n)
		}
	}
	_, err = tpm.Unwrap([]byte("nonsense"))
	wantState(t, err, vault.StateCorrupt, "")
}

func TestFingerprint(t *testing.T) {
	a, b := start(t), start(t)
	one, err := Fingerprint(parentOf(t, a))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^([0-9a-f]{4} ){7}[0-9a-f]{4}$`).MatchString(one) {
		t.Errorf("fingerprint %q", one)
	}
	again, err := Fingerprint(parentOf(t, a))
	if err != nil || again != one {
		t.Errorf("the same TPM has %q and %q (%v)", one, again, err)
	}
	if other, err := Fingerprint(parentOf(t, b)); err != nil || other == one {
		t.Errorf("two TPMs have one fingerprint (%v)", err)
	}
}
