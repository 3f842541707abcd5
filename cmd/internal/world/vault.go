package world

import (
	"context"
	"fmt"

	"filippo.io/age"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

// Passphrase is that of a vault without a TPM, if no other was chosen.
const Passphrase = "correct horse battery staple"

// initVault makes a recovery identity as age-keygen would, and the vault as an officer would: the daemon opens it.
func (w *World) initVault() error {
	if w.options.Passphrase && w.options.PIN == "" {
		w.options.PIN = Passphrase
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	w.Recipient = identity.Recipient().String()
	if err := w.writeFile(w.Identity, identity.String()+"\n"); err != nil || w.options.NoVault {
		return err
	}
	pin, file := secret.New([]byte(w.options.PIN)), secret.New([]byte(identity.String()+"\n"))
	defer pin.Wipe()
	defer file.Wipe()
	var made api.VaultOutcome
	in := api.VaultInit{Recipients: []string{w.Recipient}}
	if err := w.Client.PostSecret(context.Background(), "/v1/vault/init", in, &made, pin, file); err != nil {
		return fmt.Errorf("cannot create the vault: %w", err)
	}
	return nil
}

// Unlock opens the vault with a PIN.
func (w *World) Unlock(ctx context.Context, pin string) error {
	p := secret.New([]byte(pin))
	defer p.Wipe()
	var opened api.VaultOutcome
	return w.Client.PostSecret(ctx, "/v1/vault/unlock", nil, &opened, p)
}
