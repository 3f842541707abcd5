package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// A vault moves while both boards live. The new board shows the fingerprint of its TPM; the old one writes a move file that only
// this TPM opens; the new one takes the vault in.
//
// A move file begins with a head of fixed size: magic, version (4 bytes, big endian), length (4 bytes) and what Wrap has
// made, for the new TPM, of the text of a throw-away age identity; zeros follow. The rest is an age file for this
// identity: the root secret, and a snapshot that is not marked as moved.
//
// At no moment do both boards open the vault. The old one writes everything but the head; then it commits that it has moved,
// and its TPM's counter follows, so that no earlier file opens there; only then does it write the head, and name the
// file. Before the commit the identity is in memory only, and nobody opens what a crash leaves. After the commit a
// crash may leave a vault that opens nowhere: MoveOutAgain writes the file again, CancelMove takes the move back.
//
// Two things remain with the officer. A file that was finished opens on the new board even after CancelMove, and more than once,
// always as it was when it moved: destroy it. And it has no PIN: until it is taken in and destroyed, whoever has the
// new board and the file has the vault.
const (
	moveMagic    = "tdmove\x00\x00"
	moveVersion  = 1
	moveHead     = 4096
	moveBlobAt   = len(moveMagic) + 4 + 4
	maxMoveBlob  = moveHead - moveBlobAt
	maxMoveIdent = 1024 // an age identity's text has 74 bytes
)

// Board is a Sealer that can take in a vault from another board.
type Board interface {
	// Parent is the public key of this board's TPM that the other one wraps for.
	Parent() ([]byte, error)
	// Unwrap opens what was wrapped for Parent.
	Unwrap(blob []byte) (secret.Secret, error)
}

func movedAway(path, to string) error {
	return named(StateMoved, "use it there; if the move failed, take it back: tokendesk vault move --cancel",
		"%s was moved to the board with the TPM %s", path, to)
}

// departure is a move to another board.
type departure struct {
	file        string
	parent      []byte
	fingerprint string
	wrap        func(parent []byte, s secret.Secret) ([]byte, error)
	by          audit.Act
}

// MoveOut writes the vault into a file for the board whose TPM has parent, and marks it as moved: it is locked, and does not
// open here any more. fingerprint is that of parent, which the officer has compared. An error that is a StateError with
// StateMoved came after the mark: MoveOutAgain goes on from there.
func (v *Vault) MoveOut(file string, parent []byte, fingerprint string, wrap func(parent []byte, s secret.Secret) ([]byte, error), by audit.Act) error {
	v.writer.Lock()
	defer v.writer.Unlock()
	s, leave, err := v.enter()
	if err != nil {
		return err
	}
	leave() // only holders of writer end the session
	if err := errors.Join(s.catchUp(), s.endTail()); err != nil {
		v.unanchored.Store(s.behind())
		return err
	}
	moved, err := s.moveOut(departure{file, parent, fingerprint, wrap, by})
	if moved {
		lockErr := v.lock()
		v.enthrone(nil, movedAway(v.path, fingerprint))
		err = errors.Join(err, lockErr)
	}
	return err
}

// MoveOutAgain writes the file of MoveOut once more, to the same board, where it was lost or never finished.
func (v *Vault) MoveOutAgain(pin secret.Secret, file string, parent []byte, fingerprint string, wrap func(parent []byte, s secret.Secret) ([]byte, error), by audit.Act) error {
	return v.whileMoved(pin, func(s *session) error {
		if to := s.header().Moved; to != fingerprint {
			return fmt.Errorf("cannot move the vault to the TPM %s: it was moved to %s; take that back first: tokendesk vault move --cancel", fingerprint, to)
		}
		_, err := s.moveOut(departure{file, parent, fingerprint, wrap, by})
		return err
	})
}

// CancelMove takes a move back: the vault opens here again. Nobody can tell whether it was taken in elsewhere: destroy the move
// file first, or there are two.
func (v *Vault) CancelMove(pin secret.Secret, by audit.Act) error {
	return v.whileMoved(pin, func(s *session) error {
		by.Action, by.Object, by.Outcome = "vault move cancel", s.header().ID, done
		h := *s.header()
		h.Moved = ""
		if err := s.update(func(tx *Tx) error { return errors.Join(tx.setHeader(&h), tx.Audit(by)) }); err != nil {
			return err
		}
		v.enthrone(nil, nil)
		return nil
	})
}

