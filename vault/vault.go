package vault

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"tokendesk/vault/secret"
)

// Vault is an open vault. It is safe for concurrent use.
type Vault struct {
	path   string
	header *header
	keys   *keyring
	db     *bbolt.DB
	file   *os.File

	open    sync.RWMutex // held for reading by every transaction
	closed  bool
	writer  sync.Mutex  // one writer; bbolt's own lock stays locked when bbolt panics
	damaged atomic.Bool // bbolt has panicked: its locks and memory are not to be touched again
}

// Create makes a vault at path, sealed by s, and opens it. It refuses if anything is at path. The file gets its
// name last, so that a crash leaves no half vault (but perhaps a file .NAME.*.new beside it).
func Create(path string, s Sealer) (*Vault, error) {
	if err := absent(path); err != nil {
		return nil, err
	}
	h := &header{ID: rand.Text(), Sealer: s.Kind(), Level: s.Level(), Created: time.Now().UTC()}
	root, dek := secret.Random(keySize), secret.Random(keySize)
	defer root.Wipe()
	defer dek.Wipe()
	var err error
	if h.Sealed, err = s.Seal(root); err != nil {
		return nil, err
	}
	kek := h.kek(root)
	defer kek.Wipe()
	if err := h.wrap(kek, 1, dek); err != nil {
		return nil, err
	}
	keys := &keyring{vault: h.ID, keys: map[uint32]purposes{}}
	defer keys.wipe()
	keys.add(1, dek)
	err = createFile(path, func(f *os.File) error { return lay(f, h, keys) })
	if err != nil {
		return nil, err
	}
	return Open(path, s) // also proves that the seal opens
}

// lay writes an empty vault into a new file and closes it.
func lay(f *os.File, h *header, keys *keyring) error {
	encoded, err := encodeHeader(h, keys)
	if err != nil {
		return err
	}
	db, err := bbolt.Open(f.Name(), fileMode, options(f))
	if err != nil {
		return writeError(f.Name(), err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return tx.Bucket([]byte(bucketMeta)).Put([]byte(keyHeader), encoded)
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return writeError(f.Name(), err)
	}
	return nil
}

// Open opens the vault at path. Its errors are a StateError wherever the state has a name.
func Open(path string, s Sealer) (*Vault, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	v := &Vault{path: path, file: f}
	if err := v.unlock(s); err != nil {
		v.release()
		return nil, err
	}
	return v, nil
}

// unlock verifies the file and obtains the keys.
func (v *Vault) unlock(s Sealer) error {
	if err := v.checkFile(); err != nil {
		return err
	}
	err := v.guard(func() (err error) {
		v.db, err = bbolt.Open(v.path, fileMode, options(v.file))
		return err
	})
	if err != nil {
		return corruptUnlessNamed(err)
	}
	encoded, err := v.readHeader()
	if err != nil {
		return err
	}
	if v.header, err = decodeHeader(encoded); err != nil {
		return err
	}
	if k := s.Kind(); k != v.header.Sealer {
		return &StateError{StateWrongSealer, fmt.Errorf("%s is sealed by %s, not by %s", v.path, v.header.Sealer, k),
			"configure the sealer that it was made with"}
	}
	root, err := s.Unseal(v.header.Sealed)
	if err != nil {
		return err
	}
	defer root.Wipe()
	if v.keys, err = v.header.unwrap(root); err != nil {
		return err
	}
	if err := authenticate(encoded, v.keys); err != nil {
		return err
	}
	if l := s.Level(); l != v.header.Level {
		return &StateError{StateWrongSealer, fmt.Errorf("%s was sealed at level %s, this sealer gives level %s", v.path, v.header.Level, l),
			"open it where it was made"}
	}
	return nil
}

func (v *Vault) checkFile() error {
	info, err := v.file.Stat()
	if err != nil {
		return fmt.Errorf("cannot open the vault: %w", err)
	}
	if err := checkPages(v.file, info.Size()); err != nil {
		return corrupt("%s is damaged: %w", v.path, err)
	}
	return nil
}

// readHeader returns a copy of the encoded header.
func (v *Vault) readHeader() ([]byte, error) {
	var encoded []byte
	err := v.guard(func() error {
		return v.db.View(func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				if tx.Bucket([]byte(name)) == nil {
					return corrupt("%s is not a vault: it has no %s", v.path, name)
				}
			}
			encoded = append(encoded, tx.Bucket([]byte(bucketMeta)).Get([]byte(keyHeader))...)
			return nil
		})
	})
	return encoded, err
}

// Close waits for the transactions under way, then wipes the keys and closes the file. A second Close does nothing.
// It must not be called inside a transaction.
func (v *Vault) Close() error {
	v.open.Lock()
	defer v.open.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	return v.release()
}

func (v *Vault) release() error {
	if v.keys != nil {
		v.keys.wipe()
	}
	if v.db == nil || v.damaged.Load() {
		// A map that bbolt has left behind keeps the lock beyond Close.
		return errors.Join(unix.Flock(int(v.file.Fd()), unix.LOCK_UN), v.file.Close())
	}
	return v.guard(v.db.Close)
}

// ID is the vault's own name, random and for ever.
func (v *Vault) ID() string { return v.header.ID }

// Level says how well the vault is protected.
func (v *Vault) Level() Level { return v.header.Level }

// Path is the file that Open was given.
func (v *Vault) Path() string { return v.path }

// guard runs fn, which uses bbolt and nothing of the caller's, and turns a panic or a memory fault into StateCorrupt.
func (v *Vault) guard(fn func() error) (err error) {
	if v.damaged.Load() {
		return corrupt("%s is damaged, as seen before", v.path)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			v.damaged.Store(true)
			err = corrupt("%s is damaged: %v", v.path, p)
		}
	}()
	return fn()
}

// View runs fn in a transaction that reads one consistent state. Transactions do not nest.
func (v *Vault) View(fn func(*Tx) error) error {
	v.open.RLock()
	defer v.open.RUnlock()
	tx, err := v.begin(false)
	if err != nil {
		return err
	}
	defer tx.rollback()
	return fn(tx)
}

// Update runs fn in a transaction that commits if fn returns nil, and otherwise leaves everything as it was. When Update
// has returned nil, the changes are on disk. Transactions do not nest.
func (v *Vault) Update(fn func(*Tx) error) error {
	v.open.RLock()
	defer v.open.RUnlock()
	v.writer.Lock()
	defer v.writer.Unlock()
	tx, err := v.begin(true)
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
	return tx.commit()
}

func (v *Vault) begin(writable bool) (*Tx, error) {
	if v.closed {
		return nil, ErrClosed
	}
	tx := &Tx{v: v}
	err := v.guard(func() (err error) {
		tx.bolt, err = v.db.Begin(writable)
		return err
	})
	return tx, err
}

func writeError(path string, err error) error {
	var state *StateError
	if errors.As(err, &state) {
		return err
	}
	for _, full := range []syscall.Errno{unix.ENOSPC, unix.EDQUOT, unix.EFBIG} {
		// bbolt v1.5.0 keeps only the text of a failure to grow (db.go: "file resize error").
		if errors.Is(err, full) || strings.HasSuffix(err.Error(), full.Error()) {
			return fmt.Errorf("cannot write the vault %s: %w; nothing was changed; make room and try again", path, full)
		}
	}
	return fmt.Errorf("cannot write the vault %s: %w", path, err)
}

func corruptUnlessNamed(err error) error {
	var state *StateError
	if errors.As(err, &state) {
		return err
	}
	return corrupt("%w", err)
}
