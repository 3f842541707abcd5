package tpmseal

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

const (
	nonceSize = 16
	keyBits   = 128 // of AES for parameters, as the storage root key has it
	nameSize  = 2 + sha256.Size
	pointSize = 32 // a coordinate on P-256
)

// storageRoot is the storage root key while it is loaded.
type storageRoot struct {
	handle tpm2.TPMHandle
	parent
}

// parent is a storage root key's public side.
type parent struct {
	public tpm2.TPMTPublic
	bytes  []byte // TPMT_PUBLIC
	name   tpm2.TPM2BName
}

// templateHead is what every storage root key's public area begins with: all but the point.
var templateHead = func() []byte {
	b := tpm2.Marshal(tpm2.ECCSRKTemplate)
	return b[:len(b)-2*(2+pointSize)]
}()

// parseParent takes the public area of an ECC P-256 storage root key, and nothing else: whatever is wrapped for another
// key, or salted with one, could leave the TPM.
func parseParent(b []byte) (parent, error) {
	rest, ok := bytes.CutPrefix(b, templateHead)
	if !ok {
		return parent{}, errors.New("it is not the public area of a storage root key of the TCG's ECC P-256 template")
	}
	r := reader{rest: rest}
	x, y := r.field(pointSize), r.field(pointSize)
	if err := r.end(); err != nil {
		return parent{}, fmt.Errorf("the public area of the storage root key %w", err)
	}
	point := make([]byte, 1+2*pointSize)
	point[0] = 4 // uncompressed (SEC 1, 2.3.3)
	copy(point[1+pointSize-len(x):], x)
	copy(point[1+2*pointSize-len(y):], y)
	if _, err := ecdh.P256().NewPublicKey(point); err != nil {
		return parent{}, fmt.Errorf("the storage root key's point is not on P-256: %w", err)
	}
	p := parent{public: tpm2.ECCSRKTemplate, bytes: bytes.Clone(b)}
	p.public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: bytes.Clone(x)}, Y: tpm2.TPM2BECCParameter{Buffer: bytes.Clone(y)}})
	p.name.Buffer = nameOf(b)
	return p, nil
}

// nameOf is the Name of an object or an index whose Name algorithm is SHA-256 (TPM 2.0 Library, Part 1, 16).
func nameOf(public []byte) []byte {
	digest := sha256.Sum256(public)
	return append(binary.BigEndian.AppendUint16(nil, uint16(tpm2.TPMAlgSHA256)), digest[:]...)
}

// storageRoot makes the storage root key. Its Name is computed, not taken from the answer: sessions are salted to
// this very key.
func (t *TPM) storageRoot() (*storageRoot, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t.link)
	if err != nil {
		return nil, err
	}
	k := &storageRoot{handle: r.ObjectHandle}
	if k.parent, err = parseParent(r.OutPublic.Bytes()); err != nil {
		return nil, fmt.Errorf("the TPM's answer is no storage root key: %w", err)
	}
	if t.proven != nil && !bytes.Equal(t.proven, k.name.Buffer) {
		return nil, changed(errors.New("the TPM has another storage root key than a while ago"))
	}
	return k, nil
}

// is checks that the storage root key is the one with a Name.
func (k *storageRoot) is(name []byte) error {
	if !bytes.Equal(k.name.Buffer, name) {
		return changed(errors.New("this TPM has another storage root key than the one that the vault was sealed for"))
	}
	return nil
}

// auth authorizes by a session, or by the key's empty authorization value where nothing secret is sent.
func (k *storageRoot) auth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: s}
}

// session starts a session salted to the storage root key.
func (t *TPM) session(k *storageRoot, opts ...tpm2.AuthOption) (tpm2.Session, error) {
	// HMACSession and not HMAC: a failure inside the latter leaves the session behind. Its closer is not needed, since
	// the link keeps a list.
	s, _, err := tpm2.HMACSession(t.link, tpm2.TPMAlgSHA256, nonceSize, append(opts, tpm2.Salted(k.handle, k.public))...)
	return s, err
}

// owner authorizes by the owner hierarchy's empty password.
func owner() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
}
