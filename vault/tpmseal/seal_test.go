package tpmseal

import (
	"bytes"
	"errors"
	"testing"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

var (
	_ vault.Anchor  = (*TPM)(nil)
	_ vault.Guesses = (*TPM)(nil)
)

func TestSealUnseal(t *testing.T) {
	tpm := start(t)
	if tpm.Level() != vault.LevelEmulated || tpm.Kind() != "tpm" {
		t.Errorf("level %s, kind %s", tpm.Level(), tpm.Kind())
	}
	for _, p := range []string{"", rightPIN} {
		for _, n := range []int{1, 32, maxPlain} {
			s := secret.Random(n)
			blob := seal(t, tpm, s, key(t, tpm, p, nil), vault.Mark{})
			opens(t, tpm, blob, key(t, tpm, p, blob), s)
		}
		for _, n := range []int{0, maxPlain + 1} {
			if _, err := tpm.Seal(secret.Random(n), key(t, tpm, p, nil), vault.Mark{}); err == nil {
				t.Errorf("sealed %d bytes", n)
			}
		}
	}
	// All zero bytes and others that once were cut (go-tpm#446) have to survive as data.
	zeros := secret.New(make([]byte, 32))
	blob := seal(t, tpm, zeros, secret.Secret{}, vault.Mark{})
	opens(t, tpm, blob, secret.Secret{}, zeros)
	empty(t, tpm)
}

func TestOldBlobOpens(t *testing.T) {
	tpm := start(t)
	for _, n := range []int{1, 32, 128} {
		plain := secret.Random(n)
		blob := oldBlob(t, tpm, plain)
		opens(t, tpm, blob, key(t, tpm, "", blob), plain)
		if _, err := tpm.Key(pin(rightPIN), blob); err == nil {
			t.Error("an old blob takes a PIN")
		} else {
			wantState(t, err, vault.StateWrongPIN, "without one")
		}
	}
	plain := secret.Random(32)
	b, err := decodeBlob(oldBlob(t, tpm, plain))
	if err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string][]byte{"public": b.public, "private": b.private, "auth": b.auth} {
		part[len(part)-1] ^= 1
		if _, err := tpm.Unseal(b.encode(), secret.Secret{}); err == nil {
			t.Errorf("opens with an altered %s", name)
		} else if name == "auth" {
			wantState(t, err, vault.StateCorrupt, "")
		} else {
			wantState(t, err, vault.StateTPMChanged, "INTEGRITY")
		}
		part[len(part)-1] ^= 1
	}
	opens(t, tpm, b.encode(), secret.Secret{}, plain)
	empty(t, tpm)
}

func TestPINIsNeeded(t *testing.T) {
	tpm := start(t)
	plain := secret.Random(32)
	with := seal(t, tpm, plain, key(t, tpm, rightPIN, nil), vault.Mark{})
	without := seal(t, tpm, plain, secret.Secret{}, vault.Mark{})
	left, _, err := tpm.Guesses()
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm.Key(secret.Secret{}, with)
	if e := wantState(t, err, vault.StateWrongPIN, "sealed with one"); e.Left != left {
		t.Errorf("%d left, want %d", e.Left, left)
	}
	_, err = tpm.Unseal(with, secret.Secret{})
	wantState(t, err, vault.StateWrongPIN, "sealed with one")
	_, err = tpm.Key(pin(rightPIN), without)
	wantState(t, err, vault.StateWrongPIN, "sealed without one")
	_, err = tpm.Unseal(without, key(t, tpm, rightPIN, nil))
	wantState(t, err, vault.StateWrongPIN, "sealed without one")
	if _, err := tpm.Unseal(with, key(t, tpm, rightPIN, nil)); err == nil {
		t.Error("a key of another salt opens")
	}
	if _, err := tpm.Unseal(with, secret.Random(7)); err == nil {
		t.Error("something that is no key opens")
	}
	if now, _, err := tpm.Guesses(); err != nil || now != left {
		t.Errorf("%d left (%v), want %d", now, err, left)
	}
}

