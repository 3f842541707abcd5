package tpmseal

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault"
)

func (t *TPM) openError(err error) error {
	path, isSocket := strings.CutPrefix(t.device, socketPrefix)
	err = fmt.Errorf("cannot open the TPM: %w", err)
	if errors.Is(err, fs.ErrPermission) {
		return &vault.StateError{State: vault.StatePermission, Err: err,
			Cure: fmt.Sprintf("add this user to the group that owns %s (tss, usually), and log in again", path)}
	}
	cure := "enable the TPM in the firmware setup, or use a passphrase"
	switch {
	case isSocket:
		cure = "start the software TPM, or use a passphrase"
	case errors.Is(err, syscall.EBUSY):
		cure = "another program holds the TPM: use /dev/tpmrm0, which serves many, or end the other program"
	}
	return &vault.StateError{State: vault.StateTPMAbsent, Err: err, Cure: cure}
}

// named gives every failure of an operation its state.
func (t *TPM) named(what string, err error) error {
	if err == nil {
		return nil
	}
	var state *vault.StateError
	if errors.As(err, &state) {
		return err
	}
	err = fmt.Errorf("cannot %s: %w", what, err)
	var rc tpm2.TPMRC
	absent := func(cure string) error {
		return &vault.StateError{State: vault.StateTPMAbsent, Err: err, Cure: cure}
	}
	switch {
	case errors.Is(err, vault.ErrStale):
		return err
	case errors.Is(err, errBusy):
		return absent("try again in a moment, and see whether another program keeps the TPM busy")
	case errors.Is(err, tpm2.TPMRCIntegrity):
		return changed(err)
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		return &vault.StateError{State: vault.StatePermission, Err: err,
			Cure: "the TPM's owner hierarchy has a password: it must be empty for this use (tpm2_changeauth -c owner)"}
	case errors.Is(err, tpm2.TPMRCHierarchy):
		return absent("enable the TPM's storage (owner) hierarchy in the firmware setup")
	case errors.Is(err, tpm2.TPMRCNVSpace):
		return absent("make room in the TPM: look at tpm2_getcap handles-nv-index, and remove with tpm2_nvundefine what no program needs")
	case errors.Is(err, tpm2.TPMRCFailure):
		return absent("the TPM has stopped itself: switch the board off and on")
	case errors.As(err, &rc):
		return absent("the TPM refuses to work: see the journal of the kernel, and restart the board if it goes on")
	}
	return absent(fmt.Sprintf("see that %s works and that no other program holds it, then try again", t.device))
}

func changed(err error) error {
	return &vault.StateError{State: vault.StateTPMChanged, Err: err,
		Cure: "put the disk back into the board that sealed it; if this is the one, its TPM was cleared or replaced, or the vault altered: restore a backup with the recovery key"}
}

func corrupt(err error) error {
	return &vault.StateError{State: vault.StateCorrupt, Err: err, Cure: "put back a backup of the vault"}
}

// blame names what is wrong with data from a file that the TPM does not take. A TPM that refuses an area's form, and
// not the command, answers with a format-one code (TPM 2.0 Library, Part 2, 6.6.2).
func blame(err error) error {
	var about tpm2.TPMFmt1Error
	switch {
	case err == nil || errors.Is(err, errBusy) || errors.Is(err, errLost):
		return err
	case errors.Is(err, tpm2.TPMRCIntegrity):
		return changed(fmt.Errorf("this TPM did not make the sealed key: %w", err))
	case errors.As(err, &about):
		return corrupt(fmt.Errorf("the TPM does not take the sealed key: %w", err))
	}
	return err
}
