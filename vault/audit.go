package vault

import (
	"errors"
	"fmt"
	"io"
	"time"

	"tokendesk/device"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// done is the outcome of an act that succeeded.
const done = "done"

// The vault's own secrets, in bucketSystem.
const (
	keyAudit    = "audit"    // Ed25519 seed that signs the audit trail's heads
	keySentinel = "sentinel" // keys the fingerprints of seeds
)

// newSystemSecrets makes the secrets that stay for the life of a vault and of what is restored from it.
func (tx *Tx) newSystemSecrets(h *header) error {
	seed, sentinel := secret.Random(keySize), secret.Random(keySize)
	defer seed.Wipe()
	defer sentinel.Wipe()
	key, err := audit.KeyOf(seed)
	if err != nil {
		return err
	}
	h.AuditKey = key
	return errors.Join(tx.seal(bucketSystem, []byte(keyAudit), seed), tx.seal(bucketSystem, []byte(keySentinel), sentinel))
}

// Audit adds an act to the audit trail, in the transaction of what it tells of. Epoch, counter and time are set with the
// commit.
func (tx *Tx) Audit(a audit.Act) error {
	if tx.summer == nil {
		return fmt.Errorf("cannot record an act: %w", errReadOnly)
	}
	tx.weigh(light)
	tx.acts = append(tx.acts, a)
	return nil
}

// Done is the act that an action on a token, for or against a user, has succeeded.
func Done(by audit.Officer, action string, id device.TokenID, user string) audit.Act {
	a := audit.Act{Officer: by, Action: action, Object: string(id), Outcome: done}
	if user != "" {
		a.Reason = "user " + user
	}
	return a
}

// writeActs continues the chain with the transaction's acts.
func (tx *Tx) writeActs(epoch, counter uint64) error {
	if len(tx.acts) == 0 {
		return nil
	}
	if tx.ledger.Trail.Seq == 0 {
		tx.ledger.Trail = audit.Genesis(tx.s.header().Trail, tx.s.header().AuditKey)
	}
	at := tx.ledger.Trail
	next := func(i int) (audit.Entry, uint64) {
		a := tx.acts[i]
		a.Time, a.Epoch, a.Counter = time.Now().UTC(), epoch, counter
		e := at.Next(a)
		at = e.Point()
		return e, e.Seq
	}
	return storeMany(tx, bucketAudit, len(tx.acts), next, func(e *audit.Entry) error {
		tx.ledger.Trail = e.Point()
		return tx.reindex(nil, (*act)(e))
	})
}

// Acts calls fn for the audit trail's entries from a number on (1 is the first), until it returns false.
func (tx *Tx) Acts(from uint64, fn func(audit.Entry) (bool, error)) error {
	var after []byte
	if from > 1 {
		after = numberKey(from - 1)
	}
	return tx.scan(bucketAudit, nil, after, func(p pair) (bool, error) {
		var e audit.Entry
		if err := tx.open(bucketAudit, p.key, p.val, &e); err != nil {
			return false, err
		}
		return fn(e)
	})
}

// Trail says where the audit trail ends.
func (tx *Tx) Trail() audit.Point { return tx.ledger.Trail }

// AuditKey is what the audit trail is verified with.
func (tx *Tx) AuditKey() audit.Key { return tx.s.header().AuditKey }

// Head signs the audit trail up to its last entry.
func (tx *Tx) Head() (audit.Head, error) {
	h := audit.Head{Vault: tx.s.header().Trail, Point: tx.ledger.Trail, Epoch: tx.ledger.Epoch, Counter: tx.counter, Time: time.Now().UTC()}
	err := tx.withAuditSeed(func(seed secret.Secret) (err error) { h, err = h.Sign(seed); return err })
	return h, err
}

// ExportAudit writes the audit trail from an entry on, to be verified with the public key alone.
func (tx *Tx) ExportAudit(w io.Writer, from uint64) error {
	last := tx.ledger.Trail.Seq
	if from < 1 || from > last {
		return fmt.Errorf("cannot export the audit trail from entry %d: it has the entries 1 to %d", from, last)
	}
	before := audit.Genesis(tx.s.header().Trail, tx.s.header().AuditKey)
	if from > 1 {
		err := tx.Acts(from-1, func(e audit.Entry) (bool, error) {
			before = e.Point()
			return false, nil
		})
		if err != nil {
			return err
		}
	}
	out, err := audit.NewWriter(w, audit.Header{Vault: tx.s.header().Trail, Key: tx.s.header().AuditKey, From: from, To: last, Anchor: before.Hash})
	if err != nil {
		return err
	}
	if err := tx.Acts(from, func(e audit.Entry) (bool, error) { return true, out.Entry(e) }); err != nil {
		return err
	}
	head, err := tx.Head()
	if err != nil {
		return err
	}
	return out.Close(head)
}
