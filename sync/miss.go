package syncer

import (
	"slices"

	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// Miss is why a resync found no counter.
type Miss string

// Misses, by what the officer can do about them.
const (
	MissNotCodes Miss = "not codes of this token: count the digits and type them again"
	MissSame     Miss = "the same code twice: touch the token once for each code"
	MissReversed Miss = "right codes in the wrong order: the older one comes first"
	MissUsed     Miss = "these codes were used already or are older than the last one used: touch the token for new ones"
	MissNothing  Miss = "these are not two consecutive codes of this token within the window: touch it twice more, or reseed it if it is this token"
)

func (m Miss) String() string { return string(m) }

// ExplainMiss looks around the truth after hotpscan.Search found nothing: same arguments.
func ExplainMiss(seed secret.Secret, digits int, base uint64, window int, codes []string) Miss {
	for _, c := range codes {
		if !isCode(c, digits) {
			return MissNotCodes
		}
	}
	if len(codes) == 0 {
		return MissNotCodes
	}
	for i, c := range codes[1:] {
		if c == codes[i] {
			return MissSame
		}
	}
	behind := min(uint64(max(window, 0)), base, hotpscan.MaxWindow)
	if behind > 0 {
		if _, used := hotpscan.Search(seed, digits, base-behind, int(behind), codes); used {
			return MissUsed
		}
	}
	if len(codes) > 1 {
		back := slices.Clone(codes)
		slices.Reverse(back)
		if _, ok := hotpscan.Search(seed, digits, base, window, back); ok {
			return MissReversed
		}
	}
	return MissNothing
}

func isCode(s string, digits int) bool {
	for _, d := range []byte(s) {
		if d < '0' || d > '9' {
			return false
		}
	}
	return len(s) == digits
}
