package vault

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// The stored header: magic, format (4 bytes, big endian), SHA-256 of what follows, HMAC, JSON. The plain digest
// tells damage from a wrong passphrase or another TPM before any key is known; the HMAC is what protects.
const (
	format   = 2
	magic    = "tdvault\x00"
	formatAt = len(magic)
	digestAt = formatAt + 4
	macAt    = digestAt + sha256.Size
	jsonAt   = macAt + sha256.Size
	maxSeals = 2
)

// header is what must be read before any key is known. It changes only with a rotation, a PIN or a move.
type header struct {
	ID      string    `json:"id"`
	Sealer  string    `json:"sealer"` // Sealer.Kind
	Level   Level     `json:"level"`
	PIN     bool      `json:"pin"` // it stays locked until somebody gives the PIN or passphrase
	Created time.Time `json:"created"`
	// Seals are Sealer.Seal of the root secret, from which the key encryption key comes. There are two while a rotation or a
	// change of the PIN is going on: for the generation that ends and for the one that begins.
	Seals  [][]byte     `json:"seals"`
	Anchor *anchorNames `json:"anchor,omitempty"` // absent without a TPM
	Key    dataKey      `json:"key"`
	// Recipients can open Recovery, which holds the root secret (age, see recovery.go).
	Recipients []string `json:"recipients"`
	Recovery   []byte   `json:"recovery,omitempty"`
	// Trail names the audit trail, which a restored vault continues: the ID of the vault that began it.
	Trail    string    `json:"trail"`
	AuditKey audit.Key `json:"audit_key"`       // whoever has it can verify the trail
	Moved    string    `json:"moved,omitempty"` // fingerprint of the TPM that it was moved to
}

// dataKey is the data key, wrapped by the key encryption key.
type dataKey struct {
	Version uint32 `json:"version"`
	Wrapped []byte `json:"wrapped"`
}

// anchorNames name the counters in the TPM.
type anchorNames struct {
	Epoch      []byte `json:"epoch"`      // goes up with every change that has an effect
	Generation []byte `json:"generation"` // goes up with every rotation and PIN: a seal for an older one opens no more
	First      uint64 `json:"first"`      // what Epoch stood at when it was made
	Auth       []byte `json:"auth"`       // what increments both, wrapped by the key encryption key
}

// kek derives the key encryption key. Format, kind, level and mode are bound here, so that with any of them changed
// nothing unwraps.
func (h *header) kek(root secret.Secret) secret.Secret {
	mode := "unattended"
	if h.PIN {
		mode = "pin"
	}
	return derive(root, h.ID, "tokendesk key encryption", uint32(format), h.Sealer, string(h.Level), mode)
}

// wrap puts a data key and the counters' authorization under the root secret.
func (h *header) wrap(root secret.Secret, version uint32, dek, auth secret.Secret) {
	kek := h.kek(root)
	defer kek.Wipe()
	h.Key = dataKey{version, encrypt(kek, dek.Reveal(), frame("data key", h.ID, version))}
	if h.Anchor != nil {
		h.Anchor.Auth = encrypt(kek, auth.Reveal(), frame("anchor", h.ID))
	}
}

// unwrap opens what wrap has wrapped.
func (h *header) unwrap(root secret.Secret) (r *keyring, auth secret.Secret, err error) {
	kek := h.kek(root)
	defer kek.Wipe()
	dek, err := decrypt(kek, h.Key.Wrapped, frame("data key", h.ID, h.Key.Version))
	if err != nil {
		return nil, auth, corrupt("the data key does not unwrap: the header was edited, or belongs to another vault")
	}
	defer dek.Wipe()
	if h.Anchor != nil {
		if auth, err = decrypt(kek, h.Anchor.Auth, frame("anchor", h.ID)); err != nil {
			return nil, auth, corrupt("the counters' authorization does not unwrap: the header was edited")
		}
	}
	return newKeyring(h.ID, h.Key.Version, dek), auth, nil
}

func headerMAC(root secret.Secret, body []byte) []byte {
	k := derive(root, "", "tokendesk header")
	defer k.Wipe()
	return mac(k, "header", uint32(format), body)
}

func (h *header) encode(root secret.Secret) ([]byte, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32([]byte(magic), format)
	signed := append(headerMAC(root, body), body...)
	sum := sha256.Sum256(signed)
	return append(append(out, sum[:]...), signed...), nil
}

// formatOf reads the format of an encoded header, and whether it is whole.
func formatOf(b []byte) (uint32, error) {
	if len(b) < jsonAt || !bytes.HasPrefix(b, []byte(magic)) {
		return 0, corrupt("the header is not that of a vault")
	}
	f := binary.BigEndian.Uint32(b[formatAt:])
	if f > format {
		return f, newer("the vault", f, format)
	}
	if f == 0 {
		return f, corrupt("there is no vault format 0")
	}
	if sum := sha256.Sum256(b[macAt:]); !bytes.Equal(sum[:], b[digestAt:macAt]) {
		return f, corrupt("the header is damaged")
	}
	return f, nil
}

// decodeHeader reads a header of today's format. It proves nothing before authenticate has been called.
func decodeHeader(b []byte) (*header, error) {
	f, err := formatOf(b)
	if err != nil {
		return nil, err
	}
	if f != format {
		return nil, corrupt("its header has format %d, which was to be migrated first", f)
	}
	var h header
	if err := json.Unmarshal(b[jsonAt:], &h); err != nil {
		return nil, corrupt("the header is unreadable: %v", err)
	}
	if err := h.validate(); err != nil {
		return nil, corrupt("the header makes no sense: %v", err)
	}
	return &h, nil
}

func (h *header) validate() error {
	switch {
	case h.ID == "" || h.Sealer == "" || h.Level == "" || h.Trail == "":
		return errors.New("a name is missing")
	case len(h.Seals) == 0 || len(h.Seals) > maxSeals:
		return fmt.Errorf("it has %d seals", len(h.Seals))
	case h.Key.Version == 0:
		return errors.New("data key versions start at 1")
	}
	return nil
}

// authenticate checks an encoded header that decodeHeader has accepted.
func authenticate(b []byte, root secret.Secret) error {
	if !hmac.Equal(headerMAC(root, b[jsonAt:]), b[macAt:jsonAt]) {
		return corrupt("the header does not authenticate")
	}
	return nil
}
