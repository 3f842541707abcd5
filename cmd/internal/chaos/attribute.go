package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
)

// What package openldap documents: how long replication is waited for before another server is written directly, and how long a
// server that it did not reach in time is not waited for again.
const (
	grace      = 1500 * time.Millisecond
	impatience = 5 * time.Second
)

// onItsWay is how long after the daemon was killed, or a server was there again, what was sent to the server may be carried out.
const onItsWay = time.Second

// claim says that an attempt to deliver an entry made a write: numbers in the book.
type claim struct {
	write, entry, attempt int
	why                   reason
}

// reason is why an entry made a write.
type reason string

const (
	unexplained reason = ""
	own         reason = "its own"
	direct      reason = "replication was late"
	again       reason = "replication took the first one back"
	reopened    reason = "another entry opened it in between"
)

// book is what was written to a token's entry, and what the outbox had of that token.
type book struct {
	*stage
	id      device.TokenID
	servers [2][]act
	writes  []act // of the desk, that changed more than the counter, in order of time
	entries []entry
}

func (s *stage) book(id device.TokenID, servers [2][]act, entries []entry) *book {
	b := &book{stage: s, id: id, servers: servers, entries: entries}
	for _, all := range servers {
		for _, w := range all {
			if w.ours && w.more {
				b.writes = append(b.writes, w)
			}
		}
	}
	slices.SortStableFunc(b.writes, func(a, b act) int { return a.when.Compare(b.when) })
	return b
}

// settle has each write of the desk to a token's entry, at either server, belong to one attempt to deliver one entry of the outbox:
//
//   - An attempt makes one write at each server, at most.
//   - An entry makes one write. A cut-off makes one at each server, as it is made everywhere at once. An Advance, and an Assign
//     beside a Put, make none.
//   - It makes one more at the same server only if replication has taken the first back, or a cut-off if another entry has opened
//     the token there in between: an earlier one that was delivered after it, when the vault wanted the token open again.
//   - It makes one more at the other server only if replication had not brought the first there: within its grace, or when the
//     attempt ended that had made it, or as the servers were apart a moment ago. In that way it may also make what an earlier
//     entry wrote at the other server.
//   - An entry that brings a new seed makes at least one. A cut-off removes the secret at one server at least, if both had it
//     when it was left.
//
// Of writes of the counter alone there may be several, as each can only raise it, and so brings what was not known before. They
// fall into an attempt as well.
func (b *book) settle() {
	claims := b.attribute()
	for i, w := range b.writes {
		switch claims[i].why {
		case unexplained:
			b.result.beyond++
			b.fail("server %d: no attempt of an entry explains a write: %s", w.at+1, b.around(i, claims))
		case direct:
			b.result.direct++
		case again, reopened:
			b.result.undone++
		}
	}
	for _, all := range b.servers {
		for _, w := range all {
			if !w.ours || !w.changed || w.more {
				continue
			}
			b.result.raises++
			if !slices.ContainsFunc(b.entries, func(e entry) bool {
				return slices.ContainsFunc(e.attempts, func(a attempt) bool { return b.covers(a, w) })
			}) {
				b.result.beyond++
				b.fail("server %d: a counter was raised when no entry was tried: %s%s", w.at+1, w, b.entriesAt(w.when))
			}
		}
	}
	for _, e := range b.entries {
		if !e.dropped && !b.atLeastOnce(e) {
			b.fail("%s of %s was written nowhere", e, b.id)
		}
	}
}

// ledger is one way to attribute the writes up to one of them.
type ledger struct {
	cost   int
	claims []claim
}

// Costs of a claim.
const (
	costOwn, costFurther, costUnexplained = 0, 1, 1000
)

