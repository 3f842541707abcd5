package hotpscan_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"tokendesk/sync/hotpscan"
)

// Codes that belong to nobody match by chance: k codes of d digits, in windows of W counters of N seeds, are expected to match
// E = N·W·10^(-d·k) times. So many matches are a Poisson variable's, and one that is further from E than this test allows comes
// once in 10^9 runs.
func TestFalseMatchesAreAsOftenAsTheBoundSays(t *testing.T) {
	const seeds, window, tries = 400, 10_000, 10
	expected := float64(seeds) * window * tries * 1e-6
	matches := 0
	for range tries {
		q, err := hotpscan.ParseSequence([]string{fmt.Sprintf("%06d", rand.IntN(1_000_000))})
		if err != nil {
			t.Fatal(err)
		}
		s := hotpscan.NewScanner(q, hotpscan.SHA1)
		defer s.Wipe()
		for range seeds {
			s.Each(randomBytes(20), rand.Uint64N(1<<40), window, func(uint64) bool { matches++; return true })
		}
	}
	least, most := bounds(expected, 1e-9)
	if matches < least || matches > most {
		t.Errorf("%d false matches, expected %.1f: not between %d and %d", matches, expected, least, most)
	}
}

// bounds are what a Poisson variable is within, but for the chance of being outside.
func bounds(mean, chance float64) (least, most int) {
	below := 0.0
	p := math.Exp(-mean)
	least = -1
	for k := 0; ; k++ {
		below += p
		if least < 0 && below > chance/2 {
			least = k
		}
		if 1-below < chance/2 {
			return least, k
		}
		p *= mean / float64(k+1)
	}
}

func TestBounds(t *testing.T) {
	// One in ten: 5 of 10 are too few in 3 %, 15 too many in 5 %.
	if least, most := bounds(10, 0.1); least != 5 || most != 15 {
		t.Errorf("%d to %d", least, most)
	}
}
