package tpmseal

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

func TestCounter(t *testing.T) {
	tpm := start(t)
	name, first, auth := newCounter(t, tpm)
	for n := first; n < first+3; n++ {
		if now, err := tpm.Count(name, auth); err != nil || now != n {
			t.Fatalf("counter %d (%v), want %d", now, err, n)
		}
		if err := tpm.Increment(name, auth); err != nil {
			t.Fatal(err)
		}
	}
	other, _, otherAuth := newCounter(t, tpm)
	if bytes.Equal(name, other) {
		t.Error("two counters have one name")
	}
	_, err := tpm.Count(name, otherAuth)
	wantState(t, err, vault.StateCounterLost, "BAD_AUTH")
	wantState(t, tpm.Increment(name, otherAuth), vault.StateCounterLost, "BAD_AUTH")
	if a := failures(t, tpm); a.failed != 0 {
		t.Errorf("%d failures count against the lockout", a.failed)
	}
	if err := tpm.DropCounter(name); err != nil {
		t.Fatal(err)
	}
	wantState(t, tpm.DropCounter(name), vault.StateCounterLost, "no counter at")
	_, err = tpm.Count(name, auth)
	wantState(t, err, vault.StateCounterLost, "no counter at")
	if _, err := tpm.Count(other, otherAuth); err != nil {
		t.Error(err)
	}
	for _, bad := range []secret.Secret{{}, secret.Random(31), secret.New(make([]byte, 32))} {
		if _, _, err := tpm.NewCounter(bad); err == nil {
			t.Errorf("took an auth of %d bytes", bad.Len())
		}
	}
	empty(t, tpm)
}

func TestFreeHandlesAreFound(t *testing.T) {
	tpm := start(t)
	var names [][]byte
	for range 5 {
		name, _, _ := newCounter(t, tpm)
		names = append(names, name)
	}
	for i, want := range []uint32{firstIndex, firstIndex + 1, firstIndex + 2, firstIndex + 3, firstIndex + 4} {
		if c, err := parseCounter(names[i]); err != nil || uint32(c.handle) != want {
			t.Errorf("counter %d is at %#x (%v)", i, uint32(c.handle), err)
		}
	}
	if err := tpm.DropCounter(names[2]); err != nil {
		t.Fatal(err)
	}
	again, _, _ := newCounter(t, tpm)
	if !bytes.Equal(again[:5], names[2][:5]) || bytes.Equal(again, names[2]) {
		t.Errorf("the hole at %x was filled by %x", names[2], again)
	}
}