// What the TPM guards is not enough: the PIN's other half is needed too.
func TestBrokenTPMStillLeavesThePIN(t *testing.T) {
	tpm := start(t)
	k := key(t, tpm, rightPIN, nil)
	blob := seal(t, tpm, secret.Random(32), k, vault.Mark{})
	b, err := decodeBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := splitKey(k)
	if err != nil {
		t.Fatal(err)
	}
	err = tpm.run("break", func() error {
		object, err := tpm.release(b, parts.auth)
		if err != nil {
			return err
		}
		if _, err := b.open(object, secret.Secret{}); err == nil {
			t.Error("opens without the PIN's half")
		}
		if _, err := b.open(object, secret.Random(halfSize)); err == nil {
			t.Error("opens with another half")
		}
		_, err = b.open(object, parts.half)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAlteredBlobIsRefused(t *testing.T) {
	tpm := start(t)
	setLimits(t, tpm, 1000000, 1000)
	name, value, _ := newCounter(t, tpm)
	plain := secret.Random(32)
	for _, p := range []string{"", rightPIN} {
		k := key(t, tpm, p, nil)
		blob := seal(t, tpm, plain, k, vault.Mark{Counter: name, Value: value})
		for i := range blob {
			bad := bytes.Clone(blob)
			bad[i] ^= 1 << (i % 8)
			_, err := tpm.Unseal(bad, k)
			var state *vault.StateError
			if !errors.As(err, &state) && !errors.Is(err, vault.ErrStale) && !bytes.Contains([]byte(err.Error()), []byte("another blob")) {
				t.Fatalf("byte %d: %v", i, err)
			}
		}
		opens(t, tpm, blob, k, plain)
	}
	empty(t, tpm)
}

func TestManyCyclesLeaveNothingInTheTPM(t *testing.T) {
	tpm := start(t)
	name, value, auth := newCounter(t, tpm)
	k := key(t, tpm, rightPIN, nil)
	for range 100 {
		s := secret.Random(32)
		blob := seal(t, tpm, s, k, vault.Mark{Counter: name, Value: value})
		opens(t, tpm, blob, k, s)
		if err := tpm.Increment(name, auth); err != nil {
			t.Fatal(err)
		}
		value++
		if now, err := tpm.Count(name, auth); err != nil || now != value {
			t.Fatalf("counter %d (%v), want %d", now, err, value)
		}
	}
	empty(t, tpm)
}

func TestSealDiesWhenItsTimeHasPassed(t *testing.T) {
	tpm := start(t)
	name, now, auth := newCounter(t, tpm)
	for _, p := range []string{"", rightPIN} {
		plain, k := secret.Random(32), key(t, tpm, p, nil)
		before := failures(t, tpm)
		this := seal(t, tpm, plain, k, vault.Mark{Counter: name, Value: now})
		next := seal(t, tpm, plain, k, vault.Mark{Counter: name, Value: now + 1})
		opens(t, tpm, this, k, plain)
		_, err := tpm.Unseal(next, k)
		wantState(t, err, vault.StateCounterLost, "stands at")
		if err := tpm.Increment(name, auth); err != nil {
			t.Fatal(err)
		}
		now++
		if _, err := tpm.Unseal(this, k); !errors.Is(err, vault.ErrStale) {
			t.Errorf("an old blob: %v", err)
		}
		opens(t, tpm, next, k, plain)
		// The TPM itself refuses, and not this program alone.
		b, err := decodeBlob(this)
		if err != nil {
			t.Fatal(err)
		}
		if err := failAsOther(t, tpm, this); err == nil || !bytes.Contains([]byte(err.Error()), []byte("TPM_RC_POLICY")) {
			t.Errorf("the TPM says %v", err)
		}
		b.mark = vault.Mark{}
		if _, err := tpm.Unseal(b.encode(), k); err == nil {
			t.Error("opens with its time taken out")
		}
		if after := failures(t, tpm); after != before {
			t.Errorf("guesses were used: %+v, before %+v", after, before)
		}
	}
	if _, err := tpm.Seal(secret.Random(32), secret.Secret{}, vault.Mark{Value: 1}); err == nil {
		t.Error("sealed for a time without a counter")
	}
	_, err := tpm.Seal(secret.Random(32), secret.Secret{}, vault.Mark{Counter: []byte("nonsense"), Value: 1})
	wantState(t, err, vault.StateCounterLost, "")
	empty(t, tpm)
}
