// Package stretch turns PINs and passphrases into keys with Argon2id (RFC 9106).
//
// It promises that a stored recipe can neither weaken the stretching below the minimum nor make it use more memory
// or time than the maximum. It makes guessing dear, not impossible: whoever can try offline tries a four-digit PIN's
// ten thousand values in minutes. What Argon2id fills its memory with is erased only where secret.Do erases.
package stretch

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"runtime"

	"golang.org/x/crypto/argon2"

	"tokendesk/vault/secret"
)

// Params are the costs of Argon2id.
type Params struct {
	Time    uint32 // passes
	Memory  uint32 // KiB
	Threads uint8
}

// Default is the second recommended option of RFC 9106, section 4.
func Default() Params { return Params{Time: 3, Memory: 64 << 10, Threads: 4} }

// Minimum is the least that is accepted (OWASP Password Storage Cheat Sheet: 19 MiB, 2 passes).
func Minimum() Params { return Params{Time: 2, Memory: 19 << 10, Threads: 1} }

// Maximum bounds what a hostile file can cost.
func Maximum() Params { return Params{Time: 16, Memory: 1 << 20, Threads: 16} }

// Validate checks the costs against Minimum and Maximum.
func (p Params) Validate() error {
	low, high := Minimum(), Maximum()
	if p.Time < low.Time || p.Memory < low.Memory || p.Threads < low.Threads {
		return fmt.Errorf("the Argon2id parameters are too weak: %d passes, %d KiB, %d threads", p.Time, p.Memory, p.Threads)
	}
	if p.Time > high.Time || p.Memory > high.Memory || p.Threads > high.Threads {
		return fmt.Errorf("the Argon2id parameters are too costly: %d passes, %d KiB, %d threads", p.Time, p.Memory, p.Threads)
	}
	return nil
}

// Sizes in bytes.
const (
	SaltSize = 16
	Size     = 4 + 4 + 1 + SaltSize // of an encoded Recipe
)

// Recipe is all but the PIN that a key is made from. It is stored beside what the key opens and is no secret.
type Recipe struct {
	Params
	Salt [SaltSize]byte
}

// New returns a recipe with fresh salt.
func New(p Params) (Recipe, error) {
	if err := p.Validate(); err != nil {
		return Recipe{}, err
	}
	r := Recipe{Params: p}
	rand.Read(r.Salt[:])
	return r, nil
}

// Encode returns Size bytes: passes, KiB, threads, salt; big endian.
func (r Recipe) Encode() []byte {
	out := make([]byte, 0, Size)
	out = binary.BigEndian.AppendUint32(out, r.Time)
	out = binary.BigEndian.AppendUint32(out, r.Memory)
	return append(append(out, r.Threads), r.Salt[:]...)
}

// Decode reads what Encode has written. It refuses costs out of bounds.
func Decode(b []byte) (Recipe, error) {
	if len(b) != Size {
		return Recipe{}, fmt.Errorf("the Argon2id parameters have %d bytes, not %d", len(b), Size)
	}
	r := Recipe{Params: Params{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), b[8]}, Salt: [SaltSize]byte(b[9:])}
	return r, r.Validate()
}

// Derive stretches a PIN to n bytes. It takes 0.1 s and 64 MiB with the default costs on a small server.
func (r Recipe) Derive(pin secret.Secret, n int) (key secret.Secret) {
	defer runtime.KeepAlive(pin)
	secret.Do(func() {
		key = secret.New(argon2.IDKey(pin.Reveal(), r.Salt[:], r.Time, r.Memory, r.Threads, uint32(n)))
	})
	return key
}
