package hotpscan

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
)

// Algorithm is HMAC's hash.
type Algorithm int

// RFC 4226 knows SHA1 only; RFC 6238 section 1.2 has the others as well.
const (
	SHA1 Algorithm = iota
	SHA256
	SHA512
)

func (a Algorithm) hash() hash.Hash {
	switch a {
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	case SHA512:
		return sha512.New()
	}
	panic("hotpscan: no such algorithm")
}

// generator computes the codes of one seed with one HMAC that is reset for each, so that the padded key is hashed once.
// It is what the kernels are measured by.
type generator struct {
	mac hash.Hash
	mod uint32
	sum [sha512.Size]byte
	ctr [8]byte
}

func newGenerator(a Algorithm, seed []byte, digits int) *generator {
	return &generator{mac: hmac.New(a.hash, seed), mod: power(10, digits)}
}

// value is the code of a counter.
func (g *generator) value(counter uint64) uint32 {
	binary.BigEndian.PutUint64(g.ctr[:], counter)
	g.mac.Reset()
	g.mac.Write(g.ctr[:])
	sum := g.mac.Sum(g.sum[:0])
	return truncate(sum) % g.mod
}

// truncate is the dynamic truncation of RFC 4226 section 5.3.
func truncate(sum []byte) uint32 {
	offset := sum[len(sum)-1] & 0xf
	return binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
}

// matches tells whether values are the ones from counter n on.
func (g *generator) matches(n uint64, values []uint32) bool {
	for i, v := range values {
		if g.value(n+uint64(i)) != v {
			return false
		}
	}
	return true
}

// power is b to the n, modulo 2^32.
func power(b uint32, n int) uint32 {
	p := uint32(1)
	for range n {
		p *= b
	}
	return p
}
