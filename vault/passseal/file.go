package passseal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

const maxPassphrase = 4096

// FromFile makes a sealer of the passphrase in a file, without one trailing newline. The file must be closed to
// group and others.
func FromFile(path string) (*Sealer, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, &vault.StateError{State: vault.StatePermission, Err: fmt.Errorf("cannot read the passphrase: %w", err),
			Cure: fmt.Sprintf("give this user %s, mode 0600", path)}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the passphrase: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot read the passphrase: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot read the passphrase: %s is not a regular file", path)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return nil, &vault.StateError{State: vault.StatePermission,
			Err:  fmt.Errorf("the passphrase file %s is open to other users (mode %04o)", path, m),
			Cure: fmt.Sprintf("take a new passphrase if they may have read it, and run chmod 600 %s", path)}
	}
	buf := make([]byte, maxPassphrase+1)
	defer clear(buf)
	n, err := io.ReadFull(f, buf)
	if err == nil {
		return nil, fmt.Errorf("cannot use the passphrase in %s: it has more than %d bytes", path, maxPassphrase)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("cannot read the passphrase: %w", err)
	}
	line := bytes.TrimSuffix(buf[:n], []byte("\n"))
	if len(line) == 0 {
		return nil, fmt.Errorf("cannot use the passphrase in %s: it is empty", path)
	}
	return &Sealer{secret.New(line), DefaultParams()}, nil
}
