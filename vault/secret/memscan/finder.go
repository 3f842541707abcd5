package memscan

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"unsafe"
)

// shortest is the least length of a pattern: shorter ones are everywhere.
const shortest = 4

// finder looks for many patterns at once: hardly any position passes the first table.
type finder struct {
	patterns map[string][]byte
	two      [1 << 16]bool       // the first two bytes of some pattern
	four     map[uint32][]string // the first four bytes, and who begins with them
	longest  int
	own      [][]byte // what does not count
}

func newFinder(patterns map[string][]byte) (*finder, error) {
	f := &finder{patterns: patterns, four: map[uint32][]string{}, longest: shortest}
	for _, name := range slices.Sorted(maps.Keys(patterns)) {
		p := patterns[name]
		if len(p) < shortest {
			return nil, fmt.Errorf("pattern %s is shorter than %d bytes", name, shortest)
		}
		f.two[binary.LittleEndian.Uint16(p)] = true
		first := binary.LittleEndian.Uint32(p)
		f.four[first] = append(f.four[first], name)
		f.longest = max(f.longest, len(p))
	}
	return f, nil
}

// each reports every place in b where a whole pattern is.
//
//go:norace
func (f *finder) each(b []byte, found func(name string, at, size int)) {
	for i := 0; i+shortest <= len(b); i++ {
		if !f.two[0] && i+8 <= len(b) && binary.LittleEndian.Uint64(b[i:]) == 0 {
			i += 6 // much of memory is zeroes
			continue
		}
		if !f.two[uint16(b[i])|uint16(b[i+1])<<8] {
			continue
		}
		for _, name := range f.four[binary.LittleEndian.Uint32(b[i:])] {
			if p := f.patterns[name]; len(p) <= len(b)-i && string(p) == string(b[i:i+len(p)]) {
				found(name, i, len(p))
			}
		}
	}
}

// mine reports whether an address of the own process is the scanner's.
func (f *finder) mine(at uint64) bool {
	for _, b := range f.own {
		begin := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
		if begin <= at && at < begin+uint64(len(b)) {
			return true
		}
	}
	return false
}

// Forms returns the patterns and what they look like in text: in hex of both cases, in base64 of both alphabets and
// in base32, also in the midst of a longer text. The names tell, as in "seed as hex".
func Forms(patterns map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for name, p := range patterns {
		out[name] = p
		lower := hex.AppendEncode(nil, p)
		out[name+" as hex"] = lower
		out[name+" as HEX"] = upper(lower)
		for shift := range 3 {
			out[fmt.Sprintf("%s as base64 at %d", name, shift)] = core(p, shift, 6, base64.RawStdEncoding.Encode)
			out[fmt.Sprintf("%s as base64url at %d", name, shift)] = core(p, shift, 6, base64.RawURLEncoding.Encode)
		}
		for shift := range 5 {
			out[fmt.Sprintf("%s as base32 at %d", name, shift)] = core(p, shift, 5, base32.StdEncoding.WithPadding(base32.NoPadding).Encode)
		}
	}
	maps.DeleteFunc(out, func(name string, p []byte) bool { return len(p) < shortest && patterns[name] == nil })
	return out
}

func upper(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		if out[i] = c; c >= 'a' {
			out[i] -= 'a' - 'A'
		}
	}
	return out
}

// core encodes p as it looks behind shift other bytes, without the characters that depend on its neighbours.
func core(p []byte, shift, bitsPerChar int, encode func(dst, src []byte)) []byte {
	src := make([]byte, shift+len(p))
	defer clear(src)
	copy(src[shift:], p)
	dst := make([]byte, 8*len(src)/bitsPerChar+1)
	encode(dst, src)
	return dst[(8*shift+bitsPerChar-1)/bitsPerChar : 8*len(src)/bitsPerChar]
}
