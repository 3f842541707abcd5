package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"tokendesk/device"
)

// The index is a bucket of keys without values, which the ledger counts like all other entries. A token has an entry for each of
// its facts: the kind (1 byte), the value, a zero byte (which no value contains) and the token's name. Under one value the
// names therefore stand in their order, which is that of every page. What a name says itself, its device and mostly its serial,
// has no entry: the bucket of tokens is its index.
//
// The entries of a job, change, act or handover end in its number instead, in 8 bytes: under one value they stand in the order of
// their numbers. A job, change or act has one under its token, a cut-off another under its user. Cut-offs are also a list of their own,
// and so is what is parked: they are found however much else waits.
//
// The entry of a token that will expire is the kind, the time in 8 bytes, and the token's name: they stand in the order of time.
const (
	kindBatch  = 'b'
	kindChange = 'c'
	kindDue    = 'd' // certificates that wait for being revoked
	kindExpiry = 'e'
	kindFlag   = 'f'
	kindGiven  = 'g' // handovers, by token
	kindActs   = 'h' // the history of a token
	kindJob    = 'j'
	kindList   = 'l' // see the lists below
	kindSerial = 'n' // only where it is not that of the name
	kindPrint  = 'k' // certificates, by their SHA-256
	kindPerson = 'p' // handovers, by who had the token and who got it
	kindCard   = 'r' // certificates, by token
	kindStatus = 's'
	kindTenant = 't'
	kindUser   = 'u'
	kindWord   = 'w' // of the description
	kindCutOff = 'x' // by the user, who may be nobody
)

const (
	flagStale    = "stale"
	flagWentBack = "went back"
)

// Lists of changes.
const (
	listCutOffs = "cut-offs"
	listParked  = "parked"
)

// Bounds of what a token can say, in bytes, and of what is indexed of its description.
const (
	maxOwner       = 256
	maxLabel       = 64 // batch and tenant
	maxDescription = 1024
	maxAddress     = 320 // RFC 5321 section 4.5.3.1: 64 of a local part, 255 of a domain, and the @
	maxWords       = 64
	maxWord        = 32
)

// fold is what the index keeps of a text, and what filters compare: lower case, without control characters. What
// strings.EqualFold takes for the same is the same.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		least := r
		for other := unicode.SimpleFold(r); other != r; other = unicode.SimpleFold(other) {
			least = min(least, other)
		}
		return unicode.ToLower(least)
	}, s)
}

// words are those of a description that can be looked for: each once, without the punctuation around it.
func words(description string) []string {
	var out []string
	for w := range strings.FieldsSeq(fold(description)) {
		w = strings.TrimFunc(w, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) })
		if w = cut(w, maxWord); w != "" && !slices.Contains(out, w) {
			if out = append(out, w); len(out) == maxWords {
				break
			}
		}
	}
	return out
}

// cut shortens s to at most n bytes and does not split a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// checkTexts refuses what a token newly says that the index could not keep, or nobody could read.
func checkTexts(t, old Token) error {
	for _, x := range []struct {
		what, is, was string
		max           int
	}{
		{"owner", t.Owner, old.Owner, maxOwner},
		{"batch", t.Batch, old.Batch, maxLabel},
		{"tenant", t.Tenant, old.Tenant, maxLabel},
		{"description", t.Description, old.Description, maxDescription},
		{"address", t.Address, old.Address, maxAddress},
	} {
		switch {
		case x.is == x.was: // also what came from an older format, which had no bounds
		case len(x.is) > x.max:
			return fmt.Errorf("cannot put token %s: its %s has %d bytes, and may have %d; shorten it", t.ID, x.what, len(x.is), x.max)
		case !utf8.ValidString(x.is), strings.ContainsFunc(x.is, unicode.IsControl):
			return fmt.Errorf("cannot put token %s: its %s contains control characters or is not UTF-8; take them out", t.ID, x.what)
		}
	}
	return nil
}

// indexPrefix is what the entries of a value begin with.
func indexPrefix(kind byte, value string) []byte {
	return append(append(append(make([]byte, 0, len(value)+32), kind), value...), 0)
}

func indexKey(kind byte, value string, id device.TokenID) []byte {
	return append(indexPrefix(kind, value), id...)
}

func numberedKey(kind byte, value string, n uint64) []byte {
	return binary.BigEndian.AppendUint64(indexPrefix(kind, value), n)
}

// ownSerial is a serial that the token's name does not tell.
func (t *Token) ownSerial() (device.Serial, bool) {
	named, _ := t.ID.Device().Serial()
	return t.Serial, t.Serial != 0 && t.Serial != named
}

// indexKeys are a token's entries.
func (t *Token) indexKeys() [][]byte {
	if t == nil {
		return nil
	}
	keys := make([][]byte, 0, 8) // few have more
	add := func(kind byte, value string) {
		if value != "" {
			keys = append(keys, indexKey(kind, value, t.ID))
		}
	}
	add(kindStatus, string(t.Status))
	add(kindUser, fold(t.Owner))
	add(kindBatch, fold(t.Batch))
	add(kindTenant, fold(t.Tenant))
	if n, ok := t.ownSerial(); ok {
		add(kindSerial, n.String())
	}
	if t.Stale {
		add(kindFlag, flagStale)
	}
	if t.WentBack {
		add(kindFlag, flagWentBack)
	}
	for _, w := range words(t.Description) {
		add(kindWord, w)
	}
	if t.expires() {
		keys = append(keys, expiryKey(t.Expires, t.ID))
	}
	return keys
}