// attribute finds the claims that leave the fewest writes unexplained. It goes through the writes by time and keeps the best of
// the ledgers that leave the same to the writes to come.
func (b *book) attribute() []claim {
	last := make([]int, len(b.entries)) // the last write that an entry may claim
	for i, w := range b.writes {
		for n, e := range b.entries {
			if slices.ContainsFunc(e.attempts, func(a attempt) bool { return b.may(e, a, w) }) {
				last[n] = i
			}
		}
	}
	best := map[string]ledger{"": {}}
	for i := range b.writes {
		next := map[string]ledger{}
		for _, l := range best {
			for _, c := range b.claimsFor(l, i) {
				n := ledger{l.cost + c.cost(), append(slices.Clip(l.claims), c)}
				key := n.key(last, i)
				if known, ok := next[key]; !ok || n.cost < known.cost {
					next[key] = n
				}
			}
		}
		best = next
	}
	return best[""].claims // after the last write there is nothing to come
}

func (c claim) cost() int {
	switch c.why {
	case own:
		return costOwn
	case unexplained:
		return costUnexplained
	}
	return costFurther
}

// key tells ledgers apart by the claims of entries that may claim another write after i.
func (l ledger) key(last []int, i int) string {
	var k strings.Builder
	for _, c := range l.claims {
		if c.why != unexplained && last[c.entry] > i {
			fmt.Fprint(&k, c.write, " ", c.entry, " ", c.attempt, ",")
		}
	}
	return k.String()
}

// claimsFor lists who may have made a write, after the claims before it. Nobody may always.
func (b *book) claimsFor(l ledger, i int) []claim {
	all := []claim{{write: i}}
	for n, e := range b.entries {
		for k, a := range e.attempts {
			if !b.may(e, a, b.writes[i]) {
				continue
			}
			if why := b.reason(l, claim{write: i, entry: n, attempt: k}); why != unexplained {
				all = append(all, claim{i, n, k, why})
			}
		}
	}
	return all
}

// may tells whether an attempt can have made a write, by its time and by what it does.
func (b *book) may(e entry, a attempt, w act) bool {
	return b.covers(a, w) && !(w.opens && e.cutsOff())
}

// covers tells whether a write was made in the time of an attempt. To a server that hangs, it may come after the desk has given
// it up.
func (b *book) covers(a attempt, w act) bool {
	to := a.to
	if a.end == killed {
		to = to.Add(onItsWay)
	}
	for _, o := range b.outages {
		if o.server == w.at+1 && o.from.Before(a.to) && o.to.After(a.from) {
			to = latest(to, o.to.Add(onItsWay))
		}
	}
	return !w.when.Before(a.from) && !w.when.After(to)
}

// reason says why an entry would have made a write in an attempt, given what else it made.
func (b *book) reason(l ledger, c claim) reason {
	w, e := b.writes[c.write], b.entries[c.entry]
	var here, there *claim // the entry's last ones
	var mine []string
	if e.spare && c.write > 0 {
		mine = append(mine, b.writes[c.write-1].CSN) // most likely the Put's
	}
	for i := range l.claims {
		o := &l.claims[i]
		if o.why == unexplained || o.entry != c.entry {
			continue
		}
		mine = append(mine, b.writes[o.write].CSN)
		switch {
		case b.writes[o.write].at != w.at:
			there = o
		case o.attempt == c.attempt:
			return unexplained
		default:
			here = o
		}
	}
	switch {
	case !e.spare && here == nil && (there == nil || e.cutsOff()):
		return own
	case b.takenBack(w, mine):
		return again
	case here != nil && e.cutsOff() && b.opened(l, *here, c):
		return reopened
	case here != nil:
		return unexplained
	case there != nil && b.late(b.writes[there.write], w, there.attempt < c.attempt):
		return direct
	case e.spare && b.lateAny(w):
		return direct
	}
	return unexplained
}

// opened tells whether another entry has opened the token between two writes of an entry at a server.
func (b *book) opened(l ledger, first, second claim) bool {
	return slices.ContainsFunc(l.claims, func(o claim) bool {
		w := b.writes[o.write]
		return o.write > first.write && w.at == b.writes[second.write].at && w.opens && o.why != unexplained && o.entry != second.entry
	})
}

