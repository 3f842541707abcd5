package tpmseal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// The handles that the owner of a board may use (TCG Registry of Reserved TPM 2.0 Handles, 2.2.2).
const (
	firstIndex = 0x01800000
	lastIndex  = 0x01BFFFFF
)

// A counter's name: version, handle (4 bytes, big endian), Name of the NV index once it is written.
const (
	counterVersion = 1
	counterSize    = 1 + 4 + nameSize
	maxDefines     = 16 // how often another program may take a free handle first
	maxMisses      = 10 // how often an index that may not be there is looked for
)

// counter is an NV index of the type counter.
type counter struct {
	handle tpm2.TPMHandle
	name   []byte
}

func (c counter) encode() []byte {
	return append(binary.BigEndian.AppendUint32([]byte{counterVersion}, uint32(c.handle)), c.name...)
}

func parseCounter(b []byte) (counter, error) {
	if len(b) != counterSize || b[0] != counterVersion {
		return counter{}, fmt.Errorf("%d bytes are not the name of a counter", len(b))
	}
	h := binary.BigEndian.Uint32(b[1:])
	if h < firstIndex || h > lastIndex {
		return counter{}, fmt.Errorf("no counter is kept at %#x", h)
	}
	return counter{tpm2.TPMHandle(h), bytes.Clone(b[5:])}, nil
}

// counterAttributes let auth alone increment, and anybody with the owner's empty password read, as the policy of a seal
// must. A wrong auth has no part in the lockout.
var counterAttributes = tpm2.TPMANV{NT: tpm2.TPMNTCounter, AuthWrite: true, AuthRead: true, OwnerRead: true, NoDA: true}

// definition is the public area of a counter. Nothing can fulfil the policy, and no attribute asks for it: it is there
// to give each counter a Name of its own, by which one that was defined again is told from the one that was.
func definition(handle tpm2.TPMHandle, unique []byte, written bool) tpm2.TPMSNVPublic {
	attributes := counterAttributes
	attributes.Written = written
	return tpm2.TPMSNVPublic{NVIndex: handle, NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes,
		AuthPolicy: tpm2.TPM2BDigest{Buffer: unique}, DataSize: 8}
}

// orphan is an index that may have been defined without anybody having got its name.
type orphan struct {
	handle tpm2.TPMHandle
	unique []byte
	misses int // how often it was looked for in vain
}

func lost(err error) error {
	return &vault.StateError{State: vault.StateCounterLost, Err: err,
		Cure: "the TPM was cleared or replaced, or somebody removed the counter: restore a backup with the recovery key"}
}

// counter finds a counter and checks that it is the one that was made.
func (t *TPM) counter(name []byte) (counter, error) {
	c, err := parseCounter(name)
	if err != nil {
		return counter{}, lost(err)
	}
	public, err := t.publicOf(c.handle)
	if err != nil {
		return counter{}, err
	}
	if public == nil {
		return counter{}, lost(fmt.Errorf("the TPM has no counter at %#x", uint32(c.handle)))
	}
	if !bytes.Equal(nameOf(public), c.name) {
		return counter{}, lost(fmt.Errorf("the counter at %#x is not the one that was made", uint32(c.handle)))
	}
	if !isCounter(public, c.handle) { // a name from a file that was tampered with
		return counter{}, lost(fmt.Errorf("what is at %#x is no counter of this program", uint32(c.handle)))
	}
	return c, nil
}

// publicOf returns the public area of the index at a handle, or nil if there is none.
func (t *TPM) publicOf(h tpm2.TPMHandle) ([]byte, error) {
	r, err := tpm2.NVReadPublic{NVIndex: h}.Execute(t.link)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.NVPublic.Bytes(), nil
}

func isCounter(public []byte, h tpm2.TPMHandle) bool {
	const policyAt = 4 + 2 + 4 + 2 // index, algorithm, attributes, size of the policy
	if len(public) != policyAt+nameSize-2+2 {
		return false
	}
	want := definition(h, public[policyAt:policyAt+nameSize-2], true)
	return bytes.Equal(public, tpm2.Marshal(want))
}

