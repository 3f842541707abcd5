package world

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"tokendesk/vault/vaulttest"
)

// How many wrong PINs the software TPM bears, and when it forgets one: swtpm's own limit of 3 would leave one to try.
const (
	guesses    = 12
	forgetting = 600 // seconds
)

// StartTPM starts the world's software TPM, with the state that it had, if any.
func (w *World) StartTPM() (err error) {
	dir := filepath.Join(w.Dir, "tpm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if w.TPM, w.stopTPM, err = vaulttest.StartSWTPMProcess(dir); err != nil {
		return err
	}
	return allow(strings.TrimPrefix(w.TPM, "unix:"))
}

// BackupDir is where the desk's backups are.
func (w *World) BackupDir() string { return filepath.Join(w.Dir, "backups") }

// Die takes the vault's file away and, if it is a software one, puts another TPM in the place of the desk's: what is left of the desk
// are its configuration, its backups and the recovery identity.
func (w *World) Die() error {
	if err := errors.Join(w.StopDaemon(), os.Remove(filepath.Join(w.Dir, "vault.db"))); err != nil {
		return err
	}
	if w.stopTPM != nil {
		if err := errors.Join(w.StopTPM(), os.RemoveAll(filepath.Join(w.Dir, "tpm")), w.StartTPM()); err != nil {
			return err
		}
	}
	return w.StartDaemon()
}

// StopTPM takes the software TPM away.
func (w *World) StopTPM() error { return w.stopTPM() }

// allow has an swtpm bear more wrong PINs: TPM2_DictionaryAttackParameters (TPM 2.0 Library, Part 3, 25.3), with the lockout
// hierarchy's empty password.
func allow(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	var body []byte
	for _, n := range []uint32{0x4000000A, 9, 0x40000009} { // TPM_RH_LOCKOUT, an authorization of 9 bytes, TPM_RS_PW
		body = binary.BigEndian.AppendUint32(body, n)
	}
	body = append(body, 0, 0, 0, 0, 0)
	for _, n := range []uint32{guesses, forgetting, forgetting} {
		body = binary.BigEndian.AppendUint32(body, n)
	}
	command := binary.BigEndian.AppendUint16(nil, 0x8002) // TPM_ST_SESSIONS
	command = binary.BigEndian.AppendUint32(command, uint32(10+len(body)))
	command = binary.BigEndian.AppendUint32(command, 0x13A)
	if _, err := conn.Write(append(command, body...)); err != nil {
		return err
	}
	answer := make([]byte, 10)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if rc := binary.BigEndian.Uint32(answer[6:]); rc != 0 {
		return fmt.Errorf("cannot set how many wrong PINs the TPM bears: it answers %#x", rc)
	}
	return nil
}
