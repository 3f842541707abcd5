package vault

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Setup is what a new vault is made with.
type Setup struct {
	// PIN locks the vault (a passphrase, where there is no TPM). Without one it opens for whoever has file and TPM.
	PIN secret.Secret
	// Recipients (age1...) can restore the vault and its backups with their identities, which are kept offline.
	Recipients []string
	// Identity is that of one of the recipients: its file's content. Before the vault counts as made, it is restored with
	// it, on trial.
	Identity secret.Secret
	// By is who makes it.
	By audit.Officer
}

// authBytes in base64url are the 32 characters without a zero byte that a TPM's authorization can have.
const authBytes = 24

// Init makes the vault and leaves it locked. It refuses if anything is at its path. The file gets its name last, after a
// trial restore, so that a crash leaves no half vault.
func (v *Vault) Init(setup Setup) (err error) {
	defer forgetSoon()
	v.writer.Lock()
	defer v.writer.Unlock()
	if v.closed {
		return ErrClosed
	}
	if err := absent(v.path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(v.path), 0o700); err != nil {
		return createError(v.path, err)
	}
	s, err := v.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := parseRecipients(setup.Recipients); err != nil {
		return err
	}
	d, err := newDraft(s, setup.PIN, setup.Recipients)
	if err != nil {
		return err
	}
	defer d.wipe()
	err = createFile(v.path, false, func(f *os.File) error {
		err := d.write(v.path, f, func(in commit) error {
			return in(func(tx *Tx) error {
				if err := tx.newSystemSecrets(d.header); err != nil {
					return err
				}
				return tx.Audit(audit.Act{Officer: setup.By, Action: "vault init", Object: d.header.ID, Outcome: done})
			})
		})
		if err != nil {
			return err
		}
		return tryRestore(f.Name(), setup.Identity)
	})
	if err != nil && !errors.Is(err, errUnsynced) {
		return errors.Join(err, d.discard())
	}
	v.enthrone(nil, nil)
	return err
}

// draft is a vault to be written: its header, and the secrets behind it.
type draft struct {
	sealer Sealer
	header *header
	root   secret.Secret
	dek    secret.Secret
	pin    secret.Secret
	auth   secret.Secret
	epoch  uint64
}

func (d *draft) wipe() {
	for _, s := range []secret.Secret{d.root, d.dek, d.pin, d.auth} {
		s.Wipe()
	}
}

// newDraft prepares a vault with an ID and, where the sealer has them, counters of its own.
func newDraft(s Sealer, pin secret.Secret, recipients []string) (*draft, error) {
	return draftOf(rand.Text(), s, pin, recipients)
}

// draftOf is newDraft with an ID that is given.
func draftOf(id string, s Sealer, pin secret.Secret, recipients []string) (_ *draft, err error) {
	d := &draft{sealer: s, epoch: 1, root: secret.Random(keySize), dek: secret.Random(keySize), header: &header{
		ID: id, Trail: id, Sealer: s.Kind(), Level: s.Level(), PIN: !pin.IsZero(), Created: time.Now().UTC(), Recipients: recipients,
	}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.discard())
			d.wipe()
		}
	}()
	if d.pin, err = s.Key(pin, nil); err != nil {
		return nil, err
	}
	var mark Mark
	if a, ok := s.(Anchor); ok {
		if mark, err = d.newCounters(a); err != nil {
			return nil, err
		}
	}
	blob, err := s.Seal(d.root, d.pin, mark)
	if err != nil {
		return nil, err
	}
	d.header.Seals = [][]byte{blob}
	return d, d.finish(1)
}

func (d *draft) newCounters(a Anchor) (mark Mark, err error) {
	r := secret.Random(authBytes)
	defer r.Wipe()
	d.auth, _ = secret.Make(base64.RawURLEncoding.EncodedLen(authBytes), func(b []byte) error {
		base64.RawURLEncoding.Encode(b, r.Reveal())
		return nil
	})
	d.header.Anchor = &anchorNames{}
	if d.header.Anchor.Epoch, d.epoch, err = a.NewCounter(d.auth); err != nil {
		return mark, err
	}
	d.header.Anchor.First = d.epoch
	mark.Counter, mark.Value, err = a.NewCounter(d.auth)
	d.header.Anchor.Generation = mark.Counter
	return mark, err
}

// finish puts the secrets into the header.
func (d *draft) finish(version uint32) (err error) {
	d.header.wrap(d.root, version, d.dek, d.auth)
	if len(d.header.Recipients) > 0 { // a migrated vault has none yet
		d.header.Recovery, err = encloseRoot(d.root, d.header.Recipients)
	}
	return err
}

// discard removes the counters of a vault that was not made.
func (d *draft) discard() (err error) {
	a, ok := d.sealer.(Anchor)
	if !ok || d.header.Anchor == nil {
		return nil
	}
	for _, name := range [][]byte{d.header.Anchor.Epoch, d.header.Anchor.Generation} {
		if name != nil {
			err = errors.Join(err, a.DropCounter(name))
		}
	}
	return err
}

// commit runs fn in a transaction on a file that is being written.
type commit func(fn func(*Tx) error) error

// write lays the vault into a new file, has fill fill it, and closes it.
func (d *draft) write(path string, f *os.File, fill func(commit) error) (err error) {
	s := &session{path: path, file: f, root: d.root.Clone(), ledger: &ledger{Counts: map[string]int{}}}
	s.head.Store(d.header)
	s.keys = newKeyring(d.header.ID, d.header.Key.Version, d.dek)
	defer func() {
		if releaseErr := s.release(); err == nil {
			err = releaseErr
		}
	}()
	if err := s.openBolt(); err != nil {
		return writeError(path, err)
	}
	s.db.NoSync = true // until everything is there
	in := func(fn func(*Tx) error) error { return s.fill(fn, d.epoch) }
	if err := in((*Tx).createBuckets); err != nil {
		return err
	}
	if err := fill(in); err != nil {
		return err
	}
	s.db.NoSync = false
	if err := in(func(tx *Tx) error { return tx.setHeader(d.header) }); err != nil {
		return err
	}
	if err := s.guard(s.db.Sync); err != nil {
		return writeError(path, err)
	}
	return nil
}

// fill is a commit in write.
func (s *session) fill(fn func(*Tx) error, epoch uint64) error {
	tx, err := s.begin(true)
	if err != nil {
		return err
	}
	defer tx.rollback()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.close(epoch, epoch); err != nil {
		return err
	}
	s.ledger = tx.ledger
	return tx.commit()
}

func (tx *Tx) createBuckets() error {
	return tx.s.guard(func() error {
		for _, name := range buckets {
			if _, err := tx.bolt.CreateBucket([]byte(name)); err != nil {
				return fmt.Errorf("cannot write the vault %s: %w", tx.s.path, err)
			}
		}
		return nil
	})
}
