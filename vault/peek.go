package vault

import (
	"encoding/json"
	"errors"
	"os"
)

// Waiting is what can be seen of a locked vault without its keys: nothing of it is authenticated.
type Waiting struct {
	PIN     bool     // it opens with a PIN or passphrase only
	Level   Level    // as the file claims
	ID      string   // as the file claims
	Changes []Change // the outbox
	Jobs    []Job    // unfinished work
	Tokens  int
}

// Peek reads what waits in a locked vault, so that somebody sees how urgent it is to unlock it.
func (v *Vault) Peek() (w Waiting, err error) {
	v.writer.Lock() // nobody replaces the file meanwhile
	defer v.writer.Unlock()
	f, err := os.Open(v.path)
	if err != nil {
		return w, openError(v.path, err)
	}
	defer f.Close()
	s := &session{path: v.path, file: f}
	if err := vet(f); err != nil {
		return w, err
	}
	meta, err := s.readMeta()
	if err != nil {
		return w, err
	}
	h, err := decodeHeader(meta[keyHeader])
	if err != nil {
		return w, err
	}
	w.PIN, w.Level, w.ID = h.PIN, h.Level, h.ID
	l, err := s.layout()
	if err != nil {
		return w, err
	}
	err = errors.Join(
		l.read(bucketOutbox, func(_ string, _, val []byte) error { return peekAt(val, &w.Changes) }),
		l.read(bucketJobs, func(_ string, _, val []byte) error { return peekAt(val, &w.Jobs) }),
		l.read(bucketTokens, func(string, []byte, []byte) error { w.Tokens++; return nil }),
	)
	if err != nil {
		return w, corrupt("%s is damaged: %w", v.path, err)
	}
	return w, nil
}

func peekAt[T any](val []byte, list *[]T) error {
	if len(val) < minValue {
		return errShort
	}
	var rec T
	if err := json.Unmarshal(val[bodyAt:len(val)-tagSize], &rec); err != nil {
		return errors.New("a record is unreadable")
	}
	*list = append(*list, rec)
	return nil
}
