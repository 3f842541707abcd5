package vault

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Rotate writes the vault into a fresh file under a new root secret and a new data key, and makes the seals of before
// useless. What was deleted before is gone then: no page of an older file opens with a key that the new one leads to,
// nor with one that the TPM still gives out. (Without a TPM, old pages still open with the passphrase of their time; the
// recovery identities open backups made before, whatever is rotated.) Recipients replace those of before, if there are any.
// Readers go on meanwhile; writers wait.
func (v *Vault) Rotate(by audit.Act, recipients []string) error {
	defer forgetSoon()
	v.backups.Lock()
	defer v.backups.Unlock()
	v.writer.Lock()
	defer v.writer.Unlock()
	s, leave, err := v.enter()
	if err != nil {
		return err
	}
	leave() // only holders of writer end the session
	if err := s.catchUp(); err != nil {
		return err
	}
	if err := s.endTail(); err != nil {
		return err
	}
	d, err := s.redraft(recipients)
	if err != nil {
		return err
	}
	defer d.wipe()
	by.Action, by.Object, by.Outcome = "vault rotate", d.header.ID, done
	return v.replace(s, d, func(tx *Tx) error { return tx.Audit(by) })
}

// redraft prepares the same vault under new keys.
func (s *session) redraft(recipients []string) (_ *draft, err error) {
	h := *s.header()
	d := &draft{sealer: s.sealer, header: &h, root: secret.Random(keySize), dek: secret.Random(keySize), pin: s.pin.Clone(), auth: s.auth.Clone(), epoch: s.counter + 1}
	defer func() {
		if err != nil {
			d.wipe()
		}
	}()
	if len(recipients) > 0 {
		h.Recipients = recipients
	}
	if h.Anchor != nil {
		a := *h.Anchor
		h.Anchor = &a
	}
	if h.Seals, err = s.seals(d.root, d.pin); err != nil {
		return nil, err
	}
	return d, d.finish(h.Key.Version + 1)
}

// seals seals a root secret for the generation that ends and for the one that begins.
func (s *session) seals(root, pin secret.Secret) ([][]byte, error) {
	marks := []Mark{{}}
	if a := s.anchor(); a != nil {
		name := s.header().Anchor.Generation
		n, err := a.Count(name, s.auth)
		if err != nil {
			return nil, err
		}
		marks = []Mark{{name, n}, {name, n + 1}}
	}
	var blobs [][]byte
	for _, m := range marks {
		b, err := s.sealer.Seal(root, pin, m)
		if err != nil {
			return nil, err
		}
		blobs = append(blobs, b)
	}
	return blobs, nil
}

// replace writes d over the vault's file and goes on with it. The caller holds writer. The file is the old one or the new
// one at every moment; the epoch follows as it does after a commit, and then the generation.
func (v *Vault) replace(s *session, d *draft, last func(*Tx) error) error {
	old, err := s.begin(false)
	if err != nil {
		return err
	}
	defer old.rollback()
	err = createFile(v.path, true, func(f *os.File) error {
		return d.write(v.path, f, func(in commit) error {
			if err := copyAll(old, in); err != nil {
				return err
			}
			return in(func(tx *Tx) error {
				tx.ledger.Shred = time.Time{}
				return last(tx)
			})
		})
	})
	if err != nil && !errors.Is(err, errUnsynced) {
		return fmt.Errorf("cannot rewrite the vault, the old file stays: %w", err)
	}
	unsynced := err
	old.rollback()
	next, err := s.succeed(d)
	if err != nil {
		v.enthrone(nil, err)
		return errors.Join(err, s.release())
	}
	if err = next.raise(); err == nil {
		err = next.nextGeneration()
	}
	v.enthrone(next, nil)
	s.sealer = nil // it is the next session's
	v.unanchored.Store(next.behind())
	return errors.Join(unsynced, err, s.release())
}

// succeed opens the file that has replaced this session's.
func (s *session) succeed(d *draft) (_ *session, err error) {
	n := &session{path: s.path, sealer: s.sealer, root: d.root.Clone(), pin: d.pin.Clone(), auth: d.auth.Clone(), counter: s.counter}
	n.head.Store(d.header)
	defer func() {
		if err != nil {
			n.sealer = nil
			n.release()
		}
	}()
	if n.file, err = openFile(s.path); err != nil {
		return nil, err
	}
	meta, err := n.readMeta()
	if err != nil {
		return nil, err
	}
	n.keys = newKeyring(d.header.ID, d.header.Key.Version, d.dek)
	if n.ledger, err = decodeLedger(n.keys, meta[keyLedger]); err != nil {
		return nil, corrupt("%s: its ledger: %w", s.path, err)
	}
	return n, n.openBolt()
}

// fillBatch is how many entries a new file takes in one transaction.
const fillBatch = 10_000

