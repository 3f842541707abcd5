package daemon

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/passseal"
	"tokendesk/vault/tpmseal"
)

// open opens what the vault is sealed by.
func (c VaultConfig) open() (vault.Sealer, error) {
	switch c.Seal {
	case sealPassphrase:
		return passseal.New(), nil
	case sealKeyFile:
		s, err := passseal.FromFile(c.KeyFile)
		if err != nil { // a nil *passseal.Sealer in an interface would not be nil
			return nil, err
		}
		return s, nil
	}
	t, err := tpmseal.Open(c.TPM)
	if err != nil {
		return nil, err
	}
	return t, nil
}

// levelPatience is how long a busy TPM is waited for to say what it is.
const levelPatience = 2 * time.Second

// level is how well this board can protect a vault, as far as rule D6 needs it: before the vault is open, and for as long as
// the daemon runs. Only a TPM at a device node can be a real one, and it is asked; if it does not answer, it is taken for one,
// and the desk has to be started again for emulated tokens.
func (c VaultConfig) level(log *slog.Logger) vault.Level {
	switch {
	case c.Seal == sealPassphrase:
		return vault.LevelPassphrase
	case c.Seal == sealKeyFile:
		return vault.LevelKeyFile
	case strings.HasPrefix(c.TPM, "unix:"):
		return vault.LevelEmulated
	}
	t, err := tpmseal.OpenWith(c.TPM, tpmseal.Options{Patience: levelPatience})
	if err != nil {
		log.Warn("the TPM does not say whether it is a real one: emulated tokens are not used", "error", err)
		return vault.LevelTPM
	}
	if err := t.Close(); err != nil {
		log.Warn("the TPM is not left in order", "error", err)
	}
	return t.Level()
}

// parent tells this board's storage root key, for a vault that is to come here. It is nil without a TPM.
func (c VaultConfig) parent() func() ([]byte, error) {
	if c.Seal != sealTPM {
		return nil
	}
	return func() (public []byte, err error) {
		t, err := tpmseal.Open(c.TPM)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, t.Close()) }()
		return t.Parent()
	}
}