// NewCounter implements vault.Anchor. It writes the TPM's memory once.
func (t *TPM) NewCounter(auth secret.Secret) (name []byte, value uint64, err error) {
	defer runtime.KeepAlive(auth)
	if err := checkAuth(auth.Reveal()); err != nil {
		return nil, 0, fmt.Errorf("cannot make a counter in the TPM: %w", err)
	}
	err = t.run("make a counter in the TPM", func() (err error) {
		name, value, err = t.newCounter(auth)
		if err != nil {
			t.dropOrphans()
		}
		return err
	})
	return name, value, err
}

func (t *TPM) newCounter(auth secret.Secret) ([]byte, uint64, error) {
	k, err := t.storageRoot()
	if err != nil {
		return nil, 0, err
	}
	made, err := t.define(k, auth)
	if err != nil {
		return nil, 0, err
	}
	fresh := tpm2.Marshal(definition(made.handle, made.unique, false))
	// A counter has no value before its first increment, and another Name afterwards.
	if err := t.increment(k, counter{made.handle, nameOf(fresh)}, auth); err != nil {
		return nil, 0, err
	}
	c := counter{made.handle, nameOf(tpm2.Marshal(definition(made.handle, made.unique, true)))}
	value, err := t.count(k, c, auth)
	if err != nil {
		return nil, 0, err
	}
	t.orphans = slices.DeleteFunc(t.orphans, func(o orphan) bool { return bytes.Equal(o.unique, made.unique) })
	return c.encode(), value, nil
}

// define makes an index at a free handle. It is an orphan until it has a value.
func (t *TPM) define(k *storageRoot, auth secret.Secret) (orphan, error) {
	h := tpm2.TPMHandle(firstIndex)
	for range maxDefines {
		var err error
		if h, err = t.freeIndex(h); err != nil {
			return orphan{}, err
		}
		s, err := t.session(k, tpm2.AESEncryption(keyBits, tpm2.EncryptIn))
		if err != nil {
			return orphan{}, err
		}
		o := orphan{handle: h, unique: make([]byte, nameSize-2)}
		rand.Read(o.unique)
		t.orphans = append(t.orphans, o)
		_, err = tpm2.NVDefineSpace{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: s},
			Auth:       tpm2.TPM2BAuth{Buffer: auth.Reveal()},
			PublicInfo: tpm2.New2B(definition(h, o.unique, false)),
		}.Execute(t.link)
		if !errors.Is(err, tpm2.TPMRCNVDefined) {
			return o, err
		}
		if err := flush(t.link, s.Handle()); err != nil {
			return orphan{}, err
		}
	}
	return orphan{}, fmt.Errorf("other programs took %d free handles first", maxDefines)
}

// freeIndex finds the first free handle from h on.
func (t *TPM) freeIndex(h tpm2.TPMHandle) (tpm2.TPMHandle, error) {
	for h <= lastIndex {
		taken, err := t.handles(uint32(h))
		if err != nil {
			return 0, err
		}
		from := h
		for _, other := range taken {
			if other != h {
				break
			}
			h++
		}
		if len(taken) == 0 || int(h-from) < len(taken) {
			return h, nil
		}
	}
	return 0, errors.New("the TPM has no free handle for a counter")
}

// dropOrphans removes indices whose making failed half-way. What cannot be removed now is tried again later.
func (t *TPM) dropOrphans() {
	var left []orphan
	for _, o := range t.orphans {
		if o.misses++; !t.dropOrphan(o) && o.misses < maxMisses {
			left = append(left, o)
		}
	}
	t.orphans = left
}

func (t *TPM) dropOrphan(o orphan) bool {
	public, err := t.publicOf(o.handle)
	if err != nil {
		return false
	}
	for _, written := range []bool{false, true} {
		if bytes.Equal(public, tpm2.Marshal(definition(o.handle, o.unique, written))) {
			return t.undefine(counter{o.handle, nameOf(public)}) == nil
		}
	}
	return false // it is not there, or its answer was spoilt
}

