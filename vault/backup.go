package vault

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/vault/audit"
)

// Backup is a backup that the vault has made, as it remembers it: an age file of a snapshot.
type Backup struct {
	Seq    uint64       `json:"seq"`
	Name   string       `json:"name"`
	Dir    string       `json:"dir"` // absolute
	Time   time.Time    `json:"time"`
	Epoch  uint64       `json:"epoch"`
	Size   int64        `json:"size"`
	SHA256 audit.Digest `json:"sha256"`
	// Destroyed is how many seeds had ever been taken out of the vault by then.
	Destroyed uint64 `json:"destroyed"`
	// Since is how many were taken out after: the backup still holds those of them that it found.
	Since uint64 `json:"-"`
}

// Path is where the file was written.
func (b Backup) Path() string { return filepath.Join(b.Dir, b.Name) }

const backupTime = "20060102T150405.000Z"

// backupPrefix is what the names of a vault's backups begin with.
func backupPrefix(id string) string { return "tokendesk-" + id[:min(8, len(id))] + "-" }

// Backup writes the vault as it is now into dir, encrypted to its recovery recipients, and records that. Readers and writers
// go on meanwhile; locking ends it. The file gets its name last, after the record: what a crash has left without a name, the
// next Backup into dir finishes if it was recorded, and otherwise removes.
func (v *Vault) Backup(dir string, by audit.Act) (Backup, error) {
	v.backups.Lock()
	defer v.backups.Unlock()
	b, err := v.backup(dir, by)
	if err != nil {
		return Backup{}, fmt.Errorf("cannot back up the vault: %w", err)
	}
	return b, nil
}

func (v *Vault) backup(dir string, by audit.Act) (b Backup, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return b, err
	}
	var out *outFile
	err = v.View(func(tx *Tx) error {
		if err := tx.sweepBackups(dir); err != nil {
			return err
		}
		b, out, err = tx.writeBackup(dir)
		return err
	})
	if err != nil {
		return b, err
	}
	by.Action, by.Object, by.Outcome = "vault backup", b.Path(), done
	err = v.Update(func(tx *Tx) error {
		tx.weigh(heavy) // an older vault would know nothing of the file
		if b.Seq, err = tx.number(bucketBackup, &tx.ledger.Backup); err != nil {
			return err
		}
		return errors.Join(tx.store(bucketBackup, numberKey(b.Seq), b), tx.Audit(by))
	})
	if errors.Is(err, ErrUnanchored) { // on record: the next backup gives it its name
		return b, errors.Join(err, out.Close())
	}
	if err != nil {
		out.discard()
		return b, err
	}
	if err := out.publish(); err != nil {
		out.discard()
		by.Outcome, by.Reason = "failed", err.Error()
		return b, errors.Join(err, v.Update(func(tx *Tx) error {
			tx.weigh(light)
			return errors.Join(tx.delete(bucketBackup, numberKey(b.Seq)), tx.Audit(by))
		}))
	}
	return b, nil
}

// writeBackup writes and syncs a backup that has no name yet.
func (tx *Tx) writeBackup(dir string) (b Backup, _ *outFile, err error) {
	header, ledger, err := tx.verbatim()
	if err != nil {
		return b, nil, err
	}
	h, err := decodeHeader(header)
	if err != nil {
		return b, nil, err
	}
	if len(h.Recipients) == 0 {
		return b, nil, errors.New("it has no recovery recipient to encrypt to, since it was migrated: give it one: tokendesk vault rotate --recipient")
	}
	recipients, err := parseRecipients(h.Recipients)
	if err != nil {
		return b, nil, err
	}
	copied, err := tx.snapshot(header, ledger)
	if err != nil {
		return b, nil, roomError(filepath.Dir(tx.s.path), err)
	}
	defer copied.close()
	b = Backup{Dir: dir, Time: time.Now().UTC().Truncate(time.Millisecond), Epoch: tx.ledger.Epoch, Destroyed: tx.ledger.Destroyed}
	b.Name = fmt.Sprintf("%s%s-e%d.age", backupPrefix(h.ID), b.Time.Format(backupTime), b.Epoch)
	out, err := newOutFile(b.Path())
	if err != nil {
		return b, nil, err
	}
	sum := meter{h: sha256.New()}
	err = encryptTo(io.MultiWriter(out, &sum), recipients, untilLocked{copied.reader(), tx.s})
	if err == nil {
		err = out.Sync()
	}
	if err != nil {
		out.discard()
		return b, nil, roomError(dir, err)
	}
	b.Size, b.SHA256 = sum.n, audit.Digest(sum.h.Sum(nil))
	return b, out, nil
}

