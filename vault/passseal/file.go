package passseal

import (
	"errors"
	"fmt"
	"io/fs"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
)

// FromFile makes a sealer of the passphrase in a file, as secret.ReadFile reads it. It takes no passphrase beside it.
func FromFile(path string) (*Sealer, error) {
	passphrase, err := secret.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, secret.ErrExposed):
		return nil, &vault.StateError{State: vault.StatePermission, Err: fmt.Errorf("cannot read the passphrase: %w", err),
			Cure: fmt.Sprintf("give the user that runs tokendeskd %s, mode 0600", path)}
	case err != nil:
		return nil, fmt.Errorf("cannot read the passphrase: %w", err)
	}
	defer passphrase.Wipe()
	return Fixed(passphrase, stretch.Default())
}
