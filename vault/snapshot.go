package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// A snapshot is what a transaction sees, in a bbolt file of its own: the same entries under the same keys, so that it
// authenticates, and none of the pages that earlier states have left. It has no name, so that no crash leaves it behind.
type snapshot struct {
	s    *session
	size int64 // what has a meaning; bbolt makes the file larger
}

// maxSnapshot bounds what is taken for a backup, in bytes: a hundred million tokens.
const maxSnapshot = 100 << 30

// snapshot copies everything that tx sees, with a header and a ledger that fit together, and verifies the copy.
func (tx *Tx) snapshot(header, ledger []byte) (_ *snapshot, err error) {
	f, err := unnamedFile(tx.s.path)
	if err != nil {
		return nil, err
	}
	to := &session{path: tx.s.path, file: f}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot copy the vault beside itself, in %s: %w", filepath.Dir(tx.s.path), err)
			to.release()
		}
	}()
	if err := to.openBolt(); err != nil {
		return nil, err
	}
	to.db.NoSync = true // who opens it again does so in this process
	for _, bucket := range buckets {
		if bucket == bucketMeta {
			err = to.copyBucket(bucket, func(b *bbolt.Bucket) (bool, error) {
				return false, errors.Join(b.Put([]byte(keyHeader), header), b.Put([]byte(keyLedger), ledger))
			})
		} else {
			err = tx.copyInto(to, bucket)
		}
		if err != nil {
			return nil, err
		}
	}
	check := &session{path: tx.s.path, file: f, keys: tx.s.keys, ledger: tx.ledger}
	if err := check.verify(); err != nil {
		return nil, err
	}
	l, err := check.layout()
	if err != nil {
		return nil, err
	}
	return &snapshot{to, int64(l.live.high) * pageSize}, nil
}

func (c *snapshot) reader() io.Reader { return io.NewSectionReader(c.s.file, 0, c.size) }

// untilLocked reads for as long as the vault is not about to be locked.
type untilLocked struct {
	io.Reader
	s *session
}

