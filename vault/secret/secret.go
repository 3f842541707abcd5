// Package secret holds byte strings that must never be shown: seeds, access codes, keys, passwords.
//
// A Secret prints as [redacted] through fmt and log/slog, refuses to be marshalled, and can be wiped.
// It does not protect against a debugger or swap; locked memory is the vault's business.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every rendering of a Secret shows.
const Redacted = "[redacted]"

var errMarshal = errors.New("secret: refusing to marshal a secret")

// Secret is a secret byte string. The zero value is the empty secret. Copies share their bytes.
type Secret struct{ p *[]byte }

// New takes over b: its bytes are moved into the Secret and b is wiped.
func New(b []byte) Secret {
	c := make([]byte, len(b))
	copy(c, b)
	clear(b)
	return Secret{&c}
}

// Random returns n fresh random bytes.
func Random(n int) Secret {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return Secret{&b}
}

// Reveal lends the bytes. The caller must neither keep nor change them.
func (s Secret) Reveal() []byte {
	if s.p == nil {
		return nil
	}
	return *s.p
}

// Len is the number of bytes.
func (s Secret) Len() int { return len(s.Reveal()) }

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.Len() == 0 }

// Equal compares in constant time.
func (s Secret) Equal(t Secret) bool { return subtle.ConstantTimeCompare(s.Reveal(), t.Reveal()) == 1 }

// Clone returns a copy that is wiped on its own.
func (s Secret) Clone() Secret {
	c := append([]byte(nil), s.Reveal()...)
	return Secret{&c}
}

// Wipe overwrites the bytes; the Secret and its copies are empty afterwards.
func (s Secret) Wipe() {
	if s.p == nil {
		return
	}
	clear(*s.p)
	*s.p = nil
}

// Format implements fmt.Formatter for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, Redacted) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON refuses.
func (s Secret) MarshalJSON() ([]byte, error) { return nil, errMarshal }

// MarshalText refuses.
func (s Secret) MarshalText() ([]byte, error) { return nil, errMarshal }

// MarshalBinary refuses.
func (s Secret) MarshalBinary() ([]byte, error) { return nil, errMarshal }

// GobEncode refuses.
func (s Secret) GobEncode() ([]byte, error) { return nil, errMarshal }