// whileMoved opens a vault that has moved, for fn.
func (v *Vault) whileMoved(pin secret.Secret, fn func(*session) error) (err error) {
	v.writer.Lock()
	defer v.writer.Unlock()
	if v.closed {
		return ErrClosed
	}
	if v.session != nil {
		return fmt.Errorf("%s is open: it was not moved", v.path)
	}
	s, err := openEven(v.path, true, v.open, pin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.release()) }()
	if s.header().Moved == "" {
		return fmt.Errorf("%s was not moved: unlock it: tokendesk vault unlock", v.path)
	}
	return fn(s)
}

// moveOut returns whether the vault is marked as moved. The caller holds writer.
func (s *session) moveOut(to departure) (moved bool, err error) {
	id, head, err := to.prepare()
	if err != nil {
		return false, err
	}
	os.Remove(tempName(to.file)) // nobody opens what a crash has left
	out, err := newOutFile(to.file)
	if err != nil {
		return false, fmt.Errorf("cannot write the move file: %w", err)
	}
	defer func() {
		if err != nil {
			out.discard()
		}
	}()
	tx, err := s.begin(true)
	if err != nil {
		return false, err
	}
	defer tx.rollback()
	h := *s.header()
	h.Moved = to.fingerprint
	reason := "to the TPM " + to.fingerprint
	if r := to.by.Reason; r != "" {
		reason += "; " + r
	}
	to.by.Action, to.by.Object, to.by.Outcome, to.by.Reason = "vault move out", h.ID, done, reason
	if err := errors.Join(tx.setHeader(&h), tx.Audit(to.by), tx.close(s.counter+1, s.counter)); err != nil {
		return false, err
	}
	if err := tx.writeMove(out, id); err != nil {
		return false, fmt.Errorf("cannot write the move file: %w", roomError(filepath.Dir(to.file), err))
	}
	if err = s.enact(tx); err != nil && !errors.Is(err, ErrUnanchored) {
		return false, err
	}
	if err == nil {
		_, err = out.WriteAt(head, 0)
	}
	if err == nil {
		err = out.publish()
	}
	if err != nil {
		return true, named(StateMoved, "write it again, for the same board, or take the move back: tokendesk vault move --cancel",
			"%s is marked as moved to the TPM %s, and its move file could not be finished: %w", s.path, to.fingerprint, roomError(filepath.Dir(to.file), err))
	}
	return true, nil
}

// prepare makes the throw-away identity, and the head that holds it.
func (to departure) prepare() (*age.X25519Identity, []byte, error) {
	var id *age.X25519Identity
	var text secret.Secret
	var err error
	secret.Do(func() {
		if id, err = age.GenerateX25519Identity(); err == nil {
			text = secret.New([]byte(id.String()))
		}
	})
	if err != nil {
		return nil, nil, err
	}
	defer text.Wipe()
	blob, err := to.wrap(to.parent, text)
	if err != nil {
		return nil, nil, err
	}
	if len(blob) == 0 || len(blob) > maxMoveBlob || to.fingerprint == "" {
		return nil, nil, fmt.Errorf("cannot move the vault: the key for the other TPM has %d bytes and the fingerprint %q", len(blob), to.fingerprint)
	}
	head := binary.BigEndian.AppendUint32([]byte(moveMagic), moveVersion)
	head = append(binary.BigEndian.AppendUint32(head, uint32(len(blob))), blob...)
	return id, append(head, make([]byte, moveHead-len(head))...), nil
}

// writeMove writes and syncs what comes after the head, which stays zeros. tx is closed and not committed.
func (tx *Tx) writeMove(out *outFile, id *age.X25519Identity) error {
	header, ledger, err := tx.unmoved()
	if err != nil {
		return err
	}
	copied, err := tx.snapshot(header, ledger)
	if err != nil {
		return err
	}
	defer copied.close()
	if _, err := out.Seek(moveHead, io.SeekStart); err != nil {
		return err
	}
	if err := encryptTo(out, []age.Recipient{id.Recipient()}, bytes.NewReader(tx.s.root.Reveal()), copied.reader()); err != nil {
		return err
	}
	return out.Sync()
}