// redefine puts another index in a counter's place, as whoever has the owner's empty password can.
func redefine(t *testing.T, tpm *TPM, name []byte, auth secret.Secret, change func(*tpm2.TPMSNVPublic)) {
	t.Helper()
	err := tpm.run("redefine", func() error {
		c, err := tpm.counter(name)
		if err != nil {
			return err
		}
		public, err := tpm.publicOf(c.handle)
		if err != nil {
			return err
		}
		if err := tpm.undefine(c); err != nil {
			return err
		}
		same, err := tpm2.Unmarshal[tpm2.TPMSNVPublic](public)
		if err != nil {
			return err
		}
		same.Attributes.Written = false
		change(same)
		if _, err := (tpm2.NVDefineSpace{AuthHandle: owner(), Auth: tpm2.TPM2BAuth{Buffer: auth.Reveal()}, PublicInfo: tpm2.New2B(*same)}).Execute(tpm.link); err != nil {
			return err
		}
		k, err := tpm.storageRoot()
		if err != nil {
			return err
		}
		return tpm.increment(k, counter{c.handle, nameOf(tpm2.Marshal(*same))}, auth)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRedefinedCounterIsLost(t *testing.T) {
	tpm := start(t)
	for what, change := range map[string]func(*tpm2.TPMSNVPublic){
		"the same":       func(*tpm2.TPMSNVPublic) {},
		"another":        func(p *tpm2.TPMSNVPublic) { p.AuthPolicy.Buffer[0] ^= 1 },
		"more permitted": func(p *tpm2.TPMSNVPublic) { p.Attributes.OwnerWrite = true },
	} {
		name, value, auth := newCounter(t, tpm)
		blob := seal(t, tpm, secret.Random(32), secret.Secret{}, vault.Mark{Counter: name, Value: value})
		redefine(t, tpm, name, randomAuth(), change)
		_, err := tpm.Count(name, auth)
		wantState(t, err, vault.StateCounterLost, "is not the one")
		wantState(t, tpm.Increment(name, auth), vault.StateCounterLost, "is not the one")
		if _, err := tpm.Unseal(blob, secret.Secret{}); err == nil {
			t.Errorf("%s: a blob opens under a counter that was defined again", what)
		}
		if what != "the same" {
			wantState(t, tpm.DropCounter(name), vault.StateCounterLost, "is not the one")
		}
	}
	// Even with its auth known, a counter does not go back.
	name, value, auth := newCounter(t, tpm)
	redefine(t, tpm, name, auth, func(*tpm2.TPMSNVPublic) {})
	if now, err := tpm.Count(name, auth); err != nil || now <= value {
		t.Errorf("defined again, it stands at %d, before at %d (%v)", now, value, err)
	}
	empty(t, tpm)
}

// A name from a file that was tampered with must not make this program remove what others keep in the TPM.
func TestOthersIndexIsNotTouched(t *testing.T) {
	tpm := start(t)
	theirs := tpm2.TPMSNVPublic{NVIndex: firstIndex + 7, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NT: tpm2.TPMNTOrdinary}}
	err := tpm.run("define", func() error {
		_, err := tpm2.NVDefineSpace{AuthHandle: owner(), PublicInfo: tpm2.New2B(theirs)}.Execute(tpm.link)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	hostile := counter{theirs.NVIndex, nameOf(tpm2.Marshal(theirs))}.encode()
	wantState(t, tpm.DropCounter(hostile), vault.StateCounterLost, "no counter of this program")
	err = tpm.run("look", func() error {
		public, err := tpm.publicOf(theirs.NVIndex)
		if public == nil {
			t.Error("it is gone")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestClearedTPM(t *testing.T) {
	device := vaulttest.StartSWTPM(t)
	tpm := open(t, device)
	name, value, auth := newCounter(t, tpm)
	k := key(t, tpm, rightPIN, nil)
	plain := secret.Random(32)
	blob := seal(t, tpm, plain, k, vault.Mark{Counter: name, Value: value})
	opens(t, tpm, blob, k, plain)
	clearTPM(t, tpm)
	if err := tpm.Close(); err != nil {
		t.Fatal(err)
	}
	tpm = open(t, device)
	_, err := tpm.Unseal(blob, k)
	wantState(t, err, vault.StateTPMChanged, "another storage root key")
	_, err = tpm.Count(name, auth)
	wantState(t, err, vault.StateCounterLost, "no counter at")
	wantState(t, tpm.Increment(name, auth), vault.StateCounterLost, "no counter at")
	_, err = tpm.Seal(plain, k, vault.Mark{Counter: name, Value: value})
	wantState(t, err, vault.StateCounterLost, "no counter at")
	newCounter(t, tpm) // and a new beginning is possible
	empty(t, tpm)
}

func TestLostCounter(t *testing.T) {
	tpm := start(t)
	name, value, _ := newCounter(t, tpm)
	blob := seal(t, tpm, secret.Random(32), secret.Secret{}, vault.Mark{Counter: name, Value: value})
	if err := tpm.DropCounter(name); err != nil {
		t.Fatal(err)
	}
	_, err := tpm.Unseal(blob, secret.Secret{})
	wantState(t, err, vault.StateCounterLost, "no counter at")
}

// Once a seal has opened, another TPM in the place of the first gets no secret.
func TestTPMExchangedWhileOpen(t *testing.T) {
	tpm := start(t)
	plain := secret.Random(32)
	blob := seal(t, tpm, plain, secret.Secret{}, vault.Mark{})
	opens(t, tpm, blob, secret.Secret{}, plain)
	clearTPM(t, tpm)
	_, err := tpm.Seal(plain, secret.Secret{}, vault.Mark{})
	wantState(t, err, vault.StateTPMChanged, "than a while ago")
	_, _, err = tpm.NewCounter(randomAuth())
	wantState(t, err, vault.StateTPMChanged, "than a while ago")
	empty(t, tpm)
}
