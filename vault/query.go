package vault

import (
	"bytes"
	"errors"
	"iter"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"tokendesk/device"
)

// Filter selects tokens; its zero value selects all. Texts are compared in any case of letters, as directories compare names.
type Filter struct {
	Device device.ID
	Serial device.Serial // that of the token's name, or what it says itself; 0 for any
	Owner  string
	Status Status
	Batch  string
	Tenant string
	Stale  bool // only tokens to be resynchronized before use
	// WentBack: only tokens of which a provider of the central service went back.
	WentBack bool
	// Text is what the token's name, its device's number, its owner or a word of its description begins with. Of a
	// description the first 64 words can be found, and of a word its first 32 bytes.
	Text  string
	After device.TokenID // only names after this one: where the last page ended
	Limit int            // at most so many; 0 for as many as one call examines
}

// examined is how many entries of the index, or tokens, one call of Tokens looks at, and how many it collects before. Tests have
// less.
var examined = 10_000

// maxStreams is how many values are read at the same time.
var maxStreams = 256

// Tokens returns a page of the tokens that f selects, in the order of their names, and the name to go on after; that is empty
// when there are no more. A call looks at some 20,000 entries at most, however large the vault is. Where few of those match, the
// page has fewer tokens than Limit, or none, and next is not empty.
func (tx *Tx) Tokens(f Filter) (page []Token, next device.TokenID, err error) {
	err = tx.with(bucketIndex, func(e *entries) error {
		q := &query{tx: tx, index: e.Bucket, tokens: tx.bolt.Bucket([]byte(bucketTokens)), filter: f.folded(), left: examined}
		err := q.run()
		page, next = q.page, q.next
		return err
	})
	if err != nil {
		return nil, "", err
	}
	return page, next, nil
}

// AllTokens yields every token that f selects, in the order of their names, page by page: at most f.Limit on each. It ends
// after an error.
func (tx *Tx) AllTokens(f Filter) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		for {
			page, next, err := tx.Tokens(f)
			if err != nil {
				yield(Token{}, err)
				return
			}
			for _, t := range page {
				if !yield(t, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			f.After = next
		}
	}
}

func (f Filter) folded() Filter {
	f.Owner, f.Batch, f.Tenant, f.Text = fold(f.Owner), fold(f.Batch), fold(f.Tenant), fold(f.Text)
	return f
}

// matches tells whether a folded filter selects a token, if that is on the page and matches the text.
func (f Filter) matches(t *Token) bool {
	named, _ := t.ID.Device().Serial()
	return (f.Device == "" || f.Device == t.ID.Device()) &&
		(f.Serial == 0 || f.Serial == t.Serial || f.Serial == named) &&
		(f.Owner == "" || f.Owner == fold(t.Owner)) &&
		(f.Status == "" || f.Status == t.Status) &&
		(f.Batch == "" || f.Batch == fold(t.Batch)) &&
		(f.Tenant == "" || f.Tenant == fold(t.Tenant)) &&
		(!f.Stale || t.Stale) &&
		(!f.WentBack || t.WentBack)
}

func (f Filter) matchesText(t *Token) bool {
	if strings.HasPrefix(string(t.ID), f.Text) || strings.HasPrefix(numberOf(t.ID), f.Text) || strings.HasPrefix(fold(t.Owner), f.Text) {
		return true
	}
	if n, ok := t.ownSerial(); ok && strings.HasPrefix(n.String(), f.Text) {
		return true
	}
	for _, w := range words(t.Description) {
		if strings.HasPrefix(w, cut(f.Text, maxWord)) {
			return true
		}
	}
	return false
}

// family is what a token's name begins with, up to its device's number: "yk-".
func family(id device.TokenID) string { return string(id[:strings.IndexByte(string(id), '-')+1]) }

// numberOf is a token's name from its device's number on.
func numberOf(id device.TokenID) string { return string(id[len(family(id)):]) }

// query is one call of Tokens. It runs under Tx.with: the names that its sources return lie in the file's pages.
type query struct {
	tx            *Tx
	index, tokens *bbolt.Bucket
	filter        Filter // folded
	within        []byte // what every name begins with
	at            []byte // no name before it is of interest any more
	passed        []byte // the last name that was looked at
	left          int    // how much may still be examined
	page          []Token
	next          device.TokenID
}

func (q *query) run() error {
	if d := q.filter.Device; d != "" {
		if id, err := device.ParseTokenID(string(d)); err == nil {
			return q.single(id)
		}
		q.within = []byte(d + "/")
	}
	q.at = q.within
	if after := string(q.filter.After) + "\x00"; q.filter.After != "" && after > string(q.at) {
		q.at = []byte(after)
	}
	exact := q.exact()
	if q.filter.Text == "" {
		_, err := q.walk(exact, sure)
		return err
	}
	if more, err := q.walk(exact, patient); !more || err != nil {
		return err
	}
	text, ok := q.streams()
	if !ok {
		text, ok = q.collect()
	}
	d := stubborn
	if ok {
		exact, d = append(exact, &union{sources: text}), sure
	}
	_, err := q.walk(exact, d)
	return err
}

