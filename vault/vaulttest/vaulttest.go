// Package vaulttest gives tests and demonstrations temporary vaults and software TPMs.
//
// The files are real, and so are swtpm and Argon2id where they are asked for. What is not about them runs on a Chip, which
// does at once what a TPM does. Every vault is checked as a whole when its test ends. It is not for production: nothing that ships may import it.
package vaulttest

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"filippo.io/age"

	"tokendesk/vault"
	"tokendesk/vault/passseal"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
)

// Passphrase is what Sealer seals under.
const Passphrase = "correct horse battery staple"

// New returns an open vault of its own for a test. When the test ends, the vault is checked and closed.
func New(t testing.TB) *vault.Vault {
	t.Helper()
	v := Create(t, filepath.Join(t.TempDir(), "vault"))
	CheckAtEnd(t, v)
	return v
}

// Board is the chip behind the vaults that New and Create make.
var Board = NewChip()

// Create makes a vault without a PIN on Board, and opens it.
func Create(t testing.TB, path string) *vault.Vault {
	t.Helper()
	v := vault.At(path, Board.Open)
	if err := v.Init(Setup(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	return v
}

// Open opens a vault that Create has made in this process.
func Open(t testing.TB, path string) *vault.Vault {
	t.Helper()
	v := vault.At(path, Board.Open)
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	return v
}

// Setup is for a vault with a PIN, or without, that Identity can restore.
func Setup(pin secret.Secret) vault.Setup {
	identity, recipient := Identity()
	return vault.Setup{PIN: pin, Recipients: []string{recipient}, Identity: identity}
}

// Identity returns a fresh copy of this process's recovery identity, as in an identity file, and its recipient.
func Identity() (file secret.Secret, recipient string) {
	id := identity()
	return secret.New([]byte(id.String() + "\n")), id.Recipient().String()
}

var identity = sync.OnceValue(func() *age.X25519Identity {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		panic(err)
	}
	return id
})

// CheckAtEnd checks v, if it is open, and closes it when the test ends.
func CheckAtEnd(t testing.TB, v *vault.Vault) {
	t.Helper()
	t.Cleanup(func() {
		if v.Condition().State == vault.StateOpen {
			if err := v.Check(); err != nil {
				t.Errorf("the vault fails its check: %v", err)
			}
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Sealer opens a sealer that works in every process: it seals under Passphrase, and asks for no PIN.
func Sealer() (vault.Sealer, error) {
	return passseal.Fixed(secret.New([]byte(Passphrase)), stretch.Minimum())
}

// StartSWTPM runs a fresh software TPM until the test ends and returns the device to give to tpmseal.Open.
func StartSWTPM(t testing.TB) (device string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "td") // t.TempDir is too long for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	device, stop, err := StartSWTPMProcess(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return device
}
