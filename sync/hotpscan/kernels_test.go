package hotpscan_test

import (
	"bytes"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// runnable is the kernels that this processor can run.
func runnable() []string {
	list := []string{"base"}
	for _, name := range []string{"avx2", "avx512"} {
		if restore, err := hotpscan.Force(name); err == nil {
			restore()
			list = append(list, name)
		}
	}
	return list
}

// eachKernel runs a test with one after the other.
func eachKernel(t *testing.T, f func(t *testing.T)) {
	for _, name := range runnable() {
		t.Run(name, func(t *testing.T) {
			restore, err := hotpscan.Force(name)
			if err != nil {
				t.Fatal(err)
			}
			defer restore()
			f(t)
		})
	}
}

// all is every counter of a window from which on the seed gives the codes.
func all(t testing.TB, a hotpscan.Algorithm, seed []byte, from, window uint64, codes ...string) (list []uint64) {
	t.Helper()
	q, err := hotpscan.ParseSequence(codes)
	if err != nil {
		t.Fatal(err)
	}
	s := hotpscan.NewScanner(q, a)
	defer s.Wipe()
	s.Each(seed, from, window, func(n uint64) bool { list = append(list, n); return true })
	return list
}

// code is one code of a seed as pquerna computes it.
func code(t testing.TB, a otp.Algorithm, seed []byte, digits int, n uint64) string {
	t.Helper()
	c, err := hotp.GenerateCodeCustom(base32.StdEncoding.EncodeToString(seed), n, hotp.ValidateOpts{Digits: otp.Digits(digits), Algorithm: a})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func TestForce(t *testing.T) {
	before := hotpscan.Kernel()
	if list := runnable(); before != list[len(list)-1] {
		t.Errorf("%s is chosen among %v", before, list)
	}
	restore, err := hotpscan.Force("base")
	if err != nil || hotpscan.Kernel() != "base" {
		t.Errorf("%v, %s", err, hotpscan.Kernel())
	}
	if _, err := hotpscan.Force("abacus"); err == nil || hotpscan.Kernel() != "base" {
		t.Errorf("%v, %s", err, hotpscan.Kernel())
	}
	restore()
	if hotpscan.Kernel() != before {
		t.Errorf("%s after %s", hotpscan.Kernel(), before)
	}
}

func TestKernelsFindAppendixD(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		for n := range rfcCodes {
			if got := all(t, hotpscan.SHA1, []byte("12345678901234567890"), 0, 1000, rfcCodes[n:]...); !slices.Equal(got, []uint64{uint64(n)}) {
				t.Errorf("the codes from %d on are found at %d", n, got)
			}
		}
	})
}

// The lengths are those of a key that is padded, those around a block, and those that are hashed first.
func TestKernelsAgreeWithOathtool(t *testing.T) {
	const keys, many = 303, 40
	for i := range keys {
		seed, digits := randomBytes(1+i%64), 6+i%3
		from := []uint64{0, rand.Uint64N(1e6), 1<<32 - rand.Uint64N(many), 1<<33 - rand.Uint64N(many), rand.Uint64N(1 << 62)}[rand.IntN(5)]
		cmd := exec.Command("oathtool", "--digits="+strconv.Itoa(digits), "--counter="+strconv.FormatUint(from, 10), fmt.Sprint("--window=", many-1), "-")
		cmd.Stdin = strings.NewReader(hex.EncodeToString(seed))
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		codes := strings.Fields(string(out))
		if len(codes) != many {
			t.Fatalf("oathtool gives %d codes", len(codes))
		}
		at := rand.IntN(many - 3)
		for _, kernel := range runnable() {
			restore, err := hotpscan.Force(kernel)
			if err != nil {
				t.Fatal(err)
			}
			begin := from - min(from, rand.Uint64N(40))
			for _, n := range []int{2, 3} {
				if got := all(t, hotpscan.SHA1, seed, begin, 100, codes[at:at+n]...); !slices.Equal(got, []uint64{from + uint64(at)}) {
					t.Errorf("%s: key of %d bytes, %d digits: %d codes from %d+%d on are found at %d", kernel, len(seed), digits, n, from, at, got)
				}
			}
			restore()
		}
	}
}

