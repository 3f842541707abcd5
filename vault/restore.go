package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Restore makes a vault of a backup, or of a vault's bare file that somebody has saved, where the board that it was made
// on is gone. It never writes over anything. The new vault has an ID, keys and counters of its own, setup's PIN, and the
// backup's recipients unless setup has others; setup.Identity is for those others. It continues the audit trail. Every token is marked
// stale, and every change that waits is parked, but for cut-offs. Orders that waited for a second officer are dropped.
//
// age does not tell who has made a backup: whoever knows a recipient can make one. The audit key is that of the lost
// vault, or this is not its backup.
func (v *Vault) Restore(backup string, identity secret.Secret, setup Setup) error {
	defer forgetSoon()
	v.writer.Lock()
	defer v.writer.Unlock()
	if err := v.vacant(); err != nil {
		return err
	}
	old, err := v.openBackup(backup, identity)
	if err != nil {
		return fmt.Errorf("cannot restore %s: %w", backup, otherCure(err))
	}
	defer old.release()
	if setup.Identity.IsZero() {
		setup.Identity = identity
	}
	s, err := v.open()
	if err != nil {
		return err
	}
	defer s.Close()
	d, err := newDraft(s, setup.PIN, inherited(setup, old))
	if err != nil {
		return err
	}
	defer d.wipe()
	from := old.ledger.Changed.Format(time.RFC3339)
	act := audit.Act{Officer: setup.By, Action: "vault restore", Object: d.header.ID, Outcome: done,
		Reason: fmt.Sprintf("from vault %s, epoch %d, %s, in %s", old.header().ID, old.ledger.Epoch, from, filepath.Base(backup))}
	return v.inherit(d, old, setup.Identity, func(in commit) error {
		if err := markStale(in); err != nil {
			return err
		}
		if err := parkAll(in, fmt.Sprintf("restored from a backup of %s: look whether it is still wanted, then retry it", from)); err != nil {
			return err
		}
		if err := errors.Join(dropApprovals(in), dropNotices(in), dropPINs(in)); err != nil {
			return err
		}
		return in(func(tx *Tx) error { return tx.Audit(act) })
	})
}

// vacant reports an error unless a vault can be made at the path. The caller holds writer.
func (v *Vault) vacant() error {
	switch {
	case v.closed:
		return ErrClosed
	case v.session != nil:
		return fmt.Errorf("cannot create a vault: %s is open", v.path)
	}
	if err := absent(v.path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(v.path), 0o700); err != nil {
		return createError(v.path, err)
	}
	return nil
}

func inherited(setup Setup, old *session) []string {
	if len(setup.Recipients) > 0 {
		return setup.Recipients
	}
	return old.header().Recipients
}

// otherCure has the cure be another backup where it says to restore one.
func otherCure(err error) error {
	var state *StateError
	if errors.As(err, &state) && state.Cure == cureCorrupt {
		state.Cure = cureBackup
	}
	return err
}

// openBackup opens an age file or a bare vault file, told by what it begins with, through an unnamed copy.
func (v *Vault) openBackup(path string, identity secret.Secret) (*session, error) {
	ids, err := identities(identity)
	if err != nil {
		return nil, err
	}
	src, size, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	var plain io.Reader = src
	switch {
	case begins(src, ageIntro):
		if plain, err = decryptFrom(src, ids...); err != nil {
			return nil, notDecrypted(err)
		}
	case !beginsAsVault(src):
		return nil, badBackup("it is neither a backup nor a vault")
	}
	f, err := receive(&damageReader{r: plain}, size, v.path)
	if err != nil {
		return nil, err
	}
	old, err := openRecovered(path, f, ids)
	if err != nil {
		f.Close()
	}
	return old, err
}

// notDecrypted tells a key that does not fit from damage.
func notDecrypted(err error) error {
	var other *age.NoIdentityMatchError
	if errors.As(err, &other) {
		return errors.New("this identity does not open it: give that of one of its recipients")
	}
	return badBackup("it is damaged: %w", err)
}

// damageReader names what is wrong with what it reads.
type damageReader struct{ r io.Reader }

func (d *damageReader) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF {
		err = badBackup("it is damaged or cut short: %w", err)
	}
	return n, err
}

// beginsAsVault looks for bbolt's first meta page.
func beginsAsVault(f io.ReaderAt) bool {
	b := make([]byte, pageHeaderSize+4)
	_, err := f.ReadAt(b, 0)
	return err == nil && binary.NativeEndian.Uint32(b[pageHeaderSize:]) == boltMagic
}

// inherit makes the vault of a draft and of what old holds, and leaves it locked. The file gets its name last, after a trial
// restore if there is an identity.
func (v *Vault) inherit(d *draft, old *session, trial secret.Secret, last func(commit) error) error {
	d.header.Trail, d.header.AuditKey = old.header().Trail, old.header().AuditKey
	if d.header.Anchor == nil {
		d.epoch = old.ledger.Epoch + 1
	}
	err := createFile(v.path, false, func(f *os.File) error {
		err := d.write(v.path, f, func(in commit) error {
			tx, err := old.beginView()
			if err != nil {
				return err
			}
			defer tx.rollback()
			if err := copyAll(tx, in); err != nil {
				return err
			}
			if err := in(func(tx *Tx) error { tx.ledger.Shred = time.Time{}; return nil }); err != nil {
				return err
			}
			return last(in)
		})
		if err != nil {
			return err
		}
		if trial.IsZero() {
			return try(f.Name(), func(f *os.File) (*session, error) { return openRoot(f.Name(), f, d.root) })
		}
		return tryRestore(f.Name(), trial)
	})
	if err != nil && !errors.Is(err, errUnsynced) {
		return errors.Join(err, d.discard())
	}
	v.enthrone(nil, nil)
	return err
}

// inBatches calls fn for each entry of a bucket of a file that is being written.
func inBatches(in commit, bucket string, fn func(*Tx, pair) error) error {
	var after []byte
	for more := true; more; {
		err := in(func(tx *Tx) error {
			n := 0
			more = false
			return tx.scan(bucket, nil, after, func(p pair) (bool, error) {
				after = p.key
				n++
				more = n == fillBatch
				return !more, fn(tx, p)
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// markStale marks every token to be resynchronized before use.
func markStale(in commit) error {
	return inBatches(in, bucketTokens, func(tx *Tx, p pair) error {
		var t Token
		if err := tx.open(bucketTokens, p.key, p.val, &t); err != nil || t.Stale || t.ID.Central() == "" { // those have no counter
			return err
		}
		was := t
		t.Stale = true
		return errors.Join(tx.reindex(&was, &t), tx.store(bucketTokens, p.key, t))
	})
}

// parkAll has every change wait for an officer, but for cut-offs: ending an access twice does no harm.
func parkAll(in commit, why string) error {
	return inBatches(in, bucketOutbox, func(tx *Tx, p pair) error {
		var c Change
		if err := tx.open(bucketOutbox, p.key, p.val, &c); err != nil || c.Kind.CutOff() {
			return err
		}
		problem := why
		if c.Problem != "" {
			problem += "; before: " + c.Problem
		}
		c.Parked, c.ParkedBy, c.Reason, c.Problem = true, audit.Officer{}, "", problem
		return tx.PutChange(c)
	})
}
