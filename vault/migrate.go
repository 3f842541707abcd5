package vault

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Format 1 had no index, no audit trail, no epochs and no recovery; records were authenticated by HMAC-SHA256, and the
// seal held the secret that the key encryption key comes from, as it does now.

// header1 is the header of format 1.
type header1 struct {
	ID      string    `json:"id"`
	Sealer  string    `json:"sealer"`
	Level   Level     `json:"level"`
	Created time.Time `json:"created"`
	Sealed  []byte    `json:"sealed"`
	Keys    []dataKey `json:"keys"`
}

// reader1 reads records of format 1.
type reader1 struct {
	*header1
	keys map[uint32]keys1
}

type keys1 struct{ header, record, secret secret.Secret }

// MigratedSuffix is what the name of a vault ends in that was kept as it was before a migration.
const MigratedSuffix = ".format1"

// migrate rewrites a vault of format 1 in today's, keeps the old file beside it, and asks to open it again.
func (s *session) migrate(encoded []byte, pin secret.Secret) error {
	r, err := s.open1(encoded, pin)
	if err != nil {
		return err
	}
	defer r.wipe()
	if err := keep(s.file, s.path+MigratedSuffix); err != nil {
		return fmt.Errorf("cannot keep a copy of the vault before its migration: %w", err)
	}
	d, err := newDraft(s.sealer, pin, nil)
	if err != nil {
		return err
	}
	defer d.wipe()
	err = createFile(s.path, true, func(f *os.File) error {
		return d.write(s.path, f, func(in commit) error {
			return in(func(tx *Tx) error {
				if err := tx.newSystemSecrets(d.header); err != nil {
					return err
				}
				if err := tx.take1(s, r); err != nil {
					return err
				}
				return tx.Audit(audit.Act{
					Officer: audit.Officer{UID: audit.DeskUID, Name: "tokendeskd"}, Action: "vault migrate", Object: d.header.ID, Outcome: done,
					Reason: "from format 1, in which it was " + r.ID,
				})
			})
		})
	})
	if err != nil && !errors.Is(err, errUnsynced) {
		return errors.Join(err, d.discard())
	}
	return err
}

// keep copies a file to a name that must be free, or hold the same already.
func keep(f *os.File, path string) error {
	content, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<62))
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
		return nil
	}
	return createFile(path, false, func(f *os.File) error {
		if _, err := f.Write(content); err != nil {
			return err
		}
		return f.Sync()
	})
}

func (s *session) open1(encoded []byte, pin secret.Secret) (*reader1, error) {
	var h header1
	if err := json.Unmarshal(encoded[jsonAt:], &h); err != nil || len(h.Keys) == 0 {
		return nil, corrupt("%s has an unreadable header of format 1", s.path)
	}
	if k := s.sealer.Kind(); k != h.Sealer {
		return nil, named(StateWrongSealer, "configure the sealer that it was made with", "%s is sealed by %s, not by %s", s.path, h.Sealer, k)
	}
	key, err := s.sealer.Key(pin, h.Sealed)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	root, err := s.sealer.Unseal(h.Sealed, key)
	if err != nil {
		return nil, err
	}
	defer root.Wipe()
	kek := derive(root, h.ID, "tokendesk key encryption", uint32(1), h.Sealer, string(h.Level))
	defer kek.Wipe()
	r := &reader1{header1: &h, keys: map[uint32]keys1{}}
	last := uint32(0)
	for _, k := range h.Keys {
		dek, err := decrypt(kek, k.Wrapped, frame("data key", h.ID, k.Version))
		if err != nil {
			r.wipe()
			return nil, corrupt("data key %d does not unwrap: the header was edited, or belongs to another vault", k.Version)
		}
		r.keys[k.Version] = keys1{
			header: derive(dek, h.ID, "tokendesk header", k.Version),
			record: derive(dek, h.ID, "tokendesk record", k.Version),
			secret: derive(dek, h.ID, "tokendesk secret", k.Version),
		}
		dek.Wipe()
		last = k.Version
	}
	if !hmac.Equal(mac(r.keys[last].header, "header", uint32(1), encoded[jsonAt:]), encoded[macAt:jsonAt]) {
		r.wipe()
		return nil, corrupt("the header does not authenticate")
	}
	return r, nil
}