// takenBack tells whether replication has changed the entry at that server since the desk last wrote it there; other than by
// bringing what the entry of the outbox itself wrote at the other server.
func (b *book) takenBack(w act, mine []string) bool {
	replicated := false
	for _, before := range b.servers[w.at] {
		switch {
		case before.CSN == w.CSN:
			return replicated
		case before.more:
			replicated = !before.ours && !slices.Contains(mine, before.CSN)
		}
	}
	return false
}

// late tells whether replication had its time to bring a write to another server and did not, or was known to be away. After an
// attempt that failed the next one does not wait for what may have come of it.
func (b *book) late(first, w act, nextAttempt bool) bool {
	for _, r := range b.servers[w.at] {
		if r.CSN == w.CSN {
			break
		}
		if r.CSN == first.CSN {
			return false
		}
	}
	if nextAttempt || w.when.Sub(first.when) >= grace {
		return true
	}
	for _, o := range b.outages {
		back := o.to.Add(o.to.Sub(o.from) + 2*time.Second) // until the servers have found each other again (retry, and TCP's)
		if o.replication && o.from.Before(w.when) && back.After(first.when.Add(-grace-impatience)) {
			return true
		}
	}
	return false
}

// lateAny is late for the last write at the other server, whoever made it.
func (b *book) lateAny(w act) bool {
	for i := len(b.writes) - 1; i >= 0; i-- {
		if o := b.writes[i]; o.at != w.at && o.when.Before(w.when) {
			return b.late(o, w, false)
		}
	}
	return false
}

// atLeastOnce tells whether an entry that had to change something did.
func (b *book) atLeastOnce(e entry) bool {
	within := func(w act) bool { return !w.when.Before(e.from) && !w.when.After(e.to) }
	switch {
	case e.kind == "put":
		return slices.ContainsFunc(b.writes, within)
	case e.cutsOff() && openAt(b.servers[0], e.from) && openAt(b.servers[1], e.from):
		return slices.ContainsFunc(b.writes, func(w act) bool { return w.closes && within(w) })
	}
	return true
}

// openAt tells whether the secret was there all through that second: the log is not more precise.
func openAt(writes []act, t time.Time) bool {
	begin, open := t.Truncate(time.Second), false
	for _, w := range writes {
		switch {
		case w.Time.Before(begin):
			open = w.open
		case w.Time.Before(begin.Add(time.Second)):
			open = open && w.open
		}
	}
	return open
}

// nearby is what may have to do with a write.
const nearby = 5 * time.Second

// around tells of a write, of the others about that time and who claims them, and of the entries that the outbox had.
func (b *book) around(i int, claims []claim) string {
	w := b.writes[i]
	var text strings.Builder
	fmt.Fprintf(&text, "%s, at %s", w, w.when.Format(clock))
	for at, all := range b.servers {
		for _, o := range all {
			if o.when.IsZero() || o.when.Sub(w.when).Abs() > nearby || !o.changed {
				continue
			}
			whose := "replicated"
			if o.ours {
				whose = "the desk's"
			}
			if n := slices.IndexFunc(b.writes, func(x act) bool { return x.CSN == o.CSN && x.at == at }); n >= 0 && claims[n].why != unexplained {
				whose = fmt.Sprintf("of change %d, attempt %d, %s", b.entries[claims[n].entry].seq, claims[n].attempt+1, claims[n].why)
			}
			fmt.Fprintf(&text, "\n    server %d, %s, %s: %s", at+1, o.when.Format(clock), whose, o)
		}
	}
	text.WriteString(b.entriesAt(w.when))
	for _, o := range b.outages {
		if o.from.Before(w.when.Add(nearby)) && o.to.After(w.when.Add(-nearby)) {
			fmt.Fprintf(&text, "\n    %s from %s to %s", o.what, o.from.Format(clock), o.to.Format(clock))
		}
	}
	return text.String()
}

func (b *book) entriesAt(t time.Time) string {
	var text strings.Builder
	for _, e := range b.entries {
		if e.from.Before(t.Add(nearby)) && e.to.After(t.Add(-nearby)) {
			fmt.Fprintf(&text, "\n    %s", e)
		}
	}
	return text.String()
}
