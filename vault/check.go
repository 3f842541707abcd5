package vault

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"tokendesk/device"
	"tokendesk/vault/audit"
)

// Check verifies the whole vault, as Unlock does, and beyond that its meaning: that every seed, access code, job and
// change belongs to a token that is there (a cut-off, or was), that a token's own seed and those of changes that carry one are there, that the
// index says of every token what it is, and that the audit trail is one chain. It holds off writers meanwhile.
func (v *Vault) Check() error {
	v.writer.Lock()
	defer v.writer.Unlock()
	s, leave, err := v.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := s.verify(); err != nil {
		return err
	}
	meta, err := s.readMeta()
	if err != nil {
		return err
	}
	if err := authenticate(meta[keyHeader], s.root); err != nil {
		return err
	}
	tx, err := s.begin(false)
	if err != nil {
		return err
	}
	defer tx.rollback()
	if err := tx.checkContents(); err != nil {
		return corruptUnlessNamed(err)
	}
	return nil
}

// checkContents reads every record and secret, and settles every token that any of them names. It keeps no list of them.
func (tx *Tx) checkContents() error {
	c := &contents{Tx: tx, counts: map[string]int{}}
	for _, check := range []func() error{c.checkTokens, c.checkSecrets, c.checkPIV, c.checkPasswords, c.checkJobs, c.checkChanges, c.checkTombstones, c.checkApprovals,
		c.checkHandovers, c.checkLeavers, c.checkNotices, c.checkAttempts, c.checkCertificates, c.checkTrail, c.checkIndex} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// contents is what a check has seen.
type contents struct {
	*Tx
	counts  map[string]int
	indexed int // entries of the index
}

// checkTrail checks that the audit trail is one chain that ends where the ledger says.
func (c *contents) checkTrail() error {
	at := audit.Genesis(c.s.header().Trail, c.s.header().AuditKey)
	err := c.Acts(1, func(e audit.Entry) (bool, error) {
		err := e.Follows(at)
		at = e.Point()
		return err == nil, errors.Join(err, c.expect((*act)(&e)))
	})
	if err == nil && at != c.ledger.Trail && c.ledger.Trail.Seq != 0 {
		err = fmt.Errorf("the audit trail ends at entry %d, not at %d", at.Seq, c.ledger.Trail.Seq)
	}
	return err
}

func (c *contents) checkTokens() error {
	return c.scan(bucketTokens, nil, nil, func(p pair) (bool, error) {
		var t Token
		if err := c.open(bucketTokens, p.key, p.val, &t); err != nil {
			return false, err
		}
		if string(t.ID) != string(p.key) {
			return false, c.refuse(bucketTokens, p.key, fmt.Errorf("it says it is %q", t.ID))
		}
		return true, errors.Join(c.expect(&t), c.settleToken(t.ID, &t))
	})
}

func (c *contents) checkSecrets() error {
	for _, bucket := range []string{bucketSeeds, bucketCodes} {
		var last device.TokenID
		err := c.scan(bucket, nil, nil, func(p pair) (_ bool, err error) {
			if err := c.coder.checkSecret(bucket, p.key, p.val); err != nil {
				return false, c.refuse(bucket, p.key, err)
			}
			id := device.TokenID(p.key)
			if bucket == bucketSeeds {
				if id, _, err = parseSeedKey(p.key); err != nil {
					return false, c.refuse(bucket, p.key, err)
				}
			}
			if id == last {
				return true, nil
			}
			last = id
			return true, c.settleToken(id, nil)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkJobs checks that jobs stand under their own numbers, that those were given out, and that no token is in two.
func (c *contents) checkJobs() error {
	return c.scan(bucketJobs, nil, nil, func(p pair) (bool, error) {
		var j Job
		if err := c.open(bucketJobs, p.key, p.val, &j); err != nil {
			return false, err
		}
		if err := errors.Join(c.given(bucketJobs, p.key, j.ID, c.ledger.Job), c.expect(&j)); err != nil {
			return false, err
		}
		if other, _, err := c.JobFor(j.Token); err != nil {
			return false, err
		} else if other.ID != j.ID {
			return false, fmt.Errorf("token %s is in two jobs, %d and %d", j.Token, other.ID, j.ID)
		}
		return true, c.settleToken(j.Token, nil)
	})
}

// checkChanges checks that changes stand under their own numbers, and that those were given out.
func (c *contents) checkChanges() error {
	return c.scan(bucketOutbox, nil, nil, func(p pair) (bool, error) {
		var x Change
		if err := c.open(bucketOutbox, p.key, p.val, &x); err != nil {
			return false, err
		}
		return true, errors.Join(c.given(bucketOutbox, p.key, x.Seq, c.ledger.Change), c.expect(&x), c.settleChange(x))
	})
}

// given checks that a record stands under its own number, and that this was given out: last is the last one that was.
func (c *contents) given(bucket string, key []byte, number, last uint64) error {
	if string(numberKey(number)) != string(key) || number == 0 || number > last {
		return c.refuse(bucket, key, fmt.Errorf("its number %d was never given out", number))
	}
	return nil
}

// expect checks that the index has all entries of something, and counts them.
func (c *contents) expect(x indexed) error {
	tallyIn(c.counts, x, 1)
	for _, k := range x.indexKeys() {
		c.indexed++
		if val, err := c.get(bucketIndex, k); err != nil {
			return err
		} else if val == nil {
			return fmt.Errorf("the entry %q in %s is missing", k, bucketIndex)
		}
	}
	return nil
}

// checkIndex checks that the index has no other entries than those that were expected, and that the counts are right.
func (c *contents) checkIndex() error {
	there := 0
	err := c.with(bucketIndex, func(e *entries) error {
		return e.ForEach(func(_, _ []byte) error { there++; return nil })
	})
	if err == nil && there != c.indexed {
		err = fmt.Errorf("the index has %d entries, and should have %d", there, c.indexed)
	}
	if err == nil && !maps.Equal(c.counts, c.ledger.Counts) {
		err = fmt.Errorf("there are %v, and the ledger counts %v", c.counts, c.ledger.Counts)
	}
	return err
}

// settle checks that what the transaction leaves behind refers to what exists, for the tokens it has touched.
func (tx *Tx) settle() error {
	for _, id := range slices.Sorted(maps.Keys(tx.touched)) {
		if err := tx.settleToken(id, tx.touched[id]); err != nil {
			return err
		}
		changes, err := tx.ChangesOf(id)
		if err != nil {
			return err
		}
		for _, c := range changes {
			if err := tx.settleChange(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// settleToken is settle for a token and its secrets; t is nil if it is to be looked up.
func (tx *Tx) settleToken(id device.TokenID, t *Token) error {
	if t == nil {
		found, err := tx.Token(id)
		if errors.Is(err, ErrNotFound) {
			return tx.unreferenced(id)
		}
		if err != nil {
			return err
		}
		t = &found
	}
	if t.Generation == 0 {
		return nil
	}
	if id.PIV() {
		return tx.needPIV(id, t.Generation)
	}
	return tx.needSeed(id, t.Generation, "the token is at this generation")
}

func (tx *Tx) settleChange(c Change) error {
	val, err := tx.get(bucketTokens, []byte(c.Token))
	if err == nil && val == nil && c.Kind.CutOff() {
		val, err = tx.get(bucketTombstones, []byte(c.Token))
	}
	switch {
	case err != nil:
		return err
	case val == nil:
		return fmt.Errorf("change %d (%s) is of token %s, which does not exist", c.Seq, c.Kind, c.Token)
	case c.Kind == Put || c.Kind == Enable:
		return tx.needSeed(c.Token, c.Generation, fmt.Sprintf("change %d (%s) carries it", c.Seq, c.Kind))
	}
	return nil
}

// unreferenced checks that a token which is not there has left no secrets and no job.
func (tx *Tx) unreferenced(id device.TokenID) error {
	gens, err := tx.Generations(id)
	if err != nil {
		return err
	}
	if len(gens) > 0 {
		return fmt.Errorf("seed %d is of token %s, which does not exist", gens[0], id)
	}
	code, err := tx.get(bucketCodes, []byte(id))
	if err != nil {
		return err
	}
	if _, buried, err := tx.Tombstone(id); err != nil {
		return err
	} else if code != nil && !buried {
		return fmt.Errorf("an access code is of token %s, which does not exist", id)
	} else if err := tx.unreferencedPIV(id, buried); err != nil {
		return err
	}
	j, ok, err := tx.JobFor(id)
	if err == nil && ok {
		err = fmt.Errorf("job %d (%s) is for token %s, which does not exist", j.ID, j.Kind, id)
	}
	return err
}

func (tx *Tx) needSeed(id device.TokenID, generation int, why string) error {
	val, err := tx.get(bucketSeeds, seedKey(id, generation))
	if err == nil && val == nil {
		err = fmt.Errorf("seed %d of %s is missing: %s", generation, id, why)
	}
	return err
}
