package syncer

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"tokendesk/device"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
)

// MaxChance is how likely codes may be a token's by chance where that token is named as theirs.
const MaxChance = 1e-6

// rings are how far ahead of its counter each token is searched, one after another: most tokens are near, and the nearer the match,
// the less likely it is one by chance.
var rings = [...]int{16, 100, 1000, 10000}

// Codes that Identify takes.
const (
	MinIdentifyCodes = 2
	MaxIdentifyCodes = 3
)

// Match is a token that gives the codes.
type Match struct {
	Token         device.TokenID
	Tenant, Owner string
	Generation    int    // of the seed that gives them
	Current       bool   // that is the token's own seed, and not one of unfinished work
	Counter       uint64 // of the first code
	Ahead         uint64 // how far that is from the next one expected
}

// Found is what a search over all tokens has found.
type Found struct {
	Matches  []Match // in the order of their tokens
	Searched int     // seeds whose codes have that many digits
	Window   int     // how far ahead each of them was searched
	Codes    int
	// Chance is how many matches are to be expected of codes that are no token's: Searched·Window·10^(-digits·codes).
	Chance float64
}

// Certain tells whether the codes are one token's, and no chance.
func (f Found) Certain() bool { return len(f.Matches) == 1 && f.Chance <= MaxChance }

// CodesError says what is wrong with the codes themselves.
type CodesError struct{ Problem string }

func (e *CodesError) Error() string { return e.Problem }

// Identify looks for two or three consecutive codes, oldest first, in all seeds of the vault, also those of disabled and compromised
// tokens: further and further ahead up to widest, until a ring has a match. A ring is finished before its result is told, so that a match
// which seems the only one is. ring, if there is one, gets what is known after each. Seeds are read anew for each ring: none stays in
// memory. It changes nothing, and grants nothing.
func Identify(ctx context.Context, v *vault.Vault, codes []string, widest int, ring func(Found)) (Found, error) {
	q, err := hotpscan.ParseSequence(codes)
	switch {
	case len(codes) < MinIdentifyCodes || len(codes) > MaxIdentifyCodes:
		return Found{}, &CodesError{fmt.Sprintf("give two or three consecutive codes, not %d", len(codes))}
	case err != nil:
		return Found{}, &CodesError{err.Error()}
	case slices.Contains(codes[1:], codes[0]) || codes[1] == codes[len(codes)-1] && len(codes) > 2:
		return Found{}, &CodesError{"the same code twice: touch the token once for each code"}
	}
	f, searched := Found{Codes: len(codes)}, 0
	for _, end := range rings {
		end = min(end, widest)
		if end <= searched {
			break
		}
		s := search{q: q, from: uint64(searched), window: uint64(end - searched)}
		if err := s.run(ctx, v); err != nil {
			return f, fmt.Errorf("cannot search all tokens: %w", err)
		}
		searched = end
		f.Matches, f.Searched, f.Window = s.matches(), s.seeds(), end
		f.Chance = float64(f.Searched) * float64(f.Window) * math.Pow10(-q.Digits()*q.Len())
		if ring != nil {
			ring(f)
		}
		if len(f.Matches) > 0 {
			break
		}
	}
	return f, nil
}

// search is one ring, shared out among the processors.
type search struct {
	q            hotpscan.Sequence
	from, window uint64 // ahead of each counter
	workers      []searcher
}

type searcher struct {
	scanner *hotpscan.Scanner
	matches []Match
	seeds   int
}

func (s *search) run(ctx context.Context, v *vault.Vault) error {
	s.workers = make([]searcher, runtime.GOMAXPROCS(0))
	for i := range s.workers {
		s.workers[i].scanner = hotpscan.NewScanner(s.q, hotpscan.SHA1)
		defer s.workers[i].scanner.Wipe()
	}
	return v.EachSeed(ctx, len(s.workers), func(worker int, e vault.SeedEntry) error {
		w := &s.workers[worker]
		if e.Digits != s.q.Digits() {
			return nil
		}
		w.seeds++
		from := e.Counter + s.from
		if from < e.Counter { // behind the last counter
			return nil
		}
		w.scanner.Each(e.Seed, from, s.window, func(n uint64) bool {
			w.matches = append(w.matches, Match{Token: e.Token, Tenant: e.Tenant, Owner: e.Owner, Generation: e.Generation, Current: e.Current,
				Counter: n, Ahead: n - e.Counter})
			return true
		})
		return nil
	})
}

func (s *search) matches() (all []Match) {
	for _, w := range s.workers {
		all = append(all, w.matches...)
	}
	slices.SortFunc(all, func(a, b Match) int {
		if c := strings.Compare(string(a.Token), string(b.Token)); c != 0 {
			return c
		}
		if a.Generation != b.Generation {
			return a.Generation - b.Generation
		}
		if a.Counter < b.Counter {
			return -1
		}
		return 1
	})
	return all
}

func (s *search) seeds() (n int) {
	for _, w := range s.workers {
		n += w.seeds
	}
	return n
}
