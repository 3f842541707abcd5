package vault

import (
	"bytes"
	"errors"
	"io"

	"filippo.io/age"

	"tokendesk/vault/secret"
)

// PassOn takes a root secret every way that age is on: into an envelope and out again, and at the beginning of a long file.
func PassOn(root secret.Secret) error {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	envelope, err := encloseRoot(root, []string{id.Recipient().String()})
	if err != nil {
		return err
	}
	again, err := discloseRoot(envelope, []age.Identity{id})
	if err != nil {
		return err
	}
	defer again.Wipe()
	if !again.Equal(root) {
		return errors.New("the envelope holds another root secret")
	}
	rest := bytes.NewReader(make([]byte, 1<<20))
	return encryptTo(io.Discard, []age.Recipient{id.Recipient()}, bytes.NewReader(root.Reveal()), rest)
}
