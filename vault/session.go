package vault

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"tokendesk/vault/secret"
)

// session is an unlocked vault.
type session struct {
	path   string
	file   *os.File
	db     *bbolt.DB
	sealer Sealer
	head   atomic.Pointer[header]
	root   secret.Secret // what the seals hold
	pin    secret.Secret // Sealer.Key: seals again without asking
	auth   secret.Secret // of the TPM's counters
	keys   *keyring
	summer *summer // of the one transaction that writes; nil before the first

	evenMoved bool // see openEven

	ending  atomic.Bool // it is about to be locked: a backup gives up
	damaged atomic.Bool // bbolt has panicked: its locks and memory are not to be touched again

	// A commit and the counter that follows it are one: nobody begins to read in between.
	visible sync.RWMutex
	ledger  *ledger // of the last commit; guarded by the vault's writer lock and, for reading, by visible
	counter uint64  // the last epoch that the TPM's counter has reached; without a TPM, that of the ledger
	tail    *time.Timer
	onTail  func()
}

func (s *session) header() *header { return s.head.Load() }

// readHeader takes the header that the file begins with.
func (s *session) readHeader(encoded []byte) error {
	h, err := decodeHeader(encoded)
	if err == nil {
		s.head.Store(h)
	}
	return err
}

// release gives everything back.
func (s *session) release() error {
	if s.tail != nil {
		s.tail.Stop()
	}
	for _, k := range []secret.Secret{s.root, s.pin, s.auth} {
		k.Wipe()
	}
	if s.keys != nil {
		s.keys.wipe()
	}
	s.summer = nil
	var err error
	if s.sealer != nil {
		err = s.sealer.Close()
	}
	switch {
	case s.file == nil:
	case s.db == nil || s.damaged.Load():
		// A map that bbolt has left behind keeps the lock beyond Close.
		err = errors.Join(err, unix.Flock(int(s.file.Fd()), unix.LOCK_UN), s.file.Close())
	default:
		err = errors.Join(err, s.guard(s.db.Close))
	}
	return err
}

// guard runs fn, which uses bbolt and nothing of the caller's, and turns a panic or a memory fault into StateCorrupt.
func (s *session) guard(fn func() error) (err error) {
	if s.damaged.Load() {
		return corrupt("%s is damaged, as seen before", s.path)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			s.damaged.Store(true)
			err = corrupt("%s is damaged: %v", s.path, p)
		}
	}()
	return fn()
}

// openBolt has bbolt take over the file, whose pages were verified.
func (s *session) openBolt() error {
	return s.guard(func() (err error) {
		s.db, err = bbolt.Open(s.file.Name(), fileMode, options(s.file))
		return err
	})
}

func (s *session) begin(writable bool) (*Tx, error) {
	tx := &Tx{s: s, coder: &coder{keyring: s.keys}, ledger: s.ledger.clone(), counter: s.counter, buckets: map[string]*entries{}}
	if writable {
		if s.summer == nil {
			s.summer = s.keys.summer()
		}
		tx.summer = s.summer
	}
	err := s.guard(func() (err error) {
		tx.bolt, err = s.db.Begin(writable)
		return err
	})
	return tx, err
}

func (s *session) beginView() (*Tx, error) {
	s.visible.RLock()
	defer s.visible.RUnlock()
	if s.behind() {
		return nil, ErrUnanchored
	}
	return s.begin(false)
}

// update is Vault.Update. The caller holds the vault's writer lock.
func (s *session) update(fn func(*Tx) error) error {
	defer forgetSoon()
	if err := s.catchUp(); err != nil {
		return err
	}
	tx, err := s.begin(true)
	if err != nil {
		return err
	}
	defer tx.rollback() // also when fn panics
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.settle(); err != nil {
		return fmt.Errorf("cannot commit: %w", err)
	}
	if tx.weight == nothing {
		return nil
	}
	return s.conclude(tx)
}

// conclude commits a transaction and then, if an effect may follow, raises the TPM's counter.
func (s *session) conclude(tx *Tx) error {
	epoch := s.counter
	if tx.weight == heavy {
		epoch++
	}
	if err := tx.close(epoch, s.counter); err != nil {
		return err
	}
	return s.enact(tx)
}

// enact commits a transaction that was closed, and has the counter follow.
func (s *session) enact(tx *Tx) error {
	s.visible.Lock()
	defer s.visible.Unlock()
	if err := tx.commit(); err != nil {
		return err
	}
	s.ledger = tx.ledger
	if tx.weight == light {
		s.startTail()
		return nil
	}
	return s.raise()
}

// setHeader replaces the header within a transaction.
func (tx *Tx) setHeader(h *header) error {
	encoded, err := h.encode(tx.s.root)
	if err != nil {
		return err
	}
	tx.weigh(heavy)
	tx.ledger.Header = sha256.Sum256(encoded)
	return tx.meta(keyHeader, encoded)
}

// changeHeader commits a header. The caller holds the vault's writer lock.
func (s *session) changeHeader(change func(*header)) error {
	h := *s.header()
	change(&h)
	err := s.update(func(tx *Tx) error { return tx.setHeader(&h) })
	if err == nil || errors.Is(err, ErrUnanchored) {
		s.head.Store(&h)
	}
	return err
}
