package tpmseal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"tokendesk/vault/secret"
)

// A wrapped secret: version (1 byte) and four fields as in a blob. Its object opens with an empty authorization value,
// on the one TPM whose storage root key it is encrypted to (TPM 2.0 Library, Part 1, 23.3.2.4, outer wrapper).
const (
	wrappedVersion = 1
	maxWrapped     = 128 // MAX_SYM_DATA of the PC Client profile
)

type wrapped struct {
	srk       []byte // Name of the storage root key that it is for
	public    []byte
	duplicate []byte
	seed      []byte
}

func (w *wrapped) encode() []byte {
	out := []byte{wrappedVersion}
	for _, f := range [][]byte{w.srk, w.public, w.duplicate, w.seed} {
		out = appendField(out, f)
	}
	return out
}

func decodeWrapped(b []byte) (*wrapped, error) {
	if len(b) == 0 || b[0] != wrappedVersion {
		return nil, fmt.Errorf("it does not begin as a wrapped secret of version %d", wrappedVersion)
	}
	r := reader{rest: b[1:]}
	w := &wrapped{r.field(nameSize), r.field(maxField), r.field(maxField), r.field(maxField)}
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("the wrapped secret %w", err)
	}
	if len(w.srk) != nameSize || len(w.duplicate) == 0 || len(w.seed) == 0 {
		return nil, errors.New("the wrapped secret lacks a part")
	}
	bare := tpm2.Marshal(wrappedPublic(make([]byte, sha256.Size)))
	if fixed := len(bare) - sha256.Size; len(w.public) != len(bare) || !bytes.Equal(w.public[:fixed], bare[:fixed]) {
		return nil, errors.New("the wrapped secret's public area is not what this program makes")
	}
	return w, nil
}

func wrappedPublic(unique []byte) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgKeyedHash,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, NoDA: true}, // not fixed: it comes from elsewhere
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
			Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: unique}),
	}
}

// Parent returns the public area of this TPM's storage root key, for Wrap and Fingerprint elsewhere.
func (t *TPM) Parent() (public []byte, err error) {
	err = t.run("read the TPM's storage root key", func() error {
		k, err := t.storageRoot()
		if err == nil {
			public = k.bytes
		}
		return err
	})
	return public, err
}

// Fingerprint names a storage root key in eight groups of four hexadecimal digits. Compare it with what the other
// board shows: nothing else tells whose key a public area is.
func Fingerprint(public []byte) (string, error) {
	p, err := parseParent(public)
	if err != nil {
		return "", fmt.Errorf("cannot tell the TPM's fingerprint: %w", err)
	}
	digest := sha256.Sum256(append([]byte("tokendesk storage root key\x00"), p.name.Buffer...))
	digits := hex.EncodeToString(digest[:16])
	var groups []string
	for ; digits != ""; digits = digits[4:] {
		groups = append(groups, digits[:4])
	}
	return strings.Join(groups, " "), nil
}

// Wrap encrypts 1 to 128 bytes to the TPM whose storage root key is given: only its Unwrap opens them. It uses no TPM.
// It does not say who has wrapped them.
func Wrap(public []byte, s secret.Secret) ([]byte, error) {
	p, err := parseParent(public)
	if err != nil {
		return nil, fmt.Errorf("cannot wrap for another TPM: %w", err)
	}
	if s.IsZero() || s.Len() > maxWrapped {
		return nil, fmt.Errorf("cannot wrap %d bytes for another TPM: it takes 1 to %d", s.Len(), maxWrapped)
	}
	w := &wrapped{srk: p.name.Buffer}
	secret.Do(func() { err = w.encrypt(p, s) })
	runtime.KeepAlive(s)
	if err != nil {
		return nil, fmt.Errorf("cannot wrap for another TPM: %w", err)
	}
	return w.encode(), nil
}

func (w *wrapped) encrypt(p parent, s secret.Secret) error {
	key, err := tpm2.ImportEncapsulationKey(&p.public)
	if err != nil {
		return err
	}
	blinding := secret.Random(sha256.Size)
	defer blinding.Wipe()
	h := sha256.New()
	h.Write(blinding.Reveal())
	h.Write(s.Reveal())
	w.public = tpm2.Marshal(wrappedPublic(h.Sum(nil)))
	sensitive := tpm2.Marshal(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgKeyedHash,
		SeedValue:     tpm2.TPM2BDigest{Buffer: blinding.Reveal()},
		Sensitive:     tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BSensitiveData{Buffer: s.Reveal()}),
	})
	defer clear(sensitive)
	w.duplicate, w.seed, err = tpm2.CreateDuplicate(rand.Reader, key, nameOf(w.public), sensitive)
	return err
}

// Unwrap opens what Wrap has made for this TPM.
func (t *TPM) Unwrap(b []byte) (s secret.Secret, err error) {
	w, err := decodeWrapped(b)
	if err != nil {
		return secret.Secret{}, corrupt(fmt.Errorf("cannot unwrap: %w", err))
	}
	err = t.run("unwrap with the TPM", func() (err error) {
		s, err = t.unwrap(w)
		return err
	})
	return s, err
}

func (t *TPM) unwrap(w *wrapped) (secret.Secret, error) {
	k, err := t.storageRoot()
	if err != nil {
		return secret.Secret{}, err
	}
	if err := k.is(w.srk); err != nil {
		return secret.Secret{}, err
	}
	r, err := tpm2.Import{
		ParentHandle: k.auth(tpm2.PasswordAuth(nil)),
		ObjectPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](w.public),
		Duplicate:    tpm2.TPM2BPrivate{Buffer: w.duplicate},
		InSymSeed:    tpm2.TPM2BEncryptedSecret{Buffer: w.seed},
		Symmetric:    tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
	}.Execute(t.link)
	if err != nil {
		return secret.Secret{}, blame(err)
	}
	object, err := t.load(k, w.public, r.OutPrivate.Buffer)
	if err != nil {
		return secret.Secret{}, blame(err)
	}
	s, err := t.session(k, tpm2.AESEncryption(keyBits, tpm2.EncryptOut))
	if err != nil {
		return secret.Secret{}, err
	}
	return t.read(object, w.public, s)
}