// single adds the one token of a device that is a token itself to the page.
func (q *query) single(id device.TokenID) error {
	t, err := q.tx.Token(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil && id > q.filter.After && q.filter.matches(&t) && q.filter.matchesText(&t) {
		q.page = append(q.page, t)
	}
	return err
}

// exact returns the sources for everything but the text; all tokens, if there are none.
func (q *query) exact() leapfrog {
	var l leapfrog
	add := func(kind byte, value string) {
		if value != "" {
			l = append(l, q.posting(kind, value))
		}
	}
	f := q.filter
	add(kindUser, f.Owner)
	add(kindBatch, f.Batch)
	add(kindTenant, f.Tenant)
	add(kindStatus, string(f.Status))
	if f.Stale {
		add(kindFlag, flagStale)
	}
	if f.WentBack {
		add(kindFlag, flagWentBack)
	}
	if f.Serial != 0 {
		l = append(l, &union{sources: []source{
			q.names(string(device.NitrokeyID(f.Serial)) + "/"), q.names(string(device.YubiKeyID(f.Serial)) + "/"), q.posting(kindSerial, f.Serial.String()),
		}})
	}
	if len(l) == 0 {
		l = append(l, q.names(""))
	}
	return l
}

// doubt is what a walk makes of tokens that do not match the text.
type doubt int

const (
	sure     doubt = iota // there are none: the index says so
	patient               // they are passed over while they are not many more than those that match
	stubborn              // they are passed over
)

// patience is how many tokens that do not match are borne before the first that does.
const patience = 8

// walk adds the tokens to the page that are in all sources and match. more says that it has lost patience.
func (q *query) walk(in leapfrog, d doubt) (more bool, err error) {
	misses := 0
	for {
		name := q.leap(in)
		if name == nil {
			return false, nil
		}
		t, err := q.tx.Token(device.TokenID(name))
		if errors.Is(err, ErrNotFound) {
			err = q.stray(name, "there is no such token")
		}
		if err != nil {
			return false, err
		}
		switch text := q.filter.matchesText(&t); {
		case !q.filter.matches(&t), !text && d == sure:
			return false, q.stray(name, "that token is not what it says")
		case !text:
			misses++
		case q.filter.Limit > 0 && len(q.page) == q.filter.Limit:
			q.next = q.page[len(q.page)-1].ID
			return false, nil
		default:
			q.page = append(q.page, t)
		}
		q.passed, q.at = name, append(bytes.Clone(name), 0)
		if d == patient && misses > len(q.page)+patience {
			return true, nil
		}
	}
}

// leap returns the least name from q.at on that is in all sources, or nil, with q.next, when there is none or enough was examined.
func (q *query) leap(in leapfrog) []byte {
	name, agree := q.at, 0
	for i := 0; agree < len(in); i = (i + 1) % len(in) {
		if q.left == 0 {
			q.next = device.TokenID(q.passed)
			return nil
		}
		q.left--
		n := in[i].seek(name)
		switch {
		case n == nil, !bytes.HasPrefix(n, q.within):
			return nil
		case bytes.Equal(n, name):
			agree++
		default:
			if agree > 0 {
				q.passed = name
			}
			name, agree = n, 1
		}
	}
	return name
}

func (q *query) stray(name []byte, why string) error {
	return corrupt("%s: the entry for token %s in %s was changed behind the vault's back: %s", q.tx.s.path, name, bucketIndex, why)
}

// streams returns the sources for the text, if few values begin with it.
func (q *query) streams() ([]source, bool) {
	out := q.named()
	for _, r := range q.ranges() {
		c := q.index.Cursor()
		for key, _ := c.Seek(r); bytes.HasPrefix(key, r); {
			if len(out) == maxStreams {
				return nil, false
			}
			n := bytes.IndexByte(key, 0)
			if n < 0 {
				n = len(key) // its name is empty, and will be refused
			}
			value := key[:n]
			out = append(out, q.posting(value[0], string(value[1:])))
			if key, _ = c.Next(); bytes.HasPrefix(key, value) && len(key) > n && key[n] == 0 {
				key, _ = c.Seek(append(bytes.Clone(value), 1))
			}
		}
	}
	return out, true
}

// collect returns the sources for the text, if not too many entries begin with it.
func (q *query) collect() ([]source, bool) {
	l := &list{}
	n := 0
	for _, r := range q.ranges() {
		c := q.index.Cursor()
		for key, _ := c.Seek(r); bytes.HasPrefix(key, r); key, _ = c.Next() {
			if n++; n > examined {
				return nil, false
			}
			if name := key[bytes.IndexByte(key, 0)+1:]; bytes.Compare(name, q.at) >= 0 && bytes.HasPrefix(name, q.within) {
				l.names = append(l.names, name)
			}
		}
	}
	slices.SortFunc(l.names, bytes.Compare)
	return append(q.named(), l), true
}

// ranges are what index entries begin with whose value begins with the text.
func (q *query) ranges() [][]byte {
	of := func(kind byte, text string) []byte { return append([]byte{kind}, text...) }
	return [][]byte{of(kindUser, q.filter.Text), of(kindWord, cut(q.filter.Text, maxWord)), of(kindSerial, q.filter.Text)}
}

// named is the tokens whose names, or the numbers in them, begin with the text.
func (q *query) named() []source {
	u := []source{q.names(q.filter.Text)}
	c := q.tokens.Cursor()
	for name, _ := c.First(); name != nil; {
		f := family(device.TokenID(name))
		if f == "" {
			break
		}
		u = append(u, q.names(f+q.filter.Text))
		name, _ = c.Seek([]byte(f[:len(f)-1] + string('-'+1)))
	}
	return u
}