func (r *reader1) wipe() {
	for _, k := range r.keys {
		k.header.Wipe()
		k.record.Wipe()
		k.secret.Wipe()
	}
}

// split1 takes a stored value of format 1 apart: schema (1 byte), data key version (4 bytes), body.
func (r *reader1) split1(b []byte) (k keys1, dek uint32, body []byte, err error) {
	if len(b) < 5 || b[0] != 1 {
		return k, 0, nil, errShort
	}
	dek = binary.BigEndian.Uint32(b[1:])
	k, ok := r.keys[dek]
	if !ok {
		err = errUnauthentic
	}
	return k, dek, b[5:], err
}

func (r *reader1) record(bucket string, key, b []byte, out any) error {
	k, dek, body, err := r.split1(b)
	if err != nil {
		return err
	}
	if len(body) < sha256.Size {
		return errShort
	}
	context := frame("record", r.ID, bucket, key, uint32(1), dek)
	if !hmac.Equal(body[:sha256.Size], mac(k.record, context, body[sha256.Size:])) {
		return errUnauthentic
	}
	return json.Unmarshal(body[sha256.Size:], out)
}

func (r *reader1) secret(bucket string, key, b []byte) (secret.Secret, error) {
	k, dek, body, err := r.split1(b)
	if err != nil {
		return secret.Secret{}, err
	}
	return decrypt(k.secret, body, frame("secret", r.ID, bucket, key, uint32(1), dek))
}

// take1 copies everything out of a file of format 1.
func (tx *Tx) take1(s *session, r *reader1) error {
	l, err := s.layout()
	if err != nil {
		return err
	}
	for _, b := range l.buckets {
		err := l.read(b.name, func(bucket string, key, val []byte) error {
			if err := tx.take1Entry(r, bucket, key, val); err != nil {
				return corrupt("%s: the entry %q in %s: %w", s.path, key, bucket, err)
			}
			return nil
		})
		if err != nil {
			return corruptUnlessNamed(err)
		}
	}
	return nil
}

func (tx *Tx) take1Entry(r *reader1, bucket string, key, val []byte) error {
	switch bucket {
	case bucketMeta:
		if string(key) != "sequence" {
			return nil
		}
		var n struct{ Job, Change uint64 }
		err := r.record(bucket, key, val, &n)
		tx.ledger.Job, tx.ledger.Change = n.Job, n.Change
		return err
	case bucketTokens:
		var t Token
		if err := r.record(bucket, key, val, &t); err != nil {
			return err
		}
		return errors.Join(tx.reindex(nil, &t), tx.store(bucket, key, t))
	case bucketJobs:
		var j Job
		if err := r.record(bucket, key, val, &j); err != nil {
			return err
		}
		return errors.Join(tx.reindex(nil, &j), tx.store(bucket, key, j))
	case bucketOutbox:
		var c Change
		if err := r.record(bucket, key, val, &c); err != nil {
			return err
		}
		return errors.Join(tx.reindex(nil, &c), tx.store(bucket, key, c))
	case bucketSeeds, bucketCodes:
		x, err := r.secret(bucket, key, val)
		if err != nil {
			return err
		}
		defer x.Wipe()
		if bucket == bucketSeeds {
			id, g, err := parseSeedKey(key)
			if err != nil {
				return err
			}
			if err := tx.noteSeed(id, g, x); err != nil {
				return err
			}
		}
		return tx.seal(bucket, bytes.Clone(key), x)
	}
	return fmt.Errorf("there is an unknown bucket %q", bucket)
}