// indexed is a token or one of the records that belong to it; nil has no entries and does not count.
type indexed interface {
	indexKeys() [][]byte
	tally(count func(name string))
}

// reindex keeps the index and the counts when a token, job or change changes: was is nil for a new one, is for one that goes.
// Only differences are written.
func (tx *Tx) reindex(was, is indexed) error {
	if tx.summer == nil {
		return errReadOnly
	}
	var old, now [][]byte
	if was != nil {
		old = was.indexKeys()
		tallyIn(tx.ledger.Counts, was, -1)
	}
	if is != nil {
		now = is.indexKeys()
		tallyIn(tx.ledger.Counts, is, 1)
	}
	for _, k := range old {
		if !contains(now, k) {
			if err := tx.delete(bucketIndex, k); err != nil {
				return err
			}
		}
	}
	for _, k := range now {
		if !contains(old, k) {
			if err := tx.put(bucketIndex, k, []byte{}); err != nil {
				return err
			}
		}
	}
	return nil
}

func contains(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}

func (j *Job) indexKeys() [][]byte {
	if j == nil {
		return nil
	}
	return [][]byte{numberedKey(kindJob, string(j.Token), j.ID)}
}

func (c *Change) indexKeys() [][]byte {
	if c == nil {
		return nil
	}
	keys := [][]byte{numberedKey(kindChange, string(c.Token), c.Seq)}
	if c.Kind.CutOff() {
		keys = append(keys, numberedKey(kindCutOff, fold(c.User), c.Seq), numberedKey(kindList, listCutOffs, c.Seq))
	}
	if c.Parked {
		keys = append(keys, numberedKey(kindList, listParked, c.Seq))
	}
	return keys
}

// numbered returns the numbers of jobs or changes under a value that are greater than after, ascending: at most limit, or all
// if limit is 0.
func (tx *Tx) numbered(kind byte, value string, after uint64, limit int) (out []uint64, err error) {
	prefix := indexPrefix(kind, value)
	err = tx.scan(bucketIndex, prefix, numberedKey(kind, value, after), func(p pair) (bool, error) {
		if len(p.key) != len(prefix)+8 {
			return false, tx.refuse(bucketIndex, p.key, errors.New("it has no number"))
		}
		out = append(out, binary.BigEndian.Uint64(p.key[len(prefix):]))
		return limit <= 0 || len(out) < limit, nil
	})
	return out, err
}

// astray says that an entry leads to a job or change that is not there, or not what the entry says.
func (tx *Tx) astray(kind byte, value string, n uint64) error {
	return tx.refuse(bucketIndex, numberedKey(kind, value, n), errors.New("it leads to nothing of that kind"))
}

// Counts is how much there is of what. It is authenticated, and costs nothing to ask for.
type Counts struct {
	Tokens int
	Status map[Status]int // tokens; a status that no token has is not in it
	Stock  int            // tokens that are active and have no owner
	Stale  int            // tokens to be resynchronized before use
	Jobs   int            // unfinished ones

	Waiting int // changes in the outbox
	CutOffs int // those of them that end somebody's access
	Parked  int // those of them that wait for an officer

	Approvals int // orders that wait for a second officer
	Leavers   int // people whose tokens are to come back

	Notices       int // mail that is not sent yet
	NoticesParked int // that of it which waits for an officer

	Revocations int // certificates that wait for being revoked
}

const (
	countTokens  = "tokens"
	countStatus  = "status " // and the status
	countStock   = "stock"
	countStale   = "stale"
	countJobs    = "jobs"
	countWaiting = "waiting"
	countCutOffs = "cut-offs"
	countParked  = "parked"

	countApprovals = "approvals"
	countLeavers   = "leavers"

	countNotices       = "notices"
	countNoticesParked = "notices parked"

	countRevocations = "revocations"
)

// Counts says how much there is of what.
func (tx *Tx) Counts() Counts {
	n := tx.ledger.Counts
	c := Counts{Tokens: n[countTokens], Status: map[Status]int{}, Stock: n[countStock], Stale: n[countStale], Jobs: n[countJobs],
		Waiting: n[countWaiting], CutOffs: n[countCutOffs], Parked: n[countParked], Approvals: n[countApprovals],
		Leavers: n[countLeavers], Notices: n[countNotices], NoticesParked: n[countNoticesParked],
		Revocations: n[countRevocations]}
	for name, i := range n {
		if s, ok := strings.CutPrefix(name, countStatus); ok {
			c.Status[Status(s)] = i
		}
	}
	return c
}

// tallyIn adds n to each count that x belongs to.
func tallyIn(counts map[string]int, x indexed, n int) {
	x.tally(func(name string) {
		if counts[name] += n; counts[name] == 0 {
			delete(counts, name)
		}
	})
}

func (t *Token) tally(count func(string)) {
	if t == nil {
		return
	}
	count(countTokens)
	count(countStatus + string(t.Status))
	if t.Status == Active && t.Owner == "" {
		count(countStock)
	}
	if t.Stale {
		count(countStale)
	}
}

func (j *Job) tally(count func(string)) {
	if j != nil {
		count(countJobs)
	}
}

func (c *Change) tally(count func(string)) {
	if c == nil {
		return
	}
	count(countWaiting)
	if c.Kind.CutOff() {
		count(countCutOffs)
	}
	if c.Parked {
		count(countParked)
	}
}
