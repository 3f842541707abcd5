package tpmseal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
	"tokendesk/vault/vaulttest"
)

const rightPIN = "correct-horse-481516"

func pin(s string) secret.Secret { return secret.New([]byte(s)) }

func cheap() Options { return Options{Stretch: stretch.Minimum()} }

func open(t testing.TB, device string) *TPM {
	t.Helper()
	tpm, err := OpenWith(device, cheap())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tpm.Close(); err != nil {
			t.Error(err)
		}
	})
	return tpm
}

// tap sits between the desk and a TPM.
type tap struct {
	transport.TPMCloser
	send func(next transport.TPM, command []byte) ([]byte, error)
}

func (t *tap) Send(command []byte) ([]byte, error) { return t.send(t.TPMCloser, command) }

// openTapped opens an swtpm through send, which may be nil to begin with.
func openTapped(t testing.TB, device string, o Options, send *func(transport.TPM, []byte) ([]byte, error)) *TPM {
	t.Helper()
	tpm, err := openOn(device, func() (transport.TPMCloser, error) {
		c, err := dial(strings.TrimPrefix(device, socketPrefix))
		if err != nil {
			return nil, err
		}
		return &tap{c, func(next transport.TPM, command []byte) ([]byte, error) {
			if *send == nil {
				return next.Send(command)
			}
			return (*send)(next, command)
		}}, nil
	}, true, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		*send = nil
		if err := tpm.Close(); err != nil {
			t.Error(err)
		}
	})
	return tpm
}

func wantState(t testing.TB, err error, want vault.State, text string) *vault.StateError {
	t.Helper()
	var state *vault.StateError
	if !errors.As(err, &state) {
		t.Fatalf("got %v, want state %s", err, want)
	}
	if state.State != want || state.Cure == "" || !strings.Contains(err.Error(), text) {
		t.Fatalf("got state %s (%v), want %s with %q", state.State, err, want, text)
	}
	return state
}

// key gives the key of a PIN; "" is none.
func key(t testing.TB, tpm *TPM, p string, blob []byte) secret.Secret {
	t.Helper()
	k, err := tpm.Key(pin(p), blob)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func seal(t testing.TB, tpm *TPM, plain, key secret.Secret, at vault.Mark) []byte {
	t.Helper()
	blob, err := tpm.Seal(plain, key, at)
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func opens(t testing.TB, tpm *TPM, blob []byte, key, plain secret.Secret) {
	t.Helper()
	got, err := tpm.Unseal(blob, key)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(plain) {
		t.Fatal("something else came back")
	}
}

// empty checks that nothing is left behind.
func empty(t testing.TB, tpm *TPM) {
	t.Helper()
	err := tpm.run("look", func() error {
		for _, first := range []uint32{transientObjects, loadedSessions, savedSessions} {
			list, err := tpm.handles(first)
			if err != nil {
				return err
			}
			if len(list) != 0 {
				t.Errorf("left behind: %x", list)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func newCounter(t testing.TB, tpm *TPM) (name []byte, value uint64, auth secret.Secret) {
	t.Helper()
	auth = randomAuth()
	name, value, err := tpm.NewCounter(auth)
	if err != nil {
		t.Fatal(err)
	}
	return name, value, auth
}

// setLimits sets the dictionary attack parameters, for which go-tpm has no command.
func setLimits(t testing.TB, tpm *TPM, tries, recovery uint32) {
	t.Helper()
	body := binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMRHLockout))
	body = binary.BigEndian.AppendUint32(body, 9)
	body = binary.BigEndian.AppendUint32(body, uint32(tpm2.TPMRSPW))
	body = append(body, 0, 0, 1, 0, 0)                // no nonce, continue the session, no password
	for _, v := range []uint32{tries, recovery, 10} { // the last: of the lockout hierarchy itself
		body = binary.BigEndian.AppendUint32(body, v)
	}
	command := binary.BigEndian.AppendUint16(nil, 0x8002)
	command = binary.BigEndian.AppendUint32(command, uint32(headerSize+len(body)))
	command = append(binary.BigEndian.AppendUint32(command, 0x13A), body...) // TPM2_DictionaryAttackParameters
	err := tpm.run("set the limits", func() error {
		response, err := tpm.link.Send(command)
		if err != nil {
			return err
		}
		if rc := binary.BigEndian.Uint32(response[6:]); rc != 0 {
			return tpm2.TPMRC(rc)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func failures(t testing.TB, tpm *TPM) attempts {
	t.Helper()
	var a attempts
	err := tpm.run("look", func() (err error) {
		a, err = tpm.attempts()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// failAsOther makes the TPM count a wrong PIN as another program would: without looking at what is left.
func failAsOther(t testing.TB, tpm *TPM, blob []byte) error {
	t.Helper()
	b, err := decodeBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	return tpm.run("fail", func() error {
		k, err := tpm.storageRoot()
		if err != nil {
			return err
		}
		_, err = tpm.open(k, b, randomAuth())
		return err
	})
}

func clearTPM(t testing.TB, tpm *TPM) {
	t.Helper()
	err := tpm.run("clear", func() error {
		_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(tpm.link)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitTrue polls what only the TPM's own clock can bring about.
func awaitTrue(t testing.TB, within time.Duration, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(within)
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("after %s still not: %s", within, what)
		case <-tick.C:
		}
	}
}

// oldBlob seals as version 1 did: the object holds the secret itself and opens with an auth that lies beside it.
func oldBlob(t testing.TB, tpm *TPM, plain secret.Secret) []byte {
	t.Helper()
	auth := randomAuth()
	defer auth.Wipe()
	b := &blob{version: oldVersion, auth: bytes.Clone(auth.Reveal())}
	err := tpm.run("seal the old way", func() error {
		k, err := tpm.storageRoot()
		if err != nil {
			return err
		}
		s, err := tpm.session(k, tpm2.AESEncryption(keyBits, tpm2.EncryptIn))
		if err != nil {
			return err
		}
		r, err := tpm2.Create{
			ParentHandle: k.auth(s),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
				UserAuth: tpm2.TPM2BAuth{Buffer: auth.Reveal()},
				Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: plain.Reveal()}),
			}},
			InPublic: tpm2.New2B(tpm2.TPMTPublic{
				Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
				Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
					Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
				}),
			}),
		}.Execute(tpm.link)
		if err != nil {
			return err
		}
		b.srk, b.public, b.private = k.name.Buffer, bytes.Clone(r.OutPublic.Bytes()), r.OutPrivate.Buffer
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.encode()
}

func start(t testing.TB) *TPM {
	t.Helper()
	return open(t, vaulttest.StartSWTPM(t))
}
