package tpmseal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

const (
	maxSealed = 128 // MAX_SYM_DATA of the PC Client profile
	nonceSize = 16
	authBytes = 24 // in base64url exactly the 32 characters that a SHA-256 object can have
	keyBits   = 128
)

// Seal implements vault.Sealer. The plain secret passes through buffers of go-tpm that cannot be wiped.
func (t *TPM) Seal(s secret.Secret) ([]byte, error) {
	if s.IsZero() || s.Len() > maxSealed {
		return nil, fmt.Errorf("cannot seal %d bytes to a TPM: it takes 1 to %d", s.Len(), maxSealed)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(); err != nil {
		return nil, err
	}
	b, err := t.seal(s)
	if err != nil {
		return nil, t.failed("seal to the TPM", err)
	}
	return b.encode()
}

// Unseal implements vault.Sealer.
func (t *TPM) Unseal(p []byte) (secret.Secret, error) {
	b, err := decodeBlob(p)
	if err != nil {
		return secret.Secret{}, &vault.StateError{State: vault.StateCorrupt,
			Err: fmt.Errorf("cannot unseal: %w", err), Cure: "put back a backup of the vault"}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(); err != nil {
		return secret.Secret{}, err
	}
	s, err := t.unseal(b)
	if err != nil {
		s.Wipe()
		return secret.Secret{}, t.failed("unseal with the TPM", err)
	}
	return s, nil
}

func (t *TPM) usable() error {
	if t.closed {
		return fmt.Errorf("cannot use the TPM %s: %w", t.device, os.ErrClosed)
	}
	return nil
}

// storageRoot is the storage root key while it is loaded.
type storageRoot struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

func (t *TPM) storageRoot() (*storageRoot, error) {
	r, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t.tpm)
	if err != nil {
		return nil, err
	}
	k := &storageRoot{handle: r.ObjectHandle}
	public, err := r.OutPublic.Contents()
	if err == nil {
		k.public = *public
		// The Name is computed, not taken from the answer: sessions are salted to this very key.
		var name *tpm2.TPM2BName
		if name, err = tpm2.ObjectName(public); err == nil {
			k.name = *name
			return k, nil
		}
	}
	return nil, errors.Join(err, t.flush(k.handle))
}

// auth authorizes by a session, or by the key's empty authorization value where nothing secret is sent.
func (k *storageRoot) auth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: s}
}

// session starts a session that encrypts parameters. The caller calls end.
func (t *TPM) session(k *storageRoot, opts ...tpm2.AuthOption) (s tpm2.Session, end func() error, err error) {
	// HMACSession and not HMAC: a failure inside the latter leaves the session behind.
	return tpm2.HMACSession(t.tpm, tpm2.TPMAlgSHA256, nonceSize, append(opts, tpm2.Salted(k.handle, k.public))...)
}

func (t *TPM) seal(plain secret.Secret) (b *blob, err error) {
	k, err := t.storageRoot()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.flush(k.handle)) }()
	s, end, err := t.session(k, tpm2.AESEncryption(keyBits, tpm2.EncryptIn))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	auth := authValue()
	r, err := tpm2.Create{
		ParentHandle: k.auth(s),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: auth},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: plain.Reveal()}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:    tpm2.TPMAlgKeyedHash,
			NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{
				FixedTPM: true, FixedParent: true, UserWithAuth: true,
				NoDA: true, // nothing to guess here, and the lockout is shared with disk encryption
			},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
				Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
			}),
		}),
	}.Execute(t.tpm)
	if err != nil {
		return nil, err
	}
	return &blob{srk: k.name.Buffer, public: r.OutPublic.Bytes(), private: r.OutPrivate.Buffer, auth: auth}, nil
}

// authValue is free of zero bytes, at which go-tpm v0.9.8 would cut it (go-tpm#446).
func authValue() []byte {
	r := secret.Random(authBytes)
	defer r.Wipe()
	return []byte(base64.RawURLEncoding.EncodeToString(r.Reveal()))
}

func (t *TPM) unseal(b *blob) (plain secret.Secret, err error) {
	k, err := t.storageRoot()
	if err != nil {
		return plain, err
	}
	defer func() { err = errors.Join(err, t.flush(k.handle)) }()
	if !bytes.Equal(k.name.Buffer, b.srk) {
		return plain, changed(errors.New("this TPM has another storage root key than the one that sealed the vault"))
	}
	object, err := tpm2.Load{
		ParentHandle: k.auth(tpm2.PasswordAuth(nil)),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: b.private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](b.public),
	}.Execute(t.tpm)
	if err != nil {
		return plain, err
	}
	defer func() { err = errors.Join(err, t.flush(object.ObjectHandle)) }()
	s, end, err := t.session(k, tpm2.Auth(b.auth), tpm2.AESEncryption(keyBits, tpm2.EncryptOut))
	if err != nil {
		return plain, err
	}
	defer func() { err = errors.Join(err, end()) }()
	r, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: s}}.Execute(t.tpm)
	if err != nil {
		return plain, err
	}
	return secret.New(r.OutData.Buffer), nil // wipes the buffer
}