func (t *TPM) undefine(c counter) error {
	_, err := tpm2.NVUndefineSpace{AuthHandle: owner(), NVIndex: c.named()}.Execute(t.link)
	return err
}

func (c counter) named() tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: c.handle, Name: tpm2.TPM2BName{Buffer: c.name}}
}

func (c counter) auth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: c.handle, Name: tpm2.TPM2BName{Buffer: c.name}, Auth: s}
}

// Count implements vault.Anchor.
func (t *TPM) Count(name []byte, auth secret.Secret) (value uint64, err error) {
	defer runtime.KeepAlive(auth)
	err = t.run("read a counter in the TPM", func() error {
		c, k, err := t.use(name)
		if err == nil {
			value, err = t.count(k, c, auth)
		}
		return err
	})
	return value, err
}

// Increment implements vault.Anchor.
func (t *TPM) Increment(name []byte, auth secret.Secret) error {
	defer runtime.KeepAlive(auth)
	return t.run("increment a counter in the TPM", func() error {
		c, k, err := t.use(name)
		if err == nil {
			err = t.increment(k, c, auth)
		}
		return err
	})
}

// DropCounter implements vault.Anchor.
func (t *TPM) DropCounter(name []byte) error {
	return t.run("remove a counter from the TPM", func() error {
		c, err := t.counter(name)
		if err != nil {
			return err
		}
		return t.undefine(c)
	})
}

func (t *TPM) use(name []byte) (counter, *storageRoot, error) {
	c, err := t.counter(name)
	if err != nil {
		return counter{}, nil, err
	}
	k, err := t.storageRoot()
	return c, k, err
}

func (t *TPM) count(k *storageRoot, c counter, auth secret.Secret) (uint64, error) {
	s, err := t.session(k, tpm2.Auth(auth.Reveal()))
	if err != nil {
		return 0, err
	}
	return t.value(c, c.auth(s))
}

func (t *TPM) value(c counter, by tpm2.AuthHandle) (uint64, error) {
	r, err := tpm2.NVRead{AuthHandle: by, NVIndex: c.named(), Size: 8}.Execute(t.link)
	if err != nil {
		return 0, gone(err)
	}
	if len(r.Data.Buffer) != 8 {
		return 0, fmt.Errorf("the TPM's counter has %d bytes", len(r.Data.Buffer))
	}
	return binary.BigEndian.Uint64(r.Data.Buffer), nil
}

func (t *TPM) increment(k *storageRoot, c counter, auth secret.Secret) error {
	s, err := t.session(k, tpm2.Auth(auth.Reveal()))
	if err != nil {
		return err
	}
	_, err = tpm2.NVIncrement{AuthHandle: c.auth(s), NVIndex: c.named()}.Execute(t.link)
	return gone(err)
}

// gone names the errors of an index that is not what it was. An authorization that fails is one of them: somebody has
// defined the index again, with the same public area and another auth.
func gone(err error) error {
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail, tpm2.TPMRCHandle, tpm2.TPMRCNVUninitialized, tpm2.TPMRCNVAuthorization, tpm2.TPMRCNVLocked} {
		if errors.Is(err, rc) {
			return lost(fmt.Errorf("the counter is not the one that was made: %w", err))
		}
	}
	return err
}

// reached checks, without a secret, that a mark's counter stands at its value. The TPM itself will check it again.
func (t *TPM) reached(m vault.Mark) error {
	if len(m.Counter) == 0 {
		return nil
	}
	c, err := t.counter(m.Counter)
	if err != nil {
		return err
	}
	now, err := t.value(c, owner())
	switch {
	case err != nil:
		return err
	case now > m.Value:
		return vault.ErrStale
	case now < m.Value:
		return lost(fmt.Errorf("it was sealed for the value %d of a counter that stands at %d", m.Value, now))
	}
	return nil
}
