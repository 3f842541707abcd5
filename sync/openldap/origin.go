package openldap

import (
	"fmt"
	"strconv"
	"strings"
)

// origin says which seed an entry is about: generations are counted by each desk for itself. It
// stands in a description of the entry, as "tokendesk generation 2 of DESK".
type origin struct {
	generation int    // from 1
	desk       string // one word; empty when it was never told
}

const originNote = "tokendesk generation"

func (o origin) String() string {
	if o.desk == "" {
		return fmt.Sprintf("%s %d", originNote, o.generation)
	}
	return fmt.Sprintf("%s %d of %s", originNote, o.generation, o.desk)
}

func (o origin) sameDesk(other origin) bool { return strings.EqualFold(o.desk, other.desk) }

// parseOrigin reads a description, which people edit: letter case and spaces do not matter. It is
// zero for any other text.
func parseOrigin(note string) origin {
	f := strings.Fields(note)
	if len(f) < 3 || !strings.EqualFold(f[0]+" "+f[1], originNote) {
		return origin{}
	}
	n, err := strconv.ParseInt(f[2], 10, 32)
	switch {
	case err != nil || n < 1:
		return origin{}
	case len(f) == 3:
		return origin{generation: int(n)}
	case len(f) == 5 && strings.EqualFold(f[3], "of"):
		return origin{int(n), f[4]}
	}
	return origin{}
}

// originOf finds the origin among descriptions; the highest generation, should somebody have copied one.
func originOf(notes []string) (found origin) {
	for _, note := range notes {
		if o := parseOrigin(note); o.generation > found.generation {
			found = o
		}
	}
	return found
}

// withOrigin replaces the origin among the descriptions and keeps everybody else's.
func withOrigin(notes []string, o origin) []string {
	kept := []string{o.String()}
	for _, note := range notes {
		if parseOrigin(note) == (origin{}) {
			kept = append(kept, note)
		}
	}
	return kept
}
