package vault

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/vault/secret"
)

// tailDelay is how long changes without an effect outside may share an epoch.
const tailDelay = time.Minute

// Vault is a vault file, and what it is sealed by. It is locked until Unlock, and can be locked again; meanwhile every
// transaction is refused with a StateError. It is safe for concurrent use.
type Vault struct {
	path string
	open func() (Sealer, error)

	writer  sync.Mutex   // held by whoever changes the file, or opens or closes it; taken before door
	door    sync.RWMutex // held for reading by every transaction; guards what follows
	session *session     // nil while locked
	trouble error        // why it is not open
	closed  bool

	backups sync.Mutex // held by whoever makes or prunes backups, or replaces the file, which waits for them; taken before writer

	unanchored atomic.Bool // the session's last commit waits for the TPM
}

// At returns the vault at path, locked. open is called by each Unlock for what it is sealed by; Lock closes that.
func At(path string, open func() (Sealer, error)) *Vault { return &Vault{path: path, open: open} }

// Unlock opens the vault: with its PIN or passphrase if it has one. It verifies the whole file, and that it is not an older
// copy of itself. Its errors are a StateError wherever the state has a name. A vault that is open stays so.
func (v *Vault) Unlock(pin secret.Secret) error {
	defer forgetSoon()
	v.writer.Lock()
	defer v.writer.Unlock()
	if v.closed {
		return ErrClosed
	}
	if v.session != nil {
		return nil
	}
	s, err := openSession(v.path, v.open, pin)
	v.enthrone(s, err)
	return err
}

// enthrone makes s the session, or notes why there is none. The caller holds writer.
func (v *Vault) enthrone(s *session, err error) {
	v.door.Lock()
	defer v.door.Unlock()
	v.session, v.trouble = s, err
	v.unanchored.Store(false)
	if s != nil {
		s.onTail = func() { v.endTail(s) }
	}
}

// Lock waits for the transactions under way, then wipes the keys and closes the file. A vault that is locked stays so.
func (v *Vault) Lock() error {
	v.writer.Lock()
	defer v.writer.Unlock()
	defer Forget()
	return v.lock()
}

func (v *Vault) lock() error {
	s := v.session
	if s == nil {
		return nil
	}
	err := s.endTail()
	s.ending.Store(true)
	v.enthrone(nil, nil) // waits for those who read
	return errors.Join(err, s.release())
}

// forgetDelay is how long what was computed from secrets may stay after its last use.
const forgetDelay = time.Second

// forgets says that Forget is to be called soon.
var forgets atomic.Bool

// forgetSoon has what was computed from secrets erased, together with what is computed in the next moment.
func forgetSoon() {
	if forgets.Swap(true) {
		return
	}
	time.AfterFunc(forgetDelay, func() {
		forgets.Store(false)
		Forget()
	})
}

// Forget erases what was computed from secrets and nobody refers to any more: see secret.Do. Every use of a vault that
// computes something from its secrets is followed by it, at once or after a second. It takes 6 ms.
func Forget() {
	for range 3 { // others' cleanups may come after the one that is waited for
		collect()
	}
}

// cleanupPatience is how long cleanups are waited for.
const cleanupPatience = 100 * time.Millisecond

// collect runs the collector, and waits for the cleanups that follow: what the standard library caches for a key that is gone
// is unused only after them.
func collect() {
	cleaned := make(chan struct{})
	runtime.AddCleanup(&struct{ p *int }{}, func(c chan struct{}) { close(c) }, cleaned)
	runtime.GC()
	select {
	case <-cleaned:
	case <-time.After(cleanupPatience):
	}
}

// Close locks the vault for ever. A second Close does nothing. It must not be called inside a transaction.
func (v *Vault) Close() error {
	v.writer.Lock()
	defer v.writer.Unlock()
	err := v.lock()
	v.door.Lock()
	defer v.door.Unlock()
	v.closed = true
	return err
}

// enter returns the session for a transaction, which calls leave at its end.
func (v *Vault) enter() (s *session, leave func(), err error) {
	v.door.RLock()
	switch {
	case v.closed:
		err = ErrClosed
	case v.session != nil:
		return v.session, v.door.RUnlock, nil
	case v.trouble != nil:
		err = v.trouble
	default:
		err = named(StateLocked, "unlock it: tokendesk vault unlock", "%s is locked", v.path)
	}
	v.door.RUnlock()
	return nil, nil, err
}

// View runs fn in a transaction that reads one consistent state. Transactions do not nest.
func (v *Vault) View(fn func(*Tx) error) error {
	if err := v.anchored(); err != nil {
		return err
	}
	s, leave, err := v.enter()
	if err != nil {
		return err
	}
	defer leave()
	tx, err := s.beginView()
	if err != nil {
		return err
	}
	defer tx.rollback()
	return fn(tx)
}

// anchored has the TPM's counter follow the last commit, if it has not yet.
func (v *Vault) anchored() error {
	if !v.unanchored.Load() {
		return nil
	}
	return v.Update(func(*Tx) error { return nil })
}

// Update runs fn in a transaction that commits if fn returns nil, and otherwise leaves everything as it was. When Update
// has returned nil, the changes are on disk, and the TPM's counter is behind them: nothing that is told or done on
// their ground can be undone by putting back an older file. With ErrUnanchored they are on disk, but nobody sees
// them before the counter has followed. Transactions do not nest.
func (v *Vault) Update(fn func(*Tx) error) error {
	v.writer.Lock()
	defer v.writer.Unlock()
	s, leave, err := v.enter()
	if err != nil {
		return err
	}
	defer leave()
	err = s.update(fn)
	v.unanchored.Store(s.behind())
	return err
}

// endTail gives the changes since the last epoch one of their own. It is called by a timer.
func (v *Vault) endTail(s *session) {
	v.writer.Lock()
	defer v.writer.Unlock()
	if v.session == s {
		s.endTail() // if it fails, the next change tries again
		v.unanchored.Store(s.behind())
	}
}

// ID is the vault's own name, random, or empty while it is locked. A restored vault has another one.
func (v *Vault) ID() string {
	s, leave, err := v.enter()
	if err != nil {
		return ""
	}
	defer leave()
	return s.header().ID
}

// Level says how well the vault is protected; empty while it is locked.
func (v *Vault) Level() Level {
	s, leave, err := v.enter()
	if err != nil {
		return ""
	}
	defer leave()
	return s.header().Level
}

// Path is the vault's file.
func (v *Vault) Path() string { return v.path }

func writeError(path string, err error) error {
	var state *StateError
	if errors.As(err, &state) {
		return err
	}
	if full, ok := noRoom(err); ok {
		return fmt.Errorf("cannot write the vault %s: %w; nothing was changed; make room and try again", path, full)
	}
	return fmt.Errorf("cannot write the vault %s: %w", path, err)
}

// noRoom tells whether a disk is full.
func noRoom(err error) (syscall.Errno, bool) {
	for _, full := range []syscall.Errno{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
		// bbolt v1.5.0 keeps only the text of a failure to grow (db.go: "file resize error").
		if errors.Is(err, full) || strings.HasSuffix(err.Error(), full.Error()) {
			return full, true
		}
	}
	return 0, false
}

func corruptUnlessNamed(err error) error {
	var state *StateError
	if errors.As(err, &state) {
		return err
	}
	return corrupt("%w", err)
}
