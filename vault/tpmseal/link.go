package tpmseal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// How often a busy TPM is asked again.
const (
	firstPause = 2 * time.Millisecond
	maxPause   = 250 * time.Millisecond
)

var errLost = errors.New("the connection to the TPM is lost")

// errBusy means that a TPM was asked again and again and never took the command.
var errBusy = errors.New("the TPM stays busy")

// link is a connection to a TPM that is dialled anew after it has failed. It repeats commands that the TPM has not
// taken, and remembers what the TPM has loaded. It implements transport.TPM for one operation at a time.
type link struct {
	dial     func() (transport.TPMCloser, error)
	patience time.Duration

	conn     transport.TPMCloser // nil while there is none
	loaded   []tpm2.TPMHandle
	deadline time.Time // for the TPM to take the operation's commands; zero until it was busy for the first time
}

// connect begins an operation. It reports whether the connection is a fresh one.
func (l *link) connect() (fresh bool, err error) {
	l.deadline, l.loaded = time.Time{}, nil
	if l.conn != nil {
		return false, nil
	}
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		c, err := l.dial()
		if err == nil {
			l.conn = c
			return true, nil
		}
		if !errors.Is(err, syscall.EBUSY) || !l.wait(pause) { // /dev/tpm0 serves one program at a time
			return false, err
		}
	}
}

// wait pauses, unless the operation would then have waited for too long.
func (l *link) wait(pause time.Duration) bool {
	if l.deadline.IsZero() {
		l.deadline = time.Now().Add(l.patience)
	}
	if time.Now().Add(pause).After(l.deadline) {
		return false
	}
	<-time.After(pause)
	return true
}

// Send implements transport.TPM. Commands that were not taken may be sent again as they are: neither the TPM nor a
// session has changed (TPM 2.0 Library, Part 2, warning codes).
func (l *link) Send(command []byte) ([]byte, error) {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		if l.conn == nil {
			return nil, errLost
		}
		response, err := l.conn.Send(command)
		if why := busy(response, err); why != nil {
			if !l.wait(pause) {
				return nil, fmt.Errorf("%w for %s: %w", errBusy, l.patience, why)
			}
			continue
		}
		if err == nil {
			err = l.follow(command, response)
		}
		if err != nil {
			l.drop()
			return nil, fmt.Errorf("%w: %w", errLost, err)
		}
		return response, nil
	}
}

// busy returns why the TPM has not taken a command, or nil. linuxtpm, which asks again by itself for some seconds, then
// gives nothing at all.
func busy(response []byte, err error) error {
	switch {
	case err != nil && errors.Is(err, syscall.EBUSY):
		return err
	case err == nil && len(response) == 0:
		return tpm2.TPMRCRetry
	case err != nil || len(response) < headerSize:
		return nil
	}
	switch rc := tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])); rc {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable:
		return rc
	}
	return nil
}

// follow checks a response's frame and keeps the list of what is loaded.
func (l *link) follow(command, response []byte) error {
	if len(response) < headerSize || int64(binary.BigEndian.Uint32(response[2:])) != int64(len(response)) {
		return fmt.Errorf("an answer of %d bytes is not framed as a TPM's", len(response))
	}
	if binary.BigEndian.Uint32(response[6:]) != 0 {
		return nil
	}
	switch tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) {
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCStartAuthSession:
		if len(response) < headerSize+4 {
			return errors.New("an answer lacks its handle")
		}
		l.loaded = append(l.loaded, tpm2.TPMHandle(binary.BigEndian.Uint32(response[headerSize:])))
	case tpm2.TPMCCFlushContext:
		h := tpm2.TPMHandle(binary.BigEndian.Uint32(command[headerSize:]))
		l.loaded = slices.DeleteFunc(l.loaded, func(o tpm2.TPMHandle) bool { return o == h })
	}
	return nil
}

// sweep flushes what was loaded, the last first.
func (l *link) sweep() error {
	for _, h := range slices.Backward(slices.Clone(l.loaded)) {
		if err := flush(l, h); err != nil {
			return err
		}
	}
	return nil
}

// drop gives up the connection.
func (l *link) drop() { l.close() }

func (l *link) close() error {
	if l.conn == nil {
		return nil
	}
	err := l.conn.Close()
	l.conn = nil
	return err
}

func flush(t transport.TPM, h tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: h}.Execute(t)
	return err
}

// Handle ranges: TPM 2.0 Library, Part 2, TPM_HT.
const (
	transientObjects = 0x80000000
	loadedSessions   = 0x02000000
	savedSessions    = 0x03000000
	maxHandles       = 64
)

// handles lists up to maxHandles of a range, from first on.
func (t *TPM) handles(first uint32) ([]tpm2.TPMHandle, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: maxHandles}.Execute(t.link)
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
			if err := flush(t.link, h); err != nil {
				return err
			}
		}
	}
	return nil
}