// MoveIn makes the vault of a move file that was written for this board's TPM: with the same ID, audit trail and tokens, and with
// keys and counters of its own and setup's PIN. It never writes over anything. Recipients stay, unless setup has others.
func (v *Vault) MoveIn(file string, setup Setup) error {
	defer forgetSoon()
	v.writer.Lock()
	defer v.writer.Unlock()
	if err := v.vacant(); err != nil {
		return err
	}
	s, err := v.open()
	if err != nil {
		return err
	}
	defer s.Close()
	board, ok := s.(Board)
	if !ok {
		return errors.New("cannot take in the vault: this board's sealer is no TPM; restore a backup instead: tokendesk vault restore")
	}
	old, err := v.openMove(file, board)
	if err != nil {
		return fmt.Errorf("cannot take in %s: %w", file, otherCure(err))
	}
	defer old.release()
	d, err := draftOf(old.header().ID, s, setup.PIN, inherited(setup, old))
	if err != nil {
		return err
	}
	defer d.wipe()
	d.header.Created = old.header().Created
	act := audit.Act{Officer: setup.By, Action: "vault move in", Object: d.header.ID, Outcome: done,
		Reason: fmt.Sprintf("at epoch %d, from %s", old.ledger.Epoch, filepath.Base(file))}
	return v.inherit(d, old, setup.Identity, func(in commit) error {
		return in(func(tx *Tx) error { return tx.Audit(act) })
	})
}

// openMove opens what a move file carries.
func (v *Vault) openMove(path string, board Board) (*session, error) {
	src, size, err := openSource(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	head := make([]byte, moveHead)
	if _, err := io.ReadFull(src, head); err != nil {
		return nil, badBackup("it is no move file: it is too short")
	}
	blob, err := parseMoveHead(head)
	if err != nil {
		return nil, err
	}
	id, err := unwrapIdentity(board, blob)
	if err != nil {
		return nil, err
	}
	plain, err := decryptFrom(src, id)
	if err != nil {
		return nil, notDecrypted(err)
	}
	plain = &damageReader{r: plain}
	root, err := secret.Make(keySize, func(b []byte) error {
		_, err := io.ReadFull(plain, b)
		return err
	})
	if err != nil {
		return nil, badBackup("it is cut short: %w", err)
	}
	defer root.Wipe()
	f, err := receive(plain, size, v.path)
	if err != nil {
		return nil, err
	}
	old, err := openRoot(path, f, root)
	if err != nil {
		f.Close()
	}
	return old, err
}

// parseMoveHead returns the wrapped identity.
func parseMoveHead(head []byte) ([]byte, error) {
	if len(head) != moveHead || !bytes.HasPrefix(head, []byte(moveMagic)) {
		if len(bytes.Trim(head, "\x00")) == 0 {
			return nil, badBackup("it is no move file, or one that was never finished")
		}
		return nil, badBackup("it is no move file")
	}
	if version := binary.BigEndian.Uint32(head[len(moveMagic):]); version > moveVersion {
		return nil, newer("the move file", version, moveVersion)
	} else if version != moveVersion {
		return nil, badBackup("there are no move files of version %d", version)
	}
	n := binary.BigEndian.Uint32(head[len(moveMagic)+4:])
	if n == 0 || n > uint32(maxMoveBlob) {
		return nil, badBackup("its head is damaged")
	}
	end := moveBlobAt + int(n)
	blob, rest := head[moveBlobAt:end], head[end:]
	if len(bytes.Trim(rest, "\x00")) != 0 {
		return nil, badBackup("its head is damaged")
	}
	return blob, nil
}

// unwrapIdentity has the TPM give out the throw-away identity.
func unwrapIdentity(board Board, blob []byte) (id *age.X25519Identity, err error) {
	text, err := board.Unwrap(blob)
	if err != nil {
		return nil, err
	}
	defer text.Wipe()
	if text.Len() > maxMoveIdent {
		return nil, badBackup("its key has %d bytes", text.Len())
	}
	secret.Do(func() { id, err = age.ParseX25519Identity(string(text.Reveal())) })
	if err != nil {
		return nil, badBackup("its key is none") // age's error might show it
	}
	return id, nil
}