// meter counts and hashes.
type meter struct {
	n int64
	h hash.Hash
}

func (m *meter) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	return m.h.Write(p)
}

// sweepBackups settles what a crash has left in dir.
func (tx *Tx) sweepBackups(dir string) error {
	left, err := filepath.Glob(filepath.Join(globbed(dir), "."+backupPrefix(tx.s.keys.vault)+"*.age.new"))
	if len(left) == 0 || err != nil {
		return err
	}
	known, err := tx.Backups()
	if err != nil {
		return err
	}
	for _, tmp := range left {
		i := indexOf(known, tmp)
		if i < 0 || matches(known[i], tmp) != nil {
			err = errors.Join(err, os.Remove(tmp))
		} else {
			err = errors.Join(err, publish(known[i].Path()))
		}
	}
	return err
}

// globbed quotes a directory's name for filepath.Glob.
func globbed(dir string) string {
	var out bytes.Buffer
	for _, c := range []byte(dir) {
		if bytes.IndexByte([]byte(`*?[\`), c) >= 0 {
			out.WriteByte('\\')
		}
		out.WriteByte(c)
	}
	return out.String()
}

// indexOf finds the backup whose temporary name is given.
func indexOf(list []Backup, tmp string) int {
	for i, b := range list {
		if tempName(b.Path()) == tmp {
			return i
		}
	}
	return -1
}

// Backups lists the backups that were made and not pruned, newest first.
func (tx *Tx) Backups() ([]Backup, error) {
	var out []Backup
	err := tx.scan(bucketBackup, nil, nil, func(p pair) (bool, error) {
		var b Backup
		if err := tx.open(bucketBackup, p.key, p.val, &b); err != nil {
			return false, err
		}
		b.Since = tx.ledger.Destroyed - b.Destroyed
		out = append([]Backup{b}, out...)
		return true, nil
	})
	return out, err
}

// VerifyBackupFile checks that a backup lies where it was written, as it was written. It reads all of it, and needs no identity.
func VerifyBackupFile(b Backup) error { return matches(b, b.Path()) }

// There tells quickly whether a file of the right size lies where a backup was written.
func (b Backup) There() bool {
	info, err := os.Lstat(b.Path())
	return err == nil && info.Mode().IsRegular() && info.Size() == b.Size
}

// errAltered means that a file is not the backup that was made.
var errAltered = errors.New("it is not what was recorded: look at it, and make another backup")

func matches(b Backup, path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("the backup is not there: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() != b.Size {
		return fmt.Errorf("%s: %w", path, errors.Join(err, errAltered))
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("cannot read the backup %s: %w", path, err)
	}
	if audit.Digest(h.Sum(nil)) != b.SHA256 {
		return fmt.Errorf("%s: %w", path, errAltered)
	}
	return nil
}

// PruneBackups removes backups from dir, and returns which: those that the vault has made there, but for the newest keep (1
// or more) that are whole. A file that is not as it was recorded is neither counted nor removed, and reported. What is
// missing stays on record: somebody may have it.
func (v *Vault) PruneBackups(dir string, keep int, by audit.Act) (removed []Backup, err error) {
	if keep < 1 {
		return nil, errors.New("cannot prune backups: keep at least one")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	v.backups.Lock()
	defer v.backups.Unlock()
	var known []Backup
	if err := v.View(func(tx *Tx) error { known, err = tx.Backups(); return err }); err != nil {
		return nil, err
	}
	var problems []error
	for _, b := range known {
		if b.Dir != dir {
			continue
		}
		err := VerifyBackupFile(b)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			problems = append(problems, err)
		case keep > 0:
			keep--
		default:
			if err := os.Remove(b.Path()); err != nil {
				problems = append(problems, err)
				break
			}
			removed = append(removed, b)
		}
	}
	return removed, errors.Join(append(problems, v.forget(removed, by))...)
}

// forget takes backups off the record, after their files are gone: a crash in between leaves one too many.
func (v *Vault) forget(removed []Backup, by audit.Act) error {
	if len(removed) == 0 {
		return nil
	}
	return v.Update(func(tx *Tx) error {
		tx.weigh(light)
		for _, b := range removed {
			by.Action, by.Object, by.Outcome = "vault prune backup", b.Path(), done
			if err := errors.Join(tx.delete(bucketBackup, numberKey(b.Seq)), tx.Audit(by)); err != nil {
				return err
			}
		}
		return nil
	})
}
