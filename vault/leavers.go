package vault

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tokendesk/device"
	"tokendesk/vault/audit"
)

// ReturnState is what has become of a leaver's token.
type ReturnState string

// States. Open is what nobody has said anything of.
const (
	Open        ReturnState = "open"
	Returned    ReturnState = "returned"
	NotReturned ReturnState = "not returned" // by its deadline; it may still turn up
	WrittenOff  ReturnState = "written off"
)

// Leaver is somebody who leaves, and whose tokens are to come back. There is one record for each user.
type Leaver struct {
	User      string        `json:"user"`
	Successor string        `json:"successor,omitempty"` // who is to get them
	Deadline  time.Time     `json:"deadline"`
	Words     string        `json:"words,omitempty"` // an officer's
	By        audit.Officer `json:"by"`
	Created   time.Time     `json:"created"`
	Settled   time.Time     `json:"settled,omitzero"` // when the last of them was
	Items     []LeaverItem  `json:"items,omitempty"`
}

// LeaverItem is one token of a leaver.
type LeaverItem struct {
	Token   device.TokenID `json:"token"`
	State   ReturnState    `json:"state"`
	Time    time.Time      `json:"time,omitzero"`
	Officer string         `json:"officer,omitempty"`
	Words   string         `json:"words,omitempty"`
}

// maxItems is how many tokens of one leaver are kept track of.
const maxItems = 1000

func (l *Leaver) indexKeys() [][]byte { return nil }

func (l *Leaver) tally(count func(string)) {
	if l != nil && l.Settled.IsZero() {
		count(countLeavers)
	}
}

func leaverKey(user string) []byte { return []byte(fold(user)) }

// PutLeaver writes what is known of a leaver, and sets Created if it is zero.
func (tx *Tx) PutLeaver(l Leaver) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("cannot put leaver %q: %s", l.User, fmt.Sprintf(format, args...))
	}
	switch {
	case fold(l.User) == "":
		return errors.New("cannot put a leaver: it has no name")
	case l.Deadline.IsZero():
		return bad("there is no deadline")
	case len(l.Items) > maxItems:
		return bad("%d tokens are more than the %d that are kept track of", len(l.Items), maxItems)
	}
	texts := []struct {
		what, is string
		max      int
	}{{"name", l.User, maxOwner}, {"successor", l.Successor, maxOwner}, {"words", l.Words, maxDescription}}
	for _, item := range l.Items {
		if _, err := device.ParseTokenID(string(item.Token)); err != nil {
			return bad("%v", err)
		}
		if !slices.Contains([]ReturnState{Open, Returned, NotReturned, WrittenOff}, item.State) {
			return bad("there is no state %q", item.State)
		}
		texts = append(texts, struct {
			what, is string
			max      int
		}{"words", item.Words, maxDescription})
	}
	for _, t := range texts {
		if len(t.is) > t.max || !utf8.ValidString(t.is) || strings.ContainsFunc(t.is, unicode.IsControl) {
			return bad("its %s has more than %d bytes, control characters or no UTF-8", t.what, t.max)
		}
	}
	old, ok, err := tx.Leaver(l.User)
	if err != nil {
		return err
	}
	var was indexed
	if ok {
		was = &old
	}
	l.Deadline, l.Settled = moment(l.Deadline), moment(l.Settled)
	if l.Created.IsZero() {
		l.Created = time.Now()
	}
	l.Created = moment(l.Created)
	tx.weigh(heavy)
	return errors.Join(tx.reindex(was, &l), tx.store(bucketLeavers, leaverKey(l.User), l))
}

// Leaver returns what is known of a leaver, whatever the case of the name's letters.
func (tx *Tx) Leaver(user string) (l Leaver, ok bool, err error) {
	if fold(user) == "" {
		return l, false, nil
	}
	ok, err = tx.load(bucketLeavers, leaverKey(user), &l)
	return l, ok, err
}

// Leavers returns all of them, in the order of their names.
func (tx *Tx) Leavers() (out []Leaver, err error) {
	err = tx.scan(bucketLeavers, nil, nil, func(p pair) (bool, error) {
		var l Leaver
		err := tx.open(bucketLeavers, p.key, p.val, &l)
		out = append(out, l)
		return true, err
	})
	return out, err
}

// DeleteLeaver forgets a leaver, or returns ErrNotFound.
func (tx *Tx) DeleteLeaver(user string) error {
	l, ok, err := tx.Leaver(user)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("leaver %q: %w", user, ErrNotFound)
	}
	tx.weigh(heavy)
	return errors.Join(tx.reindex(&l, nil), tx.delete(bucketLeavers, leaverKey(user)))
}

// checkLeavers checks that leavers stand under their own names.
func (c *contents) checkLeavers() error {
	return c.scan(bucketLeavers, nil, nil, func(p pair) (bool, error) {
		var l Leaver
		if err := c.open(bucketLeavers, p.key, p.val, &l); err != nil {
			return false, err
		}
		if string(leaverKey(l.User)) != string(p.key) {
			return false, c.refuse(bucketLeavers, p.key, fmt.Errorf("it says it is that of %q", l.User))
		}
		return true, c.expect(&l)
	})
}
