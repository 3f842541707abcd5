package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"

	"tokendesk/vault/secret"
)

// A hybrid recipient (age1pq1...) takes 2 KiB of an envelope.
const (
	maxRecipients = 16
	maxRecovery   = 64 << 10 // of a header's recovery envelope, in bytes
)

const cureRecipients = "make an identity with age-keygen, keep its file offline, and name it"

// parseRecipients reads age recipients (age1...).
func parseRecipients(names []string) ([]age.Recipient, error) {
	if len(names) == 0 {
		return nil, fmt.Errorf("a vault needs at least one recovery recipient, or a dead board takes every token with it: %s", cureRecipients)
	}
	if len(names) > maxRecipients {
		return nil, fmt.Errorf("a vault has at most %d recovery recipients, not %d", maxRecipients, len(names))
	}
	var out []age.Recipient
	for _, n := range names {
		r, err := age.ParseRecipients(bytes.NewReader([]byte(n)))
		if err != nil || len(r) != 1 {
			return nil, fmt.Errorf("%q is not an age recipient: %s", n, cureRecipients)
		}
		out = append(out, r...)
	}
	return out, nil
}

// encloseRoot encrypts the root secret to the recipients.
func encloseRoot(root secret.Secret, names []string) ([]byte, error) {
	recipients, err := parseRecipients(names)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := encryptInto(&out, recipients...)
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt to the recovery recipients: %w", err)
	}
	_, err = w.Write(root.Reveal())
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// encryptInto is age.Encrypt. Its keys, and its buffers with what is written, are erased once they are not used any more.
func encryptInto(dst io.Writer, recipients ...age.Recipient) (w io.WriteCloser, err error) {
	secret.Do(func() { w, err = age.Encrypt(dst, recipients...) })
	if err != nil {
		return nil, err
	}
	return erasedWriter{w}, nil
}

// decryptFrom is age.Decrypt. Its keys, and its buffers with what is read, are erased once they are not used any more.
func decryptFrom(src io.Reader, ids ...age.Identity) (r io.Reader, err error) {
	secret.Do(func() { r, err = age.Decrypt(src, ids...) })
	if err != nil {
		return nil, err
	}
	return erasedReader{r}, nil
}

// erasedWriter writes in secret.Do: age makes its buffers as they are needed.
type erasedWriter struct{ w io.WriteCloser }

func (e erasedWriter) Write(p []byte) (n int, err error) {
	secret.Do(func() { n, err = e.w.Write(p) })
	return n, err
}

func (e erasedWriter) Close() (err error) {
	secret.Do(func() { err = e.w.Close() })
	return err
}

// erasedReader reads in secret.Do.
type erasedReader struct{ r io.Reader }

func (e erasedReader) Read(p []byte) (n int, err error) {
	secret.Do(func() { n, err = e.r.Read(p) })
	return n, err
}

// identities reads an age identity file.
func identities(file secret.Secret) (ids []age.Identity, err error) {
	secret.Do(func() { ids, err = age.ParseIdentities(bytes.NewReader(file.Reveal())) })
	if err != nil {
		return nil, errors.New("this is not an age identity file: give the file that age-keygen has made (AGE-SECRET-KEY-...)")
	}
	return ids, nil
}

// discloseRoot opens a recovery envelope.
func discloseRoot(envelope []byte, ids []age.Identity) (secret.Secret, error) {
	if len(envelope) > maxRecovery {
		return secret.Secret{}, corrupt("the recovery envelope has %d bytes", len(envelope))
	}
	r, err := decryptFrom(bytes.NewReader(envelope), ids...)
	if err != nil {
		return secret.Secret{}, errors.New("this identity is not that of one of the vault's recovery recipients: give another one")
	}
	return secret.Make(keySize, func(b []byte) error {
		if _, err := io.ReadFull(r, b); err != nil {
			return corrupt("the recovery envelope is damaged")
		}
		return nil
	})
}

// openRecovered opens a vault file with an identity instead of its seal, to read it. It checks everything but the TPM's
// counter. path is what errors call the file, which stays the caller's if there is one.
func openRecovered(path string, f *os.File, ids []age.Identity) (*session, error) {
	return openWith(path, f, func(h *header) (secret.Secret, error) {
		if len(h.Recovery) == 0 {
			return secret.Secret{}, fmt.Errorf("%s has no recovery recipient: only the board that it was made on opens it", path)
		}
		return discloseRoot(h.Recovery, ids)
	})
}

// openWith opens a vault file with a root secret that find finds.
func openWith(path string, f *os.File, find func(*header) (secret.Secret, error)) (_ *session, err error) {
	s := &session{path: path, file: f}
	defer func() {
		if err != nil {
			s.file = nil // the caller's
			s.release()
		}
	}()
	meta, err := s.readMeta()
	if err != nil {
		return nil, err
	}
	if err := s.readHeader(meta[keyHeader]); err != nil {
		return nil, err
	}
	if s.root, err = find(s.header()); err != nil {
		return nil, err
	}
	if err := s.unwrap(meta[keyHeader], meta[keyLedger]); err != nil {
		return nil, err
	}
	if err := s.verify(); err != nil {
		return nil, err
	}
	s.counter = s.ledger.Epoch
	if err := s.openBolt(); err != nil {
		return nil, err
	}
	return s, s.upgrade()
}

// openRoot opens a vault file with its root secret, which stays the caller's.
func openRoot(path string, f *os.File, root secret.Secret) (*session, error) {
	return openWith(path, f, func(*header) (secret.Secret, error) { return root.Clone(), nil })
}

// tryRestore proves that an identity opens a vault file, and everything in it.
func tryRestore(path string, identity secret.Secret) error {
	return try(path, func(f *os.File) (*session, error) {
		ids, err := identities(identity)
		if err != nil {
			return nil, err
		}
		return openRecovered(path, f, ids)
	})
}

// try proves that a vault file opens.
func try(path string, open func(*os.File) (*session, error)) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s, err := open(f)
	if err != nil {
		f.Close()
		return fmt.Errorf("the trial restore failed, and no vault was made: %w", err)
	}
	return s.release()
}
