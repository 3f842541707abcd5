// Package tpmseal seals a vault to the TPM of this board.
//
// The vault's secret becomes a sealed data object under the TPM's storage root key (the TCG's ECC P-256
// template, made anew for each use), so that a copy of the disk is of no use elsewhere. Every secret crosses
// the bus encrypted, in a session salted to the storage root key, whose Name is stored and compared: a bus
// that is listened to gives nothing, and one that is tampered with gives nothing once sealing was done. It does
// not protect against a process on this board that may use the TPM and read the file; a PIN would.
//
// It promises bounded waiting on a software TPM, no object or session left behind, and a vault.StateError
// for every condition that an officer can do something about. A software TPM is recognised and named.
package tpmseal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"tokendesk/vault"
)

const socketPrefix = "unix:"

// TPM is an open TPM. It implements vault.Sealer and is safe for concurrent use.
type TPM struct {
	device string
	level  vault.Level
	owned  bool // no resource manager in between: what is loaded is ours to flush

	mu     sync.Mutex // go-tpm does no locking
	tpm    transport.TPMCloser
	closed bool
}

// Open opens a device node ("/dev/tpmrm0") or the raw command socket of an swtpm ("unix:/path").
func Open(device string) (*TPM, error) {
	path, isSocket := strings.CutPrefix(device, socketPrefix)
	var t transport.TPMCloser
	var err error
	if isSocket {
		t, err = dial(path)
	} else {
		t, err = linuxtpm.Open(path)
	}
	if err != nil {
		return nil, openError(path, isSocket, err)
	}
	tpm, err := use(device, t, isSocket)
	if err != nil {
		t.Close()
		return nil, err
	}
	return tpm, nil
}

// use takes over a transport.
func use(device string, t transport.TPMCloser, owned bool) (*TPM, error) {
	tpm := &TPM{device: device, tpm: t, owned: owned}
	if owned {
		if err := tpm.flushAll(); err != nil { // what a client that was killed has left
			return nil, tpm.failed("use the TPM", err)
		}
	}
	var err error
	if tpm.level, err = tpm.findLevel(); err != nil {
		return nil, tpm.failed("identify the TPM", err)
	}
	return tpm, nil
}

// Kind implements vault.Sealer.
func (t *TPM) Kind() string { return "tpm" }

// Level implements vault.Sealer.
func (t *TPM) Level() vault.Level { return t.level }

// Close releases the TPM; a second Close does nothing. A software TPM is told to shut down in order, because it
// counts an unannounced end as a failed authorization (TPM 2.0 Library, Part 1, dictionary attack protection).
func (t *TPM) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	var err error
	if t.owned {
		err = t.flushAll()
		if err == nil {
			_, err = tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(t.tpm)
		}
	}
	if err = errors.Join(err, t.tpm.Close()); err != nil {
		return fmt.Errorf("cannot close the TPM %s cleanly: %w", t.device, err)
	}
	return nil
}

// findLevel tells a chip from a program by what it says of itself. A socket is always a program.
func (t *TPM) findLevel() (vault.Level, error) {
	if t.owned {
		return vault.LevelEmulated, nil
	}
	maker, err := t.text(tpm2.TPMPTManufacturer)
	if err != nil {
		return "", err
	}
	vendor, err := t.text(tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4)
	if err != nil {
		return "", err
	}
	return levelOf(maker, vendor), nil
}

// levelOf knows libtpms (IBM, "SW  TPM"; also behind QEMU) and the reference simulator ("xCG fTPM"; also in virtual machines).
func levelOf(maker, vendor string) vault.Level {
	if (maker == "IBM" && strings.HasPrefix(vendor, "SW")) || strings.HasPrefix(vendor, "xCG") {
		return vault.LevelEmulated
	}
	return vault.LevelTPM
}

// text joins properties that hold four characters each.
func (t *TPM) text(properties ...tpm2.TPMPT) (string, error) {
	var out []byte
	for _, p := range properties {
		v, err := t.property(p)
		if err != nil {
			return "", err
		}
		out = binary.BigEndian.AppendUint32(out, v)
	}
	return string(bytes.TrimRight(bytes.ReplaceAll(out, []byte{0}, nil), " ")), nil
}

func (t *TPM) property(p tpm2.TPMPT) (uint32, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(p), PropertyCount: 1}.Execute(t.tpm)
	if err != nil {
		return 0, err
	}
	list, err := r.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, err
	}
	if len(list.TPMProperty) == 0 || list.TPMProperty[0].Property != p {
		return 0, fmt.Errorf("the TPM does not tell property %#x", uint32(p))
	}
	return list.TPMProperty[0].Value, nil
}

// Handle ranges: TPM 2.0 Library, Part 2, TPM_HT.
const (
	transientObjects = 0x80000000
	loadedSessions   = 0x02000000
	savedSessions    = 0x03000000
	maxHandles       = 64
)

// handles lists what is loaded in a range.
func (t *TPM) handles(first uint32) ([]tpm2.TPMHandle, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: maxHandles}.Execute(t.tpm)
	if err != nil {
		return nil, err
	}
	list, err := r.CapabilityData.Data.Handles()
	if err != nil {
		return nil, err
	}
	return list.Handle, nil
}

func (t *TPM) flushAll() error {
	for _, first := range []uint32{transientObjects, loadedSessions, savedSessions} {
		list, err := t.handles(first)
		if err != nil {
			return err
		}
		for _, h := range list {
			if err := t.flush(h); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *TPM) flush(h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(t.tpm)
	return err
}

func openError(path string, isSocket bool, err error) error {
	err = fmt.Errorf("cannot open the TPM: %w", err)
	if errors.Is(err, fs.ErrPermission) {
		return &vault.StateError{State: vault.StatePermission, Err: err,
			Cure: fmt.Sprintf("add this user to the group that owns %s (tss, usually), and log in again", path)}
	}
	cure := "enable the TPM in the firmware setup, or use a passphrase"
	if isSocket {
		cure = "start the software TPM, or use a passphrase"
	}
	return &vault.StateError{State: vault.StateTPMAbsent, Err: err, Cure: cure}
}

// failed names an error of a TPM command.
func (t *TPM) failed(op string, err error) error {
	var state *vault.StateError
	if errors.As(err, &state) {
		return err
	}
	err = fmt.Errorf("cannot %s: %w", op, err)
	var rc tpm2.TPMRC
	switch {
	case errors.Is(err, tpm2.TPMRCIntegrity):
		return changed(err)
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		return fmt.Errorf("%w; if the TPM's owner hierarchy has a password, it must be empty for this use", err)
	case errors.As(err, &rc):
		return err
	}
	return &vault.StateError{State: vault.StateTPMAbsent, Err: err,
		Cure: fmt.Sprintf("see that %s works and that no other program holds it, then open it again", t.device)}
}

func changed(err error) error {
	return &vault.StateError{State: vault.StateTPMChanged, Err: err,
		Cure: "put the disk back into the board that sealed it; if this is the one, its TPM was cleared or replaced, or the vault altered: put back a backup that opens here"}
}
