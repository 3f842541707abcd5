package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

// recipients checks names for age recipients, before they are sent. An identity among them is not repeated.
func recipients(names []string) ([]string, error) {
	var checked []string
	for _, name := range names {
		if strings.Contains(strings.ToUpper(name), "AGE-SECRET-KEY-") {
			return nil, usage("--recipient was given an identity, which is secret: it is in your shell's history now; make another one, and give its public key, age1...")
		}
		if r, err := age.ParseRecipients(strings.NewReader(name)); err != nil || len(r) != 1 || strings.TrimSpace(name) != name {
			return nil, usage("%q is not an age recipient: one begins with age1, and stands in the identity's file after \"public key:\"", cut(harmless(name), narrow))
		}
		if !slices.Contains(checked, name) {
			checked = append(checked, name)
		}
	}
	return checked, nil
}

// recipientsOf are those that an identity file opens for. What the parser copies of it is erased only in builds with
// runtime/secret; this process is short.
func recipientsOf(file secret.Secret) (names []string, err error) {
	secret.Do(func() {
		if bytes.HasPrefix(file.Reveal(), []byte("age-encryption.org/")) || bytes.HasPrefix(file.Reveal(), []byte("-----BEGIN AGE ENCRYPTED FILE-----")) {
			err = usage("the identity file is itself encrypted: decrypt it into a pipe, as in: age -d FILE | tokendesk ... --identity -")
			return
		}
		ids, parseErr := age.ParseIdentities(bytes.NewReader(file.Reveal()))
		if parseErr != nil { // its words are not repeated
			err = usage("this is not an age identity file: give the one that age-keygen has made (AGE-SECRET-KEY-...), or make one with --new-identity")
			return
		}
		for _, id := range ids {
			switch id := id.(type) {
			case *age.X25519Identity:
				names = append(names, id.Recipient().String())
			case *age.HybridIdentity:
				names = append(names, id.Recipient().String())
			}
		}
	})
	return names, err
}

// newIdentity makes an identity and keeps it in a new file, as age-keygen would.
func newIdentity(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return usage("%s exists: give it as --identity, or name another file", path)
	} else if err != nil {
		return usage("cannot make the identity file: %v", err)
	}
	secret.Do(func() {
		var id *age.X25519Identity
		if id, err = age.GenerateX25519Identity(); err != nil {
			return
		}
		text := fmt.Appendf(nil, "# created: %s\n# public key: %s\n%s\n", time.Now().Format(time.RFC3339), id.Recipient(), id)
		_, err = f.Write(text)
		clear(text)
	})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(api.Errorf(api.Internal, "cannot make the identity file: %v", err), os.Remove(path))
	}
	return nil
}