func (r untilLocked) Read(p []byte) (int, error) {
	if err := r.s.wanted(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// wanted is an error when the vault is about to be locked: that is not to wait for a backup.
func (s *session) wanted() error {
	if s.ending.Load() {
		return named(StateLocked, "unlock it, and begin again: tokendesk vault unlock", "%s is being locked", s.path)
	}
	return nil
}

func (c *snapshot) close() { c.s.release() }

// copyInto copies a bucket, some entries with each transaction. Values are lent until that commits.
func (tx *Tx) copyInto(to *session, bucket string) error {
	next := []byte{}
	return to.copyBucket(bucket, func(b *bbolt.Bucket) (more bool, err error) {
		if err := tx.s.wanted(); err != nil {
			return false, err
		}
		err = tx.with(bucket, func(from *entries) error {
			c := from.Cursor()
			k, val := c.Seek(next)
			for n := 0; k != nil && n < fillBatch; n++ {
				if err := b.Put(k, val); err != nil {
					return err
				}
				k, val = c.Next()
			}
			more, next = k != nil, bytes.Clone(k)
			return nil
		})
		return more, err
	})
}

// copyBucket makes a bucket and has fill fill it, until there is no more.
func (s *session) copyBucket(bucket string, fill func(*bbolt.Bucket) (more bool, err error)) error {
	for more := true; more; {
		err := s.guard(func() error {
			return s.db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists([]byte(bucket))
				if err != nil {
					return err
				}
				b.FillPercent = 1 // keys ascend, and nothing comes between them later
				more, err = fill(b)
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// verbatim is the header and the ledger as tx sees them.
func (tx *Tx) verbatim() (header, ledger []byte, err error) {
	if header, err = tx.get(bucketMeta, []byte(keyHeader)); err != nil {
		return nil, nil, err
	}
	ledger, err = tx.get(bucketMeta, []byte(keyLedger))
	return header, ledger, err
}

// unmoved is the same for a vault that has not moved.
func (tx *Tx) unmoved() (header, ledger []byte, err error) {
	h, l := *tx.s.header(), *tx.ledger
	h.Moved = ""
	if header, err = h.encode(tx.s.root); err != nil {
		return nil, nil, err
	}
	l.Header = sha256.Sum256(header)
	ledger, err = l.encode(tx.s.keys)
	return header, ledger, err
}

// unnamedFile makes a file beside path that is gone once it is closed. A crash at the worst moment leaves it empty, for sweep.
func unnamedFile(path string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), newFilePrefix(path)+"*.new") // mode 0600
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// encryptTo writes an age file.
func encryptTo(w io.Writer, recipients []age.Recipient, parts ...io.Reader) error {
	out, err := encryptInto(w, recipients...)
	if err != nil {
		return err
	}
	for _, r := range parts {
		if _, err := io.Copy(out, r); err != nil {
			return err
		}
	}
	return out.Close()
}

// outFile is a file that gets its name when it is whole and on disk, never over another one. What writes it sweeps away what
// a crash has left.
type outFile struct {
	*os.File
	path string
}

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

// newOutFile begins a file. It refuses if there is one.
func newOutFile(path string) (*outFile, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%s: %w; choose another name", path, fs.ErrExist)
		}
		return nil, err
	}
	f, err := os.OpenFile(tempName(path), os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	o := &outFile{f, path}
	if err := syncNames(path); err != nil { // lest a power cut takes away what was committed to be there
		o.discard()
		return nil, err
	}
	return o, nil
}

// publish gives the file its name, after its content is on disk.
func (o *outFile) publish() error {
	if err := errors.Join(o.Sync(), o.Close()); err != nil {
		return err
	}
	return publish(o.path)
}

func publish(path string) error {
	tmp := tempName(path)
	err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // NFS knows no such renaming, but links
		if err = os.Link(tmp, path); err == nil {
			err = os.Remove(tmp)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot name the new file %s: %w", path, err)
	}
	return syncNames(path)
}

// syncNames makes the names in a file's directory safe, where the file system can.
func syncNames(path string) error {
	if err := syncDir(filepath.Dir(path)); !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// discard removes what has no name yet.
func (o *outFile) discard() {
	o.Close()
	os.Remove(tempName(o.path))
}

// roomError says which disk is full.
func roomError(dir string, err error) error {
	if full, ok := noRoom(err); ok {
		return fmt.Errorf("there is not enough room in %s: %w; make room and try again", dir, full)
	}
	return err
}

const cureBackup = "take another copy of it, or another backup"

func badBackup(format string, args ...any) error {
	return &StateError{State: StateCorrupt, Err: fmt.Errorf(format, args...), Cure: cureBackup}
}

// openSource opens what somebody names as a backup, and tells its size. It waits for nobody, whatever that is.
func openSource(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = badBackup("%s is not a regular file", path)
	case info.Size() > maxSnapshot:
		err = badBackup("%s has %d bytes, more than any vault", path, info.Size())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// receive copies size bytes or fewer into an unnamed file beside path, where a vault of that size is to follow.
func receive(r io.Reader, size int64, path string) (*os.File, error) {
	dir := filepath.Dir(path)
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err == nil && disk.Bavail*uint64(disk.Bsize)/2 < uint64(size) {
		return nil, fmt.Errorf("there is not enough room in %s: %d MiB are needed, %d are free: %w; make room and try again",
			dir, size>>19+1, disk.Bavail*uint64(disk.Bsize)>>20, unix.ENOSPC)
	}
	f, err := unnamedFile(path)
	if err != nil {
		return nil, createError(path, roomError(dir, err))
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return nil, roomError(dir, err)
	}
	return f, nil
}

// ageIntro is the first line of an age file (age-encryption.org/v1).
const ageIntro = "age-encryption.org/v1\n"

// begins tells whether a file begins with a text.
func begins(f io.ReaderAt, text string) bool {
	b := make([]byte, len(text))
	n, _ := f.ReadAt(b, 0)
	return bytes.Equal(b[:n], []byte(text))
}
