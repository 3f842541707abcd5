package hotpscan_test

import (
	"encoding/base32"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// rfcCodes is the table of RFC 4226 Appendix D.
var rfcCodes = []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"}

func rfcSeed() secret.Secret { return secret.New([]byte("12345678901234567890")) }

func TestRFC4226AppendixD(t *testing.T) {
	for n, want := range rfcCodes {
		if got := hotpscan.Code(rfcSeed(), 6, uint64(n)); got != want {
			t.Errorf("counter %d: got %s, want %s", n, got, want)
		}
	}
	for n := range len(rfcCodes) - 1 {
		got, ok := hotpscan.Search(rfcSeed(), 6, 0, 10, rfcCodes[n:n+2])
		if !ok || got != uint64(n) {
			t.Errorf("codes of %d and %d: found %d, %v", n, n+1, got, ok)
		}
	}
}

func TestAgreesWithOathtool(t *testing.T) {
	for _, digits := range []int{6, 7, 8} {
		seed := secret.Random(20)
		out, err := exec.Command("oathtool", "--digits="+strconv.Itoa(digits), "--counter=4294967290", "--window=9", hex.EncodeToString(seed.Reveal())).Output()
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range strings.Fields(string(out)) {
			if got := hotpscan.Code(seed, digits, 4294967290+uint64(i)); got != want {
				t.Errorf("%d digits, counter 4294967290+%d: got %s, oathtool says %s", digits, i, got, want)
			}
		}
	}
}

func TestAgreesWithPquerna(t *testing.T) {
	for range 200 {
		seed, digits, n := secret.Random(1+rand.IntN(20)), 6+2*rand.IntN(2), rand.Uint64()
		want, err := hotp.GenerateCodeCustom(base32.StdEncoding.EncodeToString(seed.Reveal()), n,
			hotp.ValidateOpts{Digits: otp.Digits(digits), Algorithm: otp.AlgorithmSHA1})
		if err != nil {
			t.Fatal(err)
		}
		if got := hotpscan.Code(seed, digits, n); got != want {
			t.Fatalf("counter %d, %d digits: got %s, pquerna says %s", n, digits, got, want)
		}
	}
}

func TestWindowEnds(t *testing.T) {
	seed := rfcSeed()
	pair := func(n uint64) []string {
		return []string{hotpscan.Code(seed, 8, n), hotpscan.Code(seed, 8, n+1)}
	}
	const m = math.MaxUint64
	for _, c := range []struct {
		name   string
		base   uint64
		window int
		codes  []string
		want   uint64
		found  bool
	}{
		{"first of the window", 100, 50, pair(100), 100, true},
		{"last of the window", 100, 50, pair(149), 149, true},
		{"just behind the window", 100, 50, pair(150), 0, false},
		{"just before the base", 100, 50, pair(99), 0, false},
		{"a wider window counts as the widest", 0, 1 << 40, pair(hotpscan.MaxWindow), 0, false},
		{"last of the widest", 0, 1 << 40, pair(hotpscan.MaxWindow - 1), hotpscan.MaxWindow - 1, true},
		{"last counters", m - 5, 1000, pair(m - 1), m - 1, true},
		{"must not wrap round", m - 5, 1000, []string{hotpscan.Code(seed, 8, m), hotpscan.Code(seed, 8, 0)}, 0, false},
		{"one code at the very last counter", m, 1, pair(m)[:1], m, true},
		{"one code from zero", 0, 10, pair(3)[:1], 3, true},
		{"no window", 100, 0, pair(100), 0, false},
		{"negative window", 100, -1, pair(100), 0, false},
		{"no code", 100, 50, nil, 0, false},
		{"other length", 100, 50, []string{pair(100)[0][:6]}, 0, false},
	} {
		if got, found := hotpscan.Search(seed, 8, c.base, c.window, c.codes); got != c.want || found != c.found {
			t.Errorf("%s: got %d, %v, want %d, %v", c.name, got, found, c.want, c.found)
		}
	}
}

// A seed is drawn until the first code of the true pair also comes earlier in the window.
func TestFirstCodeCollisionDoesNotHideTheMatch(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 2))
	for {
		raw := make([]byte, 20)
		for i := range raw {
			raw[i] = byte(rng.Uint32())
		}
		seed := secret.New(raw)
		first := make(map[string]uint64)
		for n := range uint64(1000) {
			code := hotpscan.Code(seed, 6, n)
			if _, seen := first[code]; !seen {
				first[code] = n
				continue
			}
			got, ok := hotpscan.Search(seed, 6, 0, 1000, []string{code, hotpscan.Code(seed, 6, n+1)})
			if !ok || got != n {
				t.Fatalf("the code of %d also comes at %d: found %d, %v, want %d", n, first[code], got, ok, n)
			}
			return
		}
	}
}

func FuzzSearch(f *testing.F) {
	f.Add("755224", "287082", uint64(0), 10, 6)
	f.Add("", "28708²", uint64(math.MaxUint64), -1, 0)
	f.Add("99999999", "+1234567", uint64(math.MaxUint64-1), 1<<62, 8)
	f.Fuzz(func(t *testing.T, first, second string, base uint64, window, digits int) {
		window = min(window, 64) // keep it fast; the bound itself is tested above
		n, ok := hotpscan.Search(rfcSeed(), digits, base, window, []string{first, second})
		if !ok {
			return
		}
		if n < base || n-base >= uint64(window) || n == math.MaxUint64 {
			t.Fatalf("found %d outside [%d, %d+%d)", n, base, base, window)
		}
		if hotpscan.Code(rfcSeed(), digits, n) != first || hotpscan.Code(rfcSeed(), digits, n+1) != second {
			t.Fatalf("%q, %q are not the codes of %d", first, second, n)
		}
	})
}
