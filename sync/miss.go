package syncer

import (
	"fmt"
	"slices"

	"tokendesk/device"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// MissKind is why codes did not fit, for programs.
type MissKind string

// Kinds of misses. Of those up to MissGap, and of MissBeyond, the codes are the token's: whoever has typed them has it in hand.
const (
	MissUsed       MissKind = "used"        // behind the counter
	MissReversed   MissKind = "reversed"    // the newer one first
	MissGap        MissKind = "gap"         // touches in between are missing
	MissBeyond     MissKind = "beyond"      // further ahead than one officer may move the counter
	MissOther      MissKind = "other-token" // they are another token's
	MissNothing    MissKind = "nothing"     // nobody's, as far as was searched
	MissNotCodes   MissKind = "not-codes"   // letters, or another number of digits
	MissRepeated   MissKind = "repeated"    // the same code twice
	MissCount      MissKind = "count"       // too many or too few of them
	MissUnverified MissKind = "unverified"  // the token has no seed that was ever verified
	MissRestored   MissKind = "restored"    // the counter is as old as a backup: a single code proves nothing
	MissChanged    MissKind = "changed"     // somebody else has moved the counter meanwhile
)

const (
	// maxGap is how many touches may be missing between two codes for the gap to be recognized: a pocket's, not an evening's.
	maxGap = 20
	// otherWindow is how far ahead of their counters other tokens are searched for codes that do not fit.
	otherWindow = 100
)

// Miss is why codes did not fit. It never holds one.
type Miss struct {
	Kind   MissKind
	Digits int    // of the token's codes
	Gap    int    // MissGap: how many codes are missing in between
	Ahead  uint64 // MissReversed, MissGap, MissBeyond: how far beyond the counter the oldest code is
	Behind uint64 // MissUsed: how far behind the counter it is

	Other  device.TokenID // MissOther: whose they are; empty if that is not to be told
	Tenant string         // MissOther: of that token
	Owner  string         // MissOther: of that token

	// Of MissBeyond, what a second officer has to agree to: the counters before and after, and the seed that they belong to.
	From, To   uint64
	Generation int

	single bool // it was one code, which may be anybody's guess
}

// Guessed tells whether the codes may have been made up: they are not known to be the token's, and are not mistyped either.
func (m Miss) Guessed() bool {
	switch m.Kind {
	case MissUsed, MissReversed, MissGap, MissBeyond:
		return m.single
	case MissOther, MissNothing:
		return true
	}
	return false
}

// Hidden is the miss without the name of another token.
func (m Miss) Hidden() Miss {
	m.Other, m.Tenant, m.Owner = "", "", ""
	return m
}

func (m Miss) String() string {
	switch m.Kind {
	case MissUsed:
		return "these codes were used already or are older than the last one used"
	case MissReversed:
		return "right codes in the wrong order"
	case MissGap:
		return fmt.Sprintf("the codes are this token's, and %s missing between them", counted(m.Gap, "one is", "%d are"))
	case MissBeyond:
		return fmt.Sprintf("the codes were found at +%d, beyond the window of %d", m.Ahead, ResyncWindow)
	case MissOther:
		if m.Other == "" {
			return "these are codes of another token, which is not yours to see"
		}
		return fmt.Sprintf("these are codes of %s, which %s", m.Other, belongs(m.Owner))
	case MissNotCodes:
		return "these are not codes of this token"
	case MissRepeated:
		return "the same code twice"
	case MissCount:
		return "a resync takes two or three consecutive codes"
	case MissUnverified:
		return "it was never verified"
	case MissRestored:
		return "the vault was restored from a backup since its counter was known"
	case MissChanged:
		return "the token changed while its codes were being checked"
	}
	if m.single {
		return "this is not one of its next codes"
	}
	return fmt.Sprintf("these are not two consecutive codes of this token within the window of %d", ResyncWindow)
}

// next is what to do about a miss of a token.
func (m Miss) next(id device.TokenID) string {
	switch m.Kind {
	case MissUsed:
		return "touch the token for new ones"
	case MissReversed:
		return "the older one comes first"
	case MissGap:
		return "touch it twice more, one after the other, and give those two codes"
	case MissBeyond:
		return "it takes a second officer to move the counter that far: tokendesk resync " + string(id) + " CODE CODE asks for one; or reseed it"
	case MissOther:
		if m.Other == "" {
			return "look for the right one"
		}
		return fmt.Sprintf("take the right one, or resync that: tokendesk resync %s", m.Other)
	case MissNotCodes:
		if m.Digits == 0 {
			return "count the digits and type them again"
		}
		return fmt.Sprintf("count the digits, which are %d, and type them again", m.Digits)
	case MissRepeated:
		return "touch the token once for each code"
	case MissUnverified:
		return "settle its enroll first: tokendesk resolve " + string(id)
	case MissRestored:
		return "resync it first, with two consecutive codes: tokendesk resync " + string(id)
	case MissChanged:
		return "repeat with new codes"
	case MissNothing:
		if m.single {
			return "if the token is the right one, resync it with two consecutive codes"
		}
		return "touch it twice more, or reseed it if it is this token"
	}
	return ""
}

func counted(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf(more, n)
}

func belongs(owner string) string {
	if owner == "" {
		return "is stock"
	}
	return "belongs to " + owner
}

// MissError says which codes did not fit, why, and what to do.
type MissError struct {
	Token device.TokenID
	Miss  Miss
	// Recorded says that it stands in the audit trail.
	Recorded bool
}

func (e *MissError) Error() string {
	text := fmt.Sprintf("%s: %s", e.Token, e.Miss)
	if next := e.Miss.next(e.Token); next != "" {
		text += ": " + next
	}
	return text
}

// ExplainMiss looks around the truth after hotpscan.Search found nothing: same arguments. Two codes and more are looked for behind
// the counter, in other orders and with gaps, and beyond the window; one code only where it was looked for, and just behind that,
// because by chance it fits somewhere else.
func ExplainMiss(seed secret.Secret, digits int, base uint64, window int, codes []string) Miss {
	m := Miss{Kind: MissNothing, Digits: digits, single: len(codes) == 1}
	q := quest{seed: seed, digits: digits, base: base, window: window, codes: codes}
	switch {
	case !areCodes(codes, digits):
		m.Kind = MissNotCodes
	case repeats(codes):
		m.Kind = MissRepeated
	case q.used(&m), m.single:
	case q.reversed(&m), q.gap(&m), q.beyond(&m):
	}
	return m
}

func areCodes(codes []string, digits int) bool {
	return len(codes) > 0 && !slices.ContainsFunc(codes, func(c string) bool { return !isCode(c, digits) })
}

func isCode(s string, digits int) bool {
	for _, d := range []byte(s) {
		if d < '0' || d > '9' {
			return false
		}
	}
	return len(s) == digits
}

func repeats(codes []string) bool {
	for i, c := range codes {
		if slices.Contains(codes[:i], c) {
			return true
		}
	}
	return false
}

// quest is what was not found.
type quest struct {
	seed   secret.Secret
	digits int
	base   uint64
	window int
	codes  []string
}

func (q quest) search(from uint64, window int, codes []string) (uint64, bool) {
	return hotpscan.Search(q.seed, q.digits, from, window, codes)
}

// back is how far behind the counter is searched, in which order ever.
func (q quest) back(most int) (from uint64, window int) {
	n := min(uint64(max(most, 0)), q.base)
	return q.base - n, int(n)
}

func (q quest) used(m *Miss) bool {
	most := hotpscan.MaxWindow
	if m.single {
		most = q.window
	}
	from, window := q.back(most)
	n, found := q.search(from, window, q.codes)
	if found {
		m.Kind, m.Behind = MissUsed, q.base-n
	}
	return found
}

func (q quest) reversed(m *Miss) bool {
	turned := slices.Clone(q.codes)
	slices.Reverse(turned)
	if from, window := q.back(q.window); window > 0 {
		if n, found := q.search(from, window, turned); found {
			m.Kind, m.Behind = MissUsed, q.base-n // in the right order they would be too
			return true
		}
	}
	n, found := q.search(q.base, q.window, turned)
	if found {
		m.Kind, m.Ahead = MissReversed, n-q.base
	}
	return found
}

// gap looks for the codes in their order with up to maxGap others between one and the next.
func (q quest) gap(m *Miss) bool {
	for from, left := q.base, q.window; left > 0; {
		n, found := q.search(from, left, q.codes[:1])
		if !found {
			return false
		}
		missing, fits := 0, true
		at := n
		for _, c := range q.codes[1:] {
			next, found := q.search(at+1, maxGap+1, []string{c})
			if fits = found && next > at; !fits {
				break
			}
			missing, at = missing+int(next-at-1), next
		}
		if fits && missing > 0 {
			m.Kind, m.Ahead, m.Gap = MissGap, n-q.base, missing
			return true
		}
		left -= int(n-from) + 1
		from = n + 1
	}
	return false
}

func (q quest) beyond(m *Miss) bool {
	from := q.base + uint64(q.window)
	if from < q.base || q.window >= hotpscan.MaxWindow {
		return false
	}
	n, found := searchAhead(q.seed, q.digits, from, hotpscan.MaxWindow-q.window, q.codes)
	if found {
		m.Kind, m.Ahead, m.From, m.To = MissBeyond, n-q.base, q.base, n+uint64(len(q.codes))
	}
	return found
}
