// Package hotpscan finds the HOTP counter that a sequence of consecutive codes belongs to.
//
// It is the plain form: one HMAC per seed, reset for every counter, so that the hash of the padded
// key is done once. It matches whole sequences only: a counter whose first code collides by chance
// never hides the true one behind it. It knows neither vault nor policy; how wide to search and how
// many codes to ask for is its caller's decision (RFC 4226 section 7.4).
package hotpscan

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"hash"
	"math"

	"tokendesk/vault/secret"
)

const (
	// MaxWindow is the widest search: beyond it two 6-digit codes match by chance too often.
	MaxWindow = 10000
	// MaxCodes is the longest sequence that is looked for.
	MaxCodes = 16
)

// Search returns the first counter n, base ≤ n < base+window, from which on the seed gives exactly
// codes, one after another. It finds nothing when a code is not a string of that many digits (6 to
// 8, RFC 4226 section 5.3), when there is no code or more than MaxCodes, or when the sequence would
// run past the last counter. A window above MaxWindow counts as MaxWindow.
func Search(seed secret.Secret, digits int, base uint64, window int, codes []string) (counter uint64, found bool) {
	want, ok := parse(digits, codes)
	if !ok || window <= 0 || seed.IsZero() {
		return 0, false
	}
	last := uint64(math.MaxUint64) - uint64(len(want)-1) // the last counter a sequence can start at
	if base > last {
		return 0, false
	}
	span := uint64(min(window, MaxWindow))
	if rest := last - base; rest < span {
		span = rest + 1
	}
	secret.Do(func() {
		g := newGenerator(seed, digits)
		for i := uint64(0); i < span && !found; i++ {
			counter, found = base+i, g.matches(base+i, want)
		}
	})
	if !found {
		return 0, false
	}
	return counter, true
}

// Code returns the code of one counter, zero-padded. Digits is 6 to 8.
func Code(seed secret.Secret, digits int, counter uint64) string {
	var value uint32
	secret.Do(func() { value = newGenerator(seed, digits).value(counter) })
	return fmt.Sprintf("%0*d", digits, value)
}

// generator computes values of one seed.
type generator struct {
	mac hash.Hash
	mod uint32
	sum [sha1.Size]byte
	ctr [8]byte
}

func newGenerator(seed secret.Secret, digits int) *generator {
	mod := uint32(1)
	for range digits {
		mod *= 10
	}
	return &generator{mac: hmac.New(sha1.New, seed.Reveal()), mod: mod}
}

// value is the dynamic truncation of RFC 4226 section 5.3.
func (g *generator) value(counter uint64) uint32 {
	binary.BigEndian.PutUint64(g.ctr[:], counter)
	g.mac.Reset()
	g.mac.Write(g.ctr[:])
	sum := g.mac.Sum(g.sum[:0])
	offset := sum[len(sum)-1] & 0xf
	return (binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff) % g.mod
}

func (g *generator) matches(n uint64, want []uint32) bool {
	for i, w := range want {
		if g.value(n+uint64(i)) != w {
			return false
		}
	}
	return true
}

// parse turns codes into numbers; false if one of them is not a code of that many digits.
func parse(digits int, codes []string) ([]uint32, bool) {
	if digits < 6 || digits > 8 || len(codes) == 0 || len(codes) > MaxCodes {
		return nil, false
	}
	values := make([]uint32, 0, len(codes))
	for _, code := range codes {
		if len(code) != digits {
			return nil, false
		}
		var v uint32
		for _, d := range []byte(code) {
			if d < '0' || d > '9' {
				return nil, false
			}
			v = v*10 + uint32(d-'0')
		}
		values = append(values, v)
	}
	return values, true
}
