package vault

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"tokendesk/device"
)

// Check verifies the whole vault: the file's structure, that every record authenticates and every secret opens, that
// every seed, access code, job and change belongs to a token that is there, that a token's own seed and those of
// changes that carry one are there, and that nothing else is in the file. It holds off writers meanwhile.
func (v *Vault) Check() error {
	v.open.RLock()
	defer v.open.RUnlock()
	v.writer.Lock()
	defer v.writer.Unlock()
	tx, err := v.begin(false)
	if err != nil {
		return err
	}
	defer tx.rollback()
	if err := v.checkFile(); err != nil {
		return err
	}
	encoded, err := tx.get(bucketMeta, []byte(keyHeader))
	if err != nil {
		return err
	}
	if _, err := decodeHeader(encoded); err != nil {
		return err
	}
	if err := authenticate(encoded, v.keys); err != nil {
		return err
	}
	return corruptOrNil(errors.Join(tx.checkNames(), tx.checkContents()))
}

func corruptOrNil(err error) error {
	if err == nil {
		return nil
	}
	return corruptUnlessNamed(err)
}

// checkNames looks for buckets and entries that the vault does not write.
func (tx *Tx) checkNames() error {
	known := map[string]bool{}
	for _, name := range buckets {
		known[name] = true
	}
	err := tx.v.guard(func() error {
		return tx.bolt.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			if !known[string(name)] {
				return fmt.Errorf("there is an unknown bucket %q", name)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return tx.scan(bucketMeta, nil, nil, func(p pair) (bool, error) {
		switch string(p.key) {
		case keyHeader:
			return true, nil
		case keySequence:
			var s sequence
			return true, tx.open(bucketMeta, p.key, p.val, &s)
		}
		return false, fmt.Errorf("there is an unknown entry %q in %s", p.key, bucketMeta)
	})
}

// checkContents reads every record and secret, and settles every token that any of them names.
func (tx *Tx) checkContents() error {
	if err := tx.checkTokens(); err != nil {
		return err
	}
	if err := tx.checkSecrets(); err != nil {
		return err
	}
	if err := tx.checkNumbered(); err != nil {
		return err
	}
	return tx.settle()
}

func (tx *Tx) checkTokens() error {
	return tx.scan(bucketTokens, nil, nil, func(p pair) (bool, error) {
		var t Token
		if err := tx.open(bucketTokens, p.key, p.val, &t); err != nil {
			return false, err
		}
		if string(t.ID) != string(p.key) {
			return false, tx.refuse(bucketTokens, p.key, fmt.Errorf("it says it is %q", t.ID))
		}
		tx.touch(t.ID)
		return true, nil
	})
}

func (tx *Tx) checkSecrets() error {
	for _, bucket := range []string{bucketSeeds, bucketCodes} {
		err := tx.scan(bucket, nil, nil, func(p pair) (bool, error) {
			s, err := tx.v.keys.decodeSecret(bucket, p.key, p.val)
			if err != nil {
				return false, tx.refuse(bucket, p.key, err)
			}
			s.Wipe()
			id := device.TokenID(p.key)
			if bucket == bucketSeeds {
				if id, _, err = parseSeedKey(p.key); err != nil {
					return false, tx.refuse(bucket, p.key, err)
				}
			}
			tx.touch(id)
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkNumbered checks that jobs and changes stand under their own numbers, and that those were given out.
func (tx *Tx) checkNumbered() error {
	var last sequence
	if _, err := tx.load(bucketMeta, []byte(keySequence), &last); err != nil {
		return err
	}
	busy := map[device.TokenID]uint64{}
	err := tx.scan(bucketJobs, nil, nil, func(p pair) (bool, error) {
		var j Job
		if err := tx.open(bucketJobs, p.key, p.val, &j); err != nil {
			return false, err
		}
		if string(numberKey(j.ID)) != string(p.key) || j.ID == 0 || j.ID > last.Job {
			return false, tx.refuse(bucketJobs, p.key, fmt.Errorf("its number %d was never given out", j.ID))
		}
		if other, ok := busy[j.Token]; ok {
			return false, fmt.Errorf("token %s is in two jobs, %d and %d", j.Token, other, j.ID)
		}
		busy[j.Token] = j.ID
		tx.touch(j.Token)
		return true, nil
	})
	if err != nil {
		return err
	}
	return tx.scan(bucketOutbox, nil, nil, func(p pair) (bool, error) {
		var c Change
		if err := tx.open(bucketOutbox, p.key, p.val, &c); err != nil {
			return false, err
		}
		if string(numberKey(c.Seq)) != string(p.key) || c.Seq == 0 || c.Seq > last.Change {
			return false, tx.refuse(bucketOutbox, p.key, fmt.Errorf("its number %d was never given out", c.Seq))
		}
		tx.touch(c.Token)
		return true, nil
	})
}

// settle checks that what the transaction leaves behind refers to what exists, for the tokens it has touched.
func (tx *Tx) settle() error {
	if len(tx.touched) == 0 {
		return nil
	}
	jobs, err := tx.Jobs()
	if err != nil {
		return err
	}
	changes, err := tx.Changes()
	if err != nil {
		return err
	}
	for id := range tx.touched {
		t, err := tx.Token(id)
		gone := errors.Is(err, ErrNotFound)
		if err != nil && !gone {
			return err
		}
		if gone {
			if err := tx.unreferenced(id); err != nil {
				return err
			}
		} else if t.Generation > 0 {
			if err := tx.needSeed(id, t.Generation, "the token is at this generation"); err != nil {
				return err
			}
		}
		for _, j := range jobs {
			if gone && j.Token == id {
				return fmt.Errorf("job %d (%s) is for token %s, which does not exist", j.ID, j.Kind, id)
			}
		}
		for _, c := range changes {
			if c.Token != id {
				continue
			}
			if gone {
				return fmt.Errorf("change %d (%s) is of token %s, which does not exist", c.Seq, c.Kind, id)
			}
			if c.Kind == Put || c.Kind == Enable {
				if err := tx.needSeed(id, c.Generation, fmt.Sprintf("change %d (%s) carries it", c.Seq, c.Kind)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// unreferenced checks that a token which is not there has left no secrets.
func (tx *Tx) unreferenced(id device.TokenID) error {
	gens, err := tx.Generations(id)
	if err != nil {
		return err
	}
	if len(gens) > 0 {
		return fmt.Errorf("seed %d is of token %s, which does not exist", gens[0], id)
	}
	code, err := tx.get(bucketCodes, []byte(id))
	if err == nil && code != nil {
		err = fmt.Errorf("an access code is of token %s, which does not exist", id)
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
