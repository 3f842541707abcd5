package tpmseal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

const objectSize = 32 // of the secret that the TPM guards

// Seal implements vault.Sealer. It takes 1 byte to 1 KiB. A value that at's counter has not reached yet is taken: the
// blob opens once it has.
func (t *TPM) Seal(plain, key secret.Secret, at vault.Mark) ([]byte, error) {
	defer runtime.KeepAlive(plain)
	if plain.IsZero() || plain.Len() > maxPlain {
		return nil, fmt.Errorf("cannot seal %d bytes to a TPM: it takes 1 to %d", plain.Len(), maxPlain)
	}
	if len(at.Counter) == 0 && at.Value != 0 {
		return nil, errors.New("cannot seal for a time without a counter")
	}
	k, err := splitKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot seal to the TPM: %w", err)
	}
	defer k.wipe()
	b := &blob{version: blobVersion, mark: vault.Mark{Counter: bytes.Clone(at.Counter), Value: at.Value}, recipe: k.recipe}
	if k.isZero() {
		k.auth = randomAuth()
		b.auth = bytes.Clone(k.auth.Reveal())
	}
	object := secret.Random(objectSize)
	defer object.Wipe()
	if err := t.run("seal to the TPM", func() error { return t.create(b, object, k.auth) }); err != nil {
		return nil, err
	}
	if err := b.seal(plain, object, k.half); err != nil {
		return nil, fmt.Errorf("cannot seal to the TPM: %w", err)
	}
	return b.encode(), nil
}

// create makes the object that guards a secret, and puts it into b.
func (t *TPM) create(b *blob, object, auth secret.Secret) error {
	if len(b.mark.Counter) != 0 {
		if _, err := t.counter(b.mark.Counter); err != nil {
			return err
		}
	}
	public, err := b.template()
	if err != nil {
		return err
	}
	k, err := t.storageRoot()
	if err != nil {
		return err
	}
	s, err := t.session(k, tpm2.AESEncryption(keyBits, tpm2.EncryptIn))
	if err != nil {
		return err
	}
	r, err := tpm2.Create{
		ParentHandle: k.auth(s),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: auth.Reveal()},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: object.Reveal()}),
		}},
		InPublic: tpm2.New2B(public),
	}.Execute(t.link)
	if err != nil {
		return err
	}
	b.srk, b.public, b.private = k.name.Buffer, bytes.Clone(r.OutPublic.Bytes()), bytes.Clone(r.OutPrivate.Buffer)
	if err := b.checkPublic(); err != nil {
		return fmt.Errorf("the TPM has made something else: %w", err)
	}
	return nil
}

// template is the public area of the object that guards a secret. Only its policy opens it.
func (b *blob) template() (tpm2.TPMTPublic, error) {
	policy, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return tpm2.TPMTPublic{}, err
	}
	if len(b.mark.Counter) != 0 {
		c, err := parseCounter(b.mark.Counter)
		if err != nil {
			return tpm2.TPMTPublic{}, err
		}
		if err := c.equals(b.mark.Value).Update(policy); err != nil {
			return tpm2.TPMTPublic{}, err
		}
	}
	if err := (tpm2.PolicyAuthValue{}).Update(policy); err != nil {
		return tpm2.TPMTPublic{}, err
	}
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgKeyedHash,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true,
			NoDA: !b.hasPIN(), // without a PIN there is nothing to guess, and the lockout is shared with disk encryption
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy.Hash().Digest},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
			Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: make([]byte, nameSize-2)}),
	}, nil
}

// checkPublic compares the object's public area with the template, all but the digest at its end.
func (b *blob) checkPublic() error {
	want, err := b.template()
	if err != nil {
		return err
	}
	bare := tpm2.Marshal(want)
	fixed := len(bare) - (nameSize - 2)
	if len(b.public) != len(bare) || !bytes.Equal(b.public[:fixed], bare[:fixed]) {
		return errors.New("the sealed key's public area is not what this program makes")
	}
	return nil
}

// Unseal implements vault.Sealer.
func (t *TPM) Unseal(p []byte, key secret.Secret) (secret.Secret, error) {
	b, err := decodeBlob(p)
	if err != nil {
		return secret.Secret{}, corrupt(fmt.Errorf("cannot unseal: %w", err))
	}
	k, err := splitKey(key)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("cannot unseal: %w", err)
	}
	defer k.wipe()
	if b.hasPIN() == k.isZero() {
		return secret.Secret{}, t.mismatch(b)
	}
	if !bytes.Equal(b.recipe, k.recipe) {
		return secret.Secret{}, errors.New("cannot unseal: the key was made for another blob")
	}
	if !b.hasPIN() {
		k.auth = secret.New(bytes.Clone(b.auth))
	}
	var plain secret.Secret
	err = t.run("unseal with the TPM", func() (err error) {
		if b.version == oldVersion {
			plain, err = t.releaseOld(b, k.auth)
		} else {
			plain, err = t.unseal(b, k)
		}
		if err == nil {
			t.proven = bytes.Clone(b.srk)
		}
		return err
	})
	return plain, err
}

