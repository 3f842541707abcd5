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

	"tokendesk/vault/secret"
)

// The stored header: magic, format (4 bytes, big endian), SHA-256 of what follows, HMAC, JSON. The plain digest
// tells damage from a wrong passphrase or another TPM before any key is known; the HMAC is what protects.
const (
	format      = 1
	magic       = "tdvault\x00"
	formatAt    = len(magic)
	digestAt    = formatAt + 4
	macAt       = digestAt + sha256.Size
	jsonAt      = macAt + sha256.Size
	maxDataKeys = 1024 // far above what any rotation leaves behind
)

// header is what must be read before any key is known.
type header struct {
	ID      string    `json:"id"`
	Sealer  string    `json:"sealer"` // Sealer.Kind
	Level   Level     `json:"level"`
	Created time.Time `json:"created"`
	Sealed  []byte    `json:"sealed"` // Sealer.Seal of the secret that the key encryption key comes from
	Keys    []dataKey `json:"keys"`   // ascending versions; the last one is current
}

// dataKey is a data key, wrapped by the key encryption key.
type dataKey struct {
	Version uint32 `json:"version"`
	Wrapped []byte `json:"wrapped"`
}

// kek derives the key encryption key. Format, kind and level are bound here, so that with any of them changed no data
// key unwraps.
func (h *header) kek(s secret.Secret) secret.Secret {
	return derive(s, h.ID, "tokendesk key encryption", uint32(format), h.Sealer, string(h.Level))
}

func (h *header) wrap(kek secret.Secret, version uint32, dek secret.Secret) error {
	w, err := encrypt(kek, dek.Reveal(), frame("data key", h.ID, version))
	h.Keys = append(h.Keys, dataKey{version, w})
	return err
}

// unwrap opens every data key.
func (h *header) unwrap(s secret.Secret) (*keyring, error) {
	kek := h.kek(s)
	defer kek.Wipe()
	r := &keyring{vault: h.ID, keys: map[uint32]purposes{}}
	for _, k := range h.Keys {
		dek, err := decrypt(kek, k.Wrapped, frame("data key", h.ID, k.Version))
		if err != nil {
			r.wipe()
			return nil, corrupt("data key %d does not unwrap: the header was edited, or belongs to another vault", k.Version)
		}
		r.add(k.Version, dek)
		dek.Wipe()
	}
	return r, nil
}

func encodeHeader(h *header, r *keyring) ([]byte, error) {
	body, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32([]byte(magic), format)
	signed := append(mac(r.keys[r.current].header, "header", uint32(format), body), body...)
	sum := sha256.Sum256(signed)
	return append(append(out, sum[:]...), signed...), nil
}

// decodeHeader reads a header. It proves nothing before authenticate has been called.
func decodeHeader(b []byte) (*header, error) {
	if len(b) < jsonAt || !bytes.HasPrefix(b, []byte(magic)) {
		return nil, corrupt("the header is not that of a vault")
	}
	if f := binary.BigEndian.Uint32(b[formatAt:]); f > format {
		return nil, newer("the vault", f, format)
	} else if f < format {
		return nil, corrupt("there is no vault format %d", f)
	}
	if sum := sha256.Sum256(b[macAt:]); !bytes.Equal(sum[:], b[digestAt:macAt]) {
		return nil, corrupt("the header is damaged")
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
	if h.ID == "" || h.Sealer == "" || h.Level == "" {
		return errors.New("a name is missing")
	}
	if len(h.Keys) == 0 || len(h.Keys) > maxDataKeys {
		return fmt.Errorf("it has %d data keys", len(h.Keys))
	}
	last := uint32(0)
	for _, k := range h.Keys {
		if k.Version <= last {
			return errors.New("data key versions do not ascend from 1")
		}
		last = k.Version
	}
	return nil
}

// authenticate checks an encoded header that decodeHeader has accepted.
func authenticate(b []byte, r *keyring) error {
	want := mac(r.keys[r.current].header, "header", binary.BigEndian.Uint32(b[formatAt:]), b[jsonAt:])
	if !hmac.Equal(want, b[macAt:jsonAt]) {
		return corrupt("the header does not authenticate")
	}
	return nil
}
