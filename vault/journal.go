package vault

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Jobs returns the journal, oldest job first.
func (tx *Tx) Jobs() ([]Job, error) {
	var out []Job
	err := tx.scan(bucketJobs, nil, nil, func(p pair) (bool, error) {
		var j Job
		err := tx.open(bucketJobs, p.key, p.val, &j)
		out = append(out, j)
		return true, err
	})
	return out, err
}

// Job returns one job, or ErrNotFound.
func (tx *Tx) Job(id uint64) (Job, error) {
	var j Job
	ok, err := tx.load(bucketJobs, numberKey(id), &j)
	if err == nil && !ok {
		err = fmt.Errorf("job %d: %w", id, ErrNotFound)
	}
	return j, err
}

// JobFor returns the job that a token is in, if any.
func (tx *Tx) JobFor(t device.TokenID) (Job, bool, error) {
	ids, err := tx.numbered(kindJob, string(t), 0, 1)
	if err != nil || len(ids) == 0 {
		return Job{}, false, err
	}
	j, err := tx.Job(ids[0])
	if errors.Is(err, ErrNotFound) || err == nil && j.Token != t {
		err = tx.astray(kindJob, string(t), ids[0])
	}
	return j, err == nil, err
}

// PutJob writes a job. One whose ID is zero is new and gets its ID and Created; Updated is always set. A token is in one
// job at a time.
func (tx *Tx) PutJob(j *Job) error {
	if _, err := device.ParseTokenID(string(j.Token)); err != nil {
		return fmt.Errorf("cannot put a job: %w", err)
	}
	if j.Kind == "" {
		return fmt.Errorf("cannot put a job for %s: it has no kind", j.Token)
	}
	if len(j.Params) > 0 && !json.Valid(j.Params) {
		return fmt.Errorf("cannot put a job for %s: its parameters are not JSON", j.Token)
	}
	if other, ok, err := tx.JobFor(j.Token); err != nil {
		return err
	} else if ok && other.ID != j.ID {
		return fmt.Errorf("cannot put a job for %s: job %d (%s) is not finished; resume or undo it first", j.Token, other.ID, other.Kind)
	}
	put := *j
	put.Updated = time.Now().UTC()
	var was indexed
	if put.ID == 0 {
		id, err := tx.number(bucketJobs, &tx.ledger.Job)
		if err != nil {
			return err
		}
		put.ID = id
		if put.Created.IsZero() {
			put.Created = put.Updated
		}
	} else if old, err := tx.Job(put.ID); err != nil {
		return fmt.Errorf("cannot put a job: %w", err)
	} else if old.Token != put.Token || old.Kind != put.Kind {
		return fmt.Errorf("cannot put job %d: it is %s for %s, not %s for %s", put.ID, old.Kind, old.Token, put.Kind, put.Token)
	} else {
		was = &old
	}
	tx.touch(put.Token)
	if err := tx.reindex(was, &put); err != nil {
		return err
	}
	if err := tx.store(bucketJobs, numberKey(put.ID), put); err != nil {
		return err
	}
	*j = put
	return nil
}

// DeleteJob removes a job that has finished or was undone, or returns ErrNotFound.
func (tx *Tx) DeleteJob(id uint64) error {
	j, err := tx.Job(id)
	if err != nil {
		return err
	}
	if err := tx.reindex(&j, nil); err != nil {
		return err
	}
	tx.weigh(light)
	return tx.delete(bucketJobs, numberKey(id))
}
