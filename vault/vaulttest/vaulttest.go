// Package vaulttest gives tests and demonstrations temporary vaults and software TPMs.
//
// Everything is real: bbolt on disk, Argon2id at its minimum, swtpm in its own process. Every vault is checked
// as a whole when its test ends. It is not for production: nothing that ships may import it.
package vaulttest

import (
	"os"
	"path/filepath"
	"testing"

	"tokendesk/vault"
	"tokendesk/vault/passseal"
	"tokendesk/vault/secret"
)

// Passphrase opens the vaults that New makes.
const Passphrase = "correct horse battery staple"

// New returns a vault of its own for a test. When the test ends, the vault is checked and closed.
func New(t testing.TB) *vault.Vault {
	t.Helper()
	v, err := vault.Create(filepath.Join(t.TempDir(), "vault"), Sealer(t))
	if err != nil {
		t.Fatal(err)
	}
	CheckAtEnd(t, v)
	return v
}

// CheckAtEnd checks and closes v when the test ends. A vault that the test has closed itself is left alone.
func CheckAtEnd(t testing.TB, v *vault.Vault) {
	t.Helper()
	t.Cleanup(func() {
		if err := v.Check(); err != nil && !isClosed(err) {
			t.Errorf("the vault fails its check: %v", err)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Sealer returns the cheapest sealer there is, with Passphrase.
func Sealer(t testing.TB) *passseal.Sealer {
	t.Helper()
	s, err := passseal.NewWithParams(secret.New([]byte(Passphrase)), passseal.MinimumParams())
	if err != nil {
		t.Fatal(err)
	}
	return s
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