// copyAll copies everything that old sees, re-encoded.
func copyAll(old *Tx, in commit) error {
	for _, bucket := range buckets {
		var after []byte
		for more := bucket != bucketMeta; more; {
			err := in(func(tx *Tx) error {
				n := 0
				more = false
				return old.scan(bucket, nil, after, func(p pair) (bool, error) {
					after = p.key
					n++
					more = n == fillBatch
					return !more, tx.adopt(old, bucket, p)
				})
			})
			if err != nil {
				return err
			}
		}
	}
	return in(func(tx *Tx) error {
		was := old.ledger.clone()
		tx.ledger.Job, tx.ledger.Change, tx.ledger.Backup = was.Job, was.Change, was.Backup
		tx.ledger.Approval, tx.ledger.Handover, tx.ledger.Notice = was.Approval, was.Handover, was.Notice
		tx.ledger.Certificate = was.Certificate
		tx.ledger.Trail, tx.ledger.Shred, tx.ledger.Destroyed, tx.ledger.Counts = was.Trail, was.Shred, was.Destroyed, was.Counts
		return nil
	})
}

// adopt stores an entry of another file in this one.
func (tx *Tx) adopt(old *Tx, bucket string, p pair) error {
	if err := tx.with(bucket, func(e *entries) error { e.FillPercent = 0.9; return nil }); err != nil {
		return err
	}
	switch {
	case bucket == bucketIndex:
		return tx.put(bucket, p.key, []byte{})
	case secretBuckets[bucket]:
		s, err := old.coder.decodeSecret(bucket, p.key, p.val)
		if err != nil {
			return old.refuse(bucket, p.key, err)
		}
		defer s.Wipe()
		return tx.put(bucket, p.key, tx.coder.encodeSecret(bucket, p.key, tx.version(), s))
	}
	body, err := old.coder.decodeRecord(bucket, p.key, p.val)
	if err != nil {
		return old.refuse(bucket, p.key, err)
	}
	return tx.put(bucket, p.key, tx.coder.encodeRecord(bucket, p.key, tx.version(), body))
}

// ChangePIN replaces the PIN: old must be right, and zero if there is none; next may be zero, for none. The seal under the old
// one dies with the generation.
func (v *Vault) ChangePIN(old, next secret.Secret, by audit.Act) error {
	defer forgetSoon()
	v.backups.Lock()
	defer v.backups.Unlock()
	v.writer.Lock()
	defer v.writer.Unlock()
	s, leave, err := v.enter()
	if err != nil {
		return err
	}
	leave()
	if err := s.proves(old); err != nil {
		return err
	}
	if !s.header().PIN && !next.IsZero() || s.header().PIN && next.IsZero() {
		return s.changeMode(v, next, by)
	}
	key, err := s.sealer.Key(next, nil)
	if err != nil {
		return err
	}
	defer key.Wipe()
	seals, err := s.seals(s.root, key)
	if err != nil {
		return err
	}
	by.Action, by.Object, by.Outcome = "vault change-pin", s.header().ID, done
	h := *s.header()
	h.Seals = slices.Clone(seals)
	err = s.update(func(tx *Tx) error { return errors.Join(tx.setHeader(&h), tx.Audit(by)) })
	v.unanchored.Store(s.behind())
	if err != nil && !errors.Is(err, ErrUnanchored) {
		return err
	}
	s.head.Store(&h)
	s.pin.Wipe()
	s.pin = key.Clone()
	if err != nil {
		return err
	}
	return s.nextGeneration()
}

// proves checks a PIN against the seal. A wrong one is counted by the TPM.
func (s *session) proves(pin secret.Secret) error {
	if err := s.askFor(pin); err != nil {
		return err
	}
	key, err := s.sealer.Key(pin, s.header().Seals[0])
	if err != nil {
		return err
	}
	defer key.Wipe()
	root, err := s.sealer.Unseal(s.header().Seals[len(s.header().Seals)-1], key)
	root.Wipe()
	return err
}

// changeMode gives a vault its first PIN, or takes its last: the mode is bound into every key, so that the file is rewritten.
func (s *session) changeMode(v *Vault, next secret.Secret, by audit.Act) error {
	if err := s.endTail(); err != nil {
		return err
	}
	key, err := s.sealer.Key(next, nil)
	if err != nil {
		return err
	}
	was := s.pin
	s.pin = key
	d, err := s.redraft(nil)
	s.pin = was
	if err != nil {
		key.Wipe()
		return err
	}
	defer d.wipe()
	key.Wipe()
	d.header.PIN = !next.IsZero()
	if err := d.finish(d.header.Key.Version); err != nil {
		return err
	}
	by.Action, by.Object, by.Outcome = "vault change-pin", d.header.ID, done
	return v.replace(s, d, func(tx *Tx) error { return tx.Audit(by) })
}