// Any seed, any window: a kernel finds what the base finds.
func TestKernelsAgreeWithTheBase(t *testing.T) {
	edges := []uint64{0, 1 << 32, 5 << 32, 1 << 63, math.MaxUint64}
	for range 3000 {
		seed, digits := randomBytes(rand.IntN(131)), 6+rand.IntN(3)
		from := edges[rand.IntN(len(edges))] + rand.Uint64N(200) - 100
		if rand.IntN(4) == 0 {
			from = rand.Uint64()
		}
		window := rand.Uint64N(300)
		if rand.IntN(50) == 0 {
			window = rand.Uint64N(5000)
		}
		var codes []string
		lent := secret.New(bytes.Clone(seed))
		at := from + rand.Uint64N(window+10) - 5 // it may wrap, or be outside
		for i := range 1 + rand.Uint64N(3) {
			codes = append(codes, hotpscan.Code(lent, digits, at+i))
		}
		lent.Wipe()
		var want []uint64
		for i, kernel := range runnable() {
			restore, err := hotpscan.Force(kernel)
			if err != nil {
				t.Fatal(err)
			}
			got := all(t, hotpscan.SHA1, seed, from, window, codes...)
			restore()
			if i == 0 {
				want = got
			} else if !slices.Equal(got, want) {
				t.Fatalf("%s finds %d, the base %d: %d codes of %d digits, %d+%d, key of %d bytes", kernel, got, want, len(codes), digits, from, window, len(seed))
			}
		}
	}
}

func TestEndsOfTheCounters(t *testing.T) {
	const last = math.MaxUint64
	seed := []byte("12345678901234567890")
	eachKernel(t, func(t *testing.T) {
		sequence := func(from uint64, n int) (codes []string) {
			for i := range n {
				codes = append(codes, hotpscan.Code(rfcSeed(), 8, from+uint64(i)))
			}
			return codes
		}
		for _, c := range []struct {
			name         string
			from, window uint64
			codes        []string
			want         []uint64
		}{
			{"the last code", last - 40, last, sequence(last, 1), []uint64{last}},
			{"the last two", last - 40, last, sequence(last-1, 2), []uint64{last - 1}},
			{"round the end", last - 40, last, sequence(last, 2), nil},
			{"only the last one", last, 1, sequence(last, 1), []uint64{last}},
			{"the first of a wide window", 7, 80_000, sequence(7, 2), []uint64{7}},
			{"just before", 7, 10, sequence(6, 2), nil},
			{"just behind", 7, 10, sequence(17, 2), nil},
			{"the last of a window", 7, 10, sequence(16, 2), []uint64{16}},
			{"across 2^32", 1<<32 - 9, 20, sequence(1<<32-1, 3), []uint64{1<<32 - 1}},
			{"behind 2^32", 1<<32 - 9, 20, sequence(1<<32, 3), []uint64{1 << 32}},
			{"behind many blocks", 3, 80_000, sequence(70_001, 2), []uint64{70_001}},
			{"no window", 7, 0, sequence(7, 1), nil},
		} {
			if got := all(t, hotpscan.SHA1, seed, c.from, c.window, c.codes...); !slices.Equal(got, c.want) {
				t.Errorf("%s: found %d, want %d", c.name, got, c.want)
			}
		}
		if got := all(t, hotpscan.SHA1, nil, 0, 10, sequence(0, 1)...); got != nil {
			t.Errorf("a code of no seed is found at %d", got)
		}
		if got := all(t, hotpscan.SHA1, seed, 0, 100, sequence(0, hotpscan.MaxCodes)...); !slices.Equal(got, []uint64{0}) {
			t.Errorf("the longest sequence is found at %d", got)
		}
	})
}

