// Package tpmseal seals a vault to the TPM of this board, with or without a PIN, and keeps its counters there.
//
// Under the TPM's storage root key (the TCG's ECC P-256 template, made anew for each use) lies a random secret. It and
// half of what Argon2id makes of the PIN give the key that encrypts what is sealed; the other half is the secret's
// authorization value, which the TPM lets nobody guess often. Every secret crosses the bus encrypted, in a session
// salted to the storage root key, whose Name is stored and compared. What this protects against:
//
//   - A copy of the disk is of no use without this TPM, and with a PIN none without the PIN.
//   - A bus that is listened to gives neither key nor PIN; one that is tampered with gives nothing either to a
//     program that has opened a seal. One that has not, and seals or makes a counter, trusts the TPM that it meets.
//   - With a PIN, a TPM that is broken or gives up its secrets still leaves the PIN to be guessed. A short one falls.
//   - What was sealed for a counter's value opens no more when the counter has passed it.
//
// What it does not protect against: without a PIN, any process on this board that may use the TPM and reads the file
// opens it. Root sees the secrets in the memory of whoever holds them. Whoever may use the TPM can remove a counter, as
// the owner hierarchy's password is empty, or use up the wrong PINs that the TPM bears, which is noticed and named but
// cannot be prevented. go-tpm leaves copies of secrets in memory: commands before their encryption, answers after their
// decryption, session keys and HMAC keys. Every operation is therefore under secret.Do, and the garbage collector erases
// them; it does not wait for an operation that waits for the TPM. What go-tpm hands out is wiped at once.
//
// It promises bounded waiting, no object or session left behind, and a vault.StateError for whatever fails in the TPM or
// in what a file holds. A connection that fails is dialled anew with the next use. A software TPM is recognised and named.
package tpmseal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
)

const socketPrefix = "unix:"

// TPM is an open TPM. It implements vault.Anchor and vault.Guesses and is safe for concurrent use.
type TPM struct {
	device string
	level  vault.Level
	costs  stretch.Params
	owned  bool // no resource manager in between: what is loaded is ours to flush

	mu      sync.Mutex // go-tpm does no locking
	link    *link
	proven  []byte   // Name of the storage root key under which a seal has opened
	orphans []orphan // counters whose making failed half-way
	closed  bool
}

// Options change how a TPM is used. The zero value is what Open takes.
type Options struct {
	Stretch  stretch.Params // costs for new PINs; zero means stretch.Default
	Patience time.Duration  // how long one operation waits for a busy TPM; zero means 15 s
}

const defaultPatience = 15 * time.Second

// Open opens a device node ("/dev/tpmrm0") or the raw command socket of an swtpm ("unix:/path"). It holds an swtpm's
// only connection until Close.
func Open(device string) (*TPM, error) { return OpenWith(device, Options{}) }

// OpenWith is Open with options.
func OpenWith(device string, o Options) (*TPM, error) {
	if path, ok := strings.CutPrefix(device, socketPrefix); ok {
		return openOn(device, func() (transport.TPMCloser, error) { return dial(path) }, true, o)
	}
	return openOn(device, func() (transport.TPMCloser, error) { return linuxtpm.Open(device) }, false, o)
}

func openOn(device string, dial func() (transport.TPMCloser, error), owned bool, o Options) (*TPM, error) {
	if o.Stretch == (stretch.Params{}) {
		o.Stretch = stretch.Default()
	}
	if err := o.Stretch.Validate(); err != nil {
		return nil, fmt.Errorf("cannot use the TPM %s: %w", device, err)
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	t := &TPM{device: device, costs: o.Stretch, owned: owned, link: &link{dial: dial, patience: o.Patience}}
	err := t.run("identify the TPM", func() (err error) {
		t.level, err = t.findLevel()
		return err
	})
	if err != nil {
		t.link.drop()
		return nil, err
	}
	return t, nil
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
		if err = t.connect(); err == nil {
			if err = t.flushAll(); err == nil {
				_, err = tpm2.Shutdown{ShutdownType: tpm2.TPMSUClear}.Execute(t.link)
			}
		}
	}
	if err = errors.Join(err, t.link.close()); err != nil {
		return fmt.Errorf("cannot close the TPM %s cleanly: %w", t.device, err)
	}
	return nil
}

// run does one operation. Whatever f loads into the TPM is flushed when it ends, however it ends.
func (t *TPM) run(what string, f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("cannot %s: the TPM %s is closed: %w", what, t.device, os.ErrClosed)
	}
	err := t.connect()
	if err == nil {
		// go-tpm copies authorization values, session keys and what is unsealed, and wipes nothing.
		secret.Do(func() { err = f() })
		t.settle(err)
	}
	return t.named(what, err)
}

// connect gets ready for an operation: a connection that was given up is made anew.
func (t *TPM) connect() error {
	fresh, err := t.link.connect()
	if err != nil {
		return t.openError(err)
	}
	if fresh && t.owned { // what an earlier client, or an earlier connection, has left
		if err := t.flushAll(); err != nil {
			t.link.drop()
			return err
		}
	}
	t.dropOrphans()
	return nil
}

// settle flushes what an operation has loaded. After an error that the TPM has not given itself, nothing is certain
// any more about what is loaded: the connection is given up, and the kernel, or the next connect, flushes.
func (t *TPM) settle(err error) {
	swept := t.link.sweep()
	if err == nil && swept == nil {
		return
	}
	var rc tpm2.TPMRC
	var state *vault.StateError
	told := err == nil || errors.As(err, &rc) || errors.As(err, &state) || errors.Is(err, vault.ErrStale)
	if swept != nil || !told || (t.owned && t.flushAll() != nil) {
		t.link.drop()
	}
}

// findLevel tells a chip from a program by what it says of itself. A socket is always a program.
func (t *TPM) findLevel() (vault.Level, error) {
	if t.owned {
		return vault.LevelEmulated, nil
	}
	maker, err := t.text(tpm2.TPMPTManufacturer, 1)
	if err != nil {
		return "", err
	}
	vendor, err := t.text(tpm2.TPMPTVendorString1, 4)
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

// text joins n properties that hold four characters each.
func (t *TPM) text(first tpm2.TPMPT, n int) (string, error) {
	list, err := t.properties(first, n)
	var out []byte
	for _, v := range list {
		out = binary.BigEndian.AppendUint32(out, v)
	}
	return string(bytes.TrimRight(bytes.ReplaceAll(out, []byte{0}, nil), " ")), err
}

// properties reads n properties that follow one another.
func (t *TPM) properties(first tpm2.TPMPT, n int) ([]uint32, error) {
	var values []uint32
	for len(values) < n { // a TPM may give fewer than it is asked for
		next := first + tpm2.TPMPT(len(values))
		r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(next), PropertyCount: uint32(n - len(values))}.Execute(t.link)
		if err != nil {
			return nil, err
		}
		list, err := r.CapabilityData.Data.TPMProperties()
		if err != nil {
			return nil, err
		}
		if len(list.TPMProperty) == 0 {
			return nil, fmt.Errorf("the TPM does not tell property %#x", uint32(next))
		}
		for i, p := range list.TPMProperty {
			if p.Property != next+tpm2.TPMPT(i) || len(values) == n {
				return nil, fmt.Errorf("asked for property %#x, the TPM tells %#x", uint32(next)+uint32(i), uint32(p.Property))
			}
			values = append(values, p.Value)
		}
	}
	return values, nil
}