func (t *TPM) unseal(b *blob, key pinKey) (secret.Secret, error) {
	object, err := t.release(b, key.auth)
	if err != nil {
		return secret.Secret{}, err
	}
	defer object.Wipe()
	return b.open(object, key.half)
}

// release asks the TPM for the secret that it guards. Everything that can be known to fail costs no guess.
func (t *TPM) release(b *blob, auth secret.Secret) (secret.Secret, error) {
	k, err := t.storageRoot()
	if err != nil {
		return secret.Secret{}, err
	}
	if err := k.is(b.srk); err != nil {
		return secret.Secret{}, err
	}
	if err := t.reached(b.mark); err != nil {
		return secret.Secret{}, err
	}
	var before attempts
	if b.hasPIN() {
		if before, err = t.attempts(); err != nil {
			return secret.Secret{}, err
		}
		if err := before.refusal(); err != nil {
			return secret.Secret{}, err
		}
	}
	out, err := t.open(k, b, auth)
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, tpm2.TPMRCPolicy) && len(b.mark.Counter) != 0:
		return out, vault.ErrStale // it was reached a moment ago, and counters only go up
	case b.hasPIN() && errors.Is(err, tpm2.TPMRCAuthFail):
		before.failed++
		if now, err := t.attempts(); err == nil {
			before = now
		}
		return out, before.wrongPIN()
	case b.hasPIN() && errors.Is(err, tpm2.TPMRCLockout):
		if now, err := t.attempts(); err == nil {
			before = now
		}
		return out, before.lockout(err)
	}
	return out, blame(err)
}

// open fulfils the object's policy and reads it.
func (t *TPM) open(k *storageRoot, b *blob, auth secret.Secret) (secret.Secret, error) {
	object, err := t.load(k, b.public, b.private)
	if err != nil {
		return secret.Secret{}, err
	}
	s, _, err := tpm2.PolicySession(t.link, tpm2.TPMAlgSHA256, nonceSize,
		tpm2.Auth(auth.Reveal()), tpm2.AESEncryption(keyBits, tpm2.EncryptOut), tpm2.Salted(k.handle, k.public))
	if err != nil {
		return secret.Secret{}, err
	}
	if len(b.mark.Counter) != 0 {
		c, err := parseCounter(b.mark.Counter)
		if err != nil {
			return secret.Secret{}, err
		}
		equals := c.equals(b.mark.Value)
		equals.PolicySession = s.Handle()
		if _, err := equals.Execute(t.link); err != nil {
			return secret.Secret{}, err
		}
	}
	if _, err := (tpm2.PolicyAuthValue{PolicySession: s.Handle()}).Execute(t.link); err != nil {
		return secret.Secret{}, err
	}
	return t.read(object, b.public, s)
}

func (t *TPM) load(k *storageRoot, public, private []byte) (tpm2.TPMHandle, error) {
	r, err := tpm2.Load{
		ParentHandle: k.auth(tpm2.PasswordAuth(nil)),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](public),
	}.Execute(t.link)
	if err != nil {
		return 0, err
	}
	return r.ObjectHandle, nil
}

func (t *TPM) read(object tpm2.TPMHandle, public []byte, s tpm2.Session) (secret.Secret, error) {
	name := tpm2.TPM2BName{Buffer: nameOf(public)}
	r, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object, Name: name, Auth: s}}.Execute(t.link)
	if err != nil {
		return secret.Secret{}, err
	}
	return secret.New(r.OutData.Buffer), nil // wipes the buffer
}

// releaseOld opens a blob of version 1, whose object holds the sealed secret itself and opens with auth alone.
func (t *TPM) releaseOld(b *blob, auth secret.Secret) (secret.Secret, error) {
	k, err := t.storageRoot()
	if err != nil {
		return secret.Secret{}, err
	}
	if err := k.is(b.srk); err != nil {
		return secret.Secret{}, err
	}
	object, err := t.load(k, b.public, b.private)
	if err != nil {
		return secret.Secret{}, blame(err)
	}
	s, err := t.session(k, tpm2.Auth(auth.Reveal()), tpm2.AESEncryption(keyBits, tpm2.EncryptOut))
	if err != nil {
		return secret.Secret{}, err
	}
	plain, err := t.read(object, b.public, s)
	return plain, blame(err)
}

// equals is the policy that a counter stands at a value.
func (c counter) equals(value uint64) tpm2.PolicyNV {
	return tpm2.PolicyNV{
		AuthHandle: owner(),
		NVIndex:    tpm2.NamedHandle{Handle: c.handle, Name: tpm2.TPM2BName{Buffer: c.name}},
		OperandB:   tpm2.TPM2BOperand{Buffer: binary.BigEndian.AppendUint64(nil, value)},
		Operation:  tpm2.TPMEOEq,
	}
}
