package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync/atomic"
)

// Redacted is what every rendering of a Secret shows.
const Redacted = "[redacted]"

var errMarshal = errors.New("secret: refusing to marshal a secret")

// Secret is a secret byte string. The zero value is the empty secret. Copies of the struct share their bytes. All
// methods may be called at the same time from several goroutines.
type Secret struct{ c *cell }

// cell is what the copies of a Secret share. Whatever outlives it must not point to it, or it is never cleaned up.
type cell struct {
	mem     []byte
	place   *place
	gone    atomic.Bool
	cleanup runtime.Cleanup
}

// empty makes a Secret of n zero bytes, n > 0.
func empty(n int) Secret {
	p := store.take(n)
	c := &cell{mem: p.mem()[:n:n], place: p}
	c.cleanup = runtime.AddCleanup(c, abandon, p)
	return Secret{c}
}

// Make makes a secret of n bytes, which fill writes straight into locked memory. An error of fill is returned as it is,
// and nothing is kept then. With n of 0 or less the secret is empty, and fill is not called.
func Make(n int, fill func([]byte) error) (Secret, error) {
	if n <= 0 {
		return Secret{}, nil
	}
	s, done := empty(n), false
	defer func() {
		if !done { // fill failed or panicked
			s.Wipe()
		}
	}()
	if err := fill(s.Reveal()); err != nil {
		return Secret{}, err
	}
	done = true
	return s, nil
}

// New takes over b: its bytes are moved into the Secret and b is wiped.
func New(b []byte) Secret {
	s := copied(b)
	clear(b)
	return s
}

// Random returns n fresh random bytes.
func Random(n int) Secret {
	if n <= 0 {
		return Secret{}
	}
	s := empty(n)
	rand.Read(s.Reveal()) // never fails: crypto/rand ends the program instead
	return s
}

// Concat returns the bytes of all parts in one secret, which is wiped on its own.
func Concat(parts ...Secret) Secret {
	n := 0
	for _, p := range parts {
		n += p.Len()
	}
	if n == 0 {
		return Secret{}
	}
	s := empty(n)
	b := s.Reveal()
	for _, p := range parts {
		b = b[move(b, p.Reveal()):]
		runtime.KeepAlive(p.c)
	}
	return s
}

func copied(b []byte) Secret {
	if len(b) == 0 {
		return Secret{}
	}
	s := empty(len(b))
	move(s.Reveal(), b)
	return s
}

// Reveal lends the bytes. The caller must neither keep nor change them, and must see to it that the Secret lives for as
// long as it reads them, which a deferred Wipe does: the slice alone does not keep them from being erased.
func (s Secret) Reveal() []byte {
	if s.c == nil || s.c.gone.Load() {
		return nil
	}
	return s.c.mem
}

// Len is the number of bytes.
func (s Secret) Len() int { return len(s.Reveal()) }

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.Len() == 0 }

// Equal compares in constant time.
func (s Secret) Equal(t Secret) bool {
	same := subtle.ConstantTimeCompare(s.Reveal(), t.Reveal()) == 1
	runtime.KeepAlive(s.c)
	runtime.KeepAlive(t.c)
	return same
}

// Clone returns a copy that is wiped on its own.
func (s Secret) Clone() Secret {
	t := copied(s.Reveal())
	runtime.KeepAlive(s.c)
	return t
}

// Wipe overwrites the bytes at once and gives their place back; the Secret and its copies are empty afterwards.
// Wiping again does nothing.
func (s Secret) Wipe() {
	if s.c == nil || s.c.gone.Swap(true) {
		return
	}
	s.c.cleanup.Stop()
	runtime.KeepAlive(s.c) // Stop has no effect on what is unreachable already
	clear(s.c.mem)
	store.put(s.c.place)
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