// Two counters within one block of lanes have the same code: neither hides the other, whichever is asked for.
func TestCollisionWithinABlock(t *testing.T) {
	const first, second = 1217265, 1217270 // of RFC 4226's seed, found by trying
	seed, same := []byte("12345678901234567890"), "076200"
	for _, n := range []uint64{first, second} {
		if got := hotpscan.Code(rfcSeed(), 6, n); got != same {
			t.Fatalf("the code of %d is %s", n, got)
		}
	}
	eachKernel(t, func(t *testing.T) {
		if got := all(t, hotpscan.SHA1, seed, first-3, 50, same); !slices.Equal(got, []uint64{first, second}) {
			t.Errorf("the code is found at %d, want both", got)
		}
		for _, n := range []uint64{first, second} {
			if got := all(t, hotpscan.SHA1, seed, first-1000, 2000, same, hotpscan.Code(rfcSeed(), 6, n+1)); !slices.Equal(got, []uint64{n}) {
				t.Errorf("two codes are found at %d, want %d", got, n)
			}
		}
		if got := all(t, hotpscan.SHA1, seed, first+1, 50, same); !slices.Equal(got, []uint64{second}) {
			t.Errorf("from between the two on it is found at %d", got)
		}
		if got := all(t, hotpscan.SHA1, seed, first-20, second-first+20, same); !slices.Equal(got, []uint64{first}) {
			t.Errorf("up to the second one it is found at %d", got)
		}
		q, err := hotpscan.ParseSequence([]string{same})
		if err != nil {
			t.Fatal(err)
		}
		s := hotpscan.NewScanner(q, hotpscan.SHA1)
		defer s.Wipe()
		var got []uint64
		s.Each(seed, first, 50, func(n uint64) bool { got = append(got, n); return false })
		if !slices.Equal(got, []uint64{first}) {
			t.Errorf("told to stop at the first: %d", got)
		}
	})
}

func TestLongerHashes(t *testing.T) {
	// RFC 6238 Appendix B: 8 digits, the counter is the time divided by 30 s.
	digits := "1234567890"
	for _, c := range []struct {
		a     hotpscan.Algorithm
		seed  string
		codes map[uint64]string
	}{
		{hotpscan.SHA1, strings.Repeat(digits, 2), map[uint64]string{0x1: "94287082", 0x23523ec: "07081804", 0x273ef07: "89005924", 0x27bc86aa: "65353130"}},
		{hotpscan.SHA256, strings.Repeat(digits, 4)[:32], map[uint64]string{0x1: "46119246", 0x23523ec: "68084774", 0x273ef07: "91819424", 0x27bc86aa: "77737706"}},
		{hotpscan.SHA512, strings.Repeat(digits, 7)[:64], map[uint64]string{0x1: "90693936", 0x23523ec: "25091201", 0x273ef07: "93441116", 0x27bc86aa: "47863826"}},
	} {
		for n, code := range c.codes {
			if got := all(t, c.a, []byte(c.seed), n-1, 50, code); !slices.Equal(got, []uint64{n}) {
				t.Errorf("hash %d: the code of %d is found at %d", c.a, n, got)
			}
		}
	}
	for a, theirs := range map[hotpscan.Algorithm]otp.Algorithm{hotpscan.SHA1: otp.AlgorithmSHA1, hotpscan.SHA256: otp.AlgorithmSHA256, hotpscan.SHA512: otp.AlgorithmSHA512} {
		for range 100 {
			seed, digits, n := randomBytes(1+rand.IntN(200)), 6+rand.IntN(3), rand.Uint64N(math.MaxUint64-100)
			first, second := code(t, theirs, seed, digits, n), code(t, theirs, seed, digits, n+1)
			if got := all(t, a, seed, n-min(n, 5), 20, first, second); !slices.Equal(got, []uint64{n}) {
				t.Errorf("hash %d: the codes of %d are found at %d", a, n, got)
			}
		}
	}
}

// One scanner is for many seeds, and a search that finds nothing allocates nothing. (With the race detector, the standard
// library allocates zeroes for each midstate.)
func TestScannerIsForManySeeds(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		right := randomBytes(20)
		lent := secret.New(bytes.Clone(right))
		defer lent.Wipe()
		q, err := hotpscan.ParseSequence([]string{hotpscan.Code(lent, 6, 40), hotpscan.Code(lent, 6, 41)})
		if err != nil {
			t.Fatal(err)
		}
		s := hotpscan.NewScanner(q, hotpscan.SHA1)
		defer s.Wipe()
		found := 0
		for range 200 {
			s.Each(randomBytes(rand.IntN(100)), 0, 100, func(uint64) bool { found++; return true })
			s.Each(right, 0, 100, func(n uint64) bool {
				if n == 40 {
					found++
				}
				return true
			})
		}
		if found != 200 {
			t.Errorf("found %d times, want 200", found)
		}
		other := []byte("12345678901234567890")
		if n := testing.AllocsPerRun(100, func() { s.Each(other, 0, 100, func(uint64) bool { return true }) }); n > 2 && hotpscan.Kernel() != "base" {
			t.Errorf("%v allocations for a seed", n)
		}
	})
}
