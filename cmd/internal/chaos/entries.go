package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
)

// What package openldap documents: how long replication is waited for before another server is written directly, and how long a
// server that it did not reach in time is not waited for again.
const (
	grace      = 1500 * time.Millisecond
	impatience = 5 * time.Second
)

// entry is one of the outbox, as the audit trail tells of it: the desk had it from then to then.
type entry struct {
	kind     string
	from, to time.Time
	dropped  bool // as obsolete
}

func (e entry) cutsOff() bool { return e.kind == "unassign" || e.kind == "disable" }

// causes are the acts that leave an entry.
var causes = map[string][]string{
	"assign": {"assign"}, "unassign": {"unassign"}, "disable": {"disable"}, "enable": {"enable"},
	"enroll: assign": {"put", "assign"}, "reissue: assign": {"put", "assign"}, "reissue: cut-off": {"unassign"},
}

// cause is an act that has left an entry.
type cause struct {
	at time.Time
	// beside: an Assign that comes with a Put, which does all there is to do to the token's entry, unless a cut-off comes in between.
	beside bool
}

// entriesOf lists a token's entries that were delivered or dropped; no Advance, which changes nothing but a counter. An act that may
// have left no entry, as there was nobody to be cut off, makes one more begin too early at most.
func entriesOf(id device.TokenID, acts []api.Act) (all []entry) {
	waiting := map[string][]cause{}
	for _, a := range acts {
		if a.Object != string(id) {
			continue
		}
		for _, kind := range causes[a.Action] {
			beside := kind == "assign" && a.Action != "assign"
			if !beside || a.Reason != "" { // it names the user, if there is one
				waiting[kind] = append(waiting[kind], cause{a.Time, beside})
			}
		}
		kind, ended := strings.CutPrefix(a.Action, "push ")
		if !ended || a.Outcome == "parked" || kind == "advance" {
			continue
		}
		e := entry{kind: kind, to: a.Time, dropped: a.Outcome == "obsolete"}
		if began := waiting[kind]; len(began) > 0 {
			waiting[kind] = began[1:]
			e.from = began[0].at
			if began[0].beside && !slices.ContainsFunc(all, func(c entry) bool { return c.cutsOff() && c.to.After(e.from) }) {
				continue
			}
		}
		all = append(all, e)
	}
	return all
}

// mayHave tells whether a write can be an entry's, by its time and by what it does. To a server that hangs, a write may come
// after the desk has given it up, and done without.
func (s *stage) mayHave(e entry, w act) bool {
	if w.when.Before(e.from) || w.opens && e.cutsOff() {
		return false
	}
	to := e.to
	for _, o := range s.outages {
		if o.server == w.at+1 && o.from.Before(e.to) && o.to.After(e.from) && o.to.Add(time.Second).After(to) {
			to = o.to.Add(time.Second)
		}
	}
	return !w.when.After(to)
}

// settleAccounts has each write of a token's entry at either server, which changes more than the counter, belong to an entry of the
// outbox:
//
//   - At one server an entry makes one such write at most. One more is made only if replication has taken the first back.
//   - At both servers together too, unless it is a cut-off, which is made everywhere at once. It is made at the other server as
//     well only if replication has not brought it there within its grace, or did not do so for another a moment ago.
//   - An entry that brings a new seed makes at least one. A cut-off removes the secret at one server at least, if both had it
//     when it was left.
//
// A write beyond that is told and counted, and no failure yet: in one run on a busy machine two had no entry left, which is not
// explained. An entry that is tried again while a server is away may write each time, which the audit trail does not tell.
//
// Writes of the counter alone are not counted: each can only raise it, and so brings what was not known before.
func (s *stage) settleAccounts(id device.TokenID, servers [2][]act, entries []entry) {
	var ours []act
	for _, writes := range servers {
		for _, w := range writes {
			switch {
			case !w.ours || !w.changed:
			case w.onlyRaises:
				s.result.raises++
			default:
				ours = append(ours, w)
			}
		}
	}
	slices.SortStableFunc(ours, func(a, b act) int { return a.when.Compare(b.when) })
	var once, each []place // an entry's place for a write, anywhere and at each server
	for _, e := range entries {
		each = append(each, place{e, 0}, place{e, 1})
		if e.cutsOff() {
			once = append(once, place{e, 0}, place{e, 1})
			continue
		}
		once = append(once, place{e, anywhere})
	}
	for _, w := range s.unclaimed(each, ours) {
		if takenBack(servers[w.at], w) {
			s.result.undone++
			continue
		}
		s.beyond("server %d: no entry of the outbox is left for this write: %s", w.at+1, w)
	}
	for _, w := range s.unclaimed(once, ours) {
		switch {
		case takenBack(servers[w.at], w):
		case s.late(w, ours):
			s.result.direct++
		default:
			s.beyond("server %d: the other one was written already, and replication was not late: %s", w.at+1, w)
		}
	}
	for _, e := range entries {
		if !e.dropped && !atLeastOnce(e, ours, servers) {
			s.fail("%s of %s, left at %s and delivered at %s, was written nowhere", e.kind, id, e.from.Format(clock), e.to.Format(clock))
		}
	}
}

// beyond notes a write for which no entry is left.
func (s *stage) beyond(format string, args ...any) {
	s.result.twice = append(s.result.twice, fmt.Sprintf(format, args...))
	s.say(format, args...)
}

// place is a write that an entry may have made, at one server or anywhere.
type place struct {
	entry
	at int
}

const anywhere = -1

// unclaimed gives as many writes as possible a place each, the earlier ones first, and returns the others (a maximum matching, by
// augmenting paths).
func (s *stage) unclaimed(places []place, writes []act) (left []act) {
	taken := make([]int, len(places)) // by which write, from 1
	for i := range writes {
		if !s.claim(places, writes, taken, i, make([]bool, len(places))) {
			left = append(left, writes[i])
		}
	}
	return left
}

func (s *stage) claim(places []place, writes []act, taken []int, i int, tried []bool) bool {
	for n, sl := range places {
		if tried[n] || sl.at != anywhere && sl.at != writes[i].at || !s.mayHave(sl.entry, writes[i]) {
			continue
		}
		tried[n] = true
		if taken[n] == 0 || s.claim(places, writes, taken, taken[n]-1, tried) {
			taken[n] = i + 1
			return true
		}
	}
	return false
}

// takenBack tells whether replication has changed the entry at that server since the desk last wrote it there.
func takenBack(writes []act, w act) bool {
	replicated := false
	for _, b := range writes {
		switch {
		case !b.Time.Before(w.Time):
			return replicated
		case b.onlyRaises || !b.changed:
		default:
			replicated = !b.ours
		}
	}
	return replicated
}

// late tells whether replication had its time to bring what the desk wrote at the other server, or was known not to.
func (s *stage) late(w act, ours []act) bool {
	var first *act
	for i := range ours {
		if o := &ours[i]; o.at != w.at && !o.when.After(w.when) {
			first = o
		}
	}
	if first == nil {
		return false
	}
	if w.when.Sub(first.when) >= grace {
		return true
	}
	for _, o := range s.outages {
		back := o.to.Add(o.to.Sub(o.from) + 2*time.Second) // until the servers have found each other again (retry, and TCP's)
		if o.replication && o.from.Before(w.when) && back.After(first.when.Add(-grace-impatience)) {
			return true
		}
	}
	return false
}

// atLeastOnce tells whether an entry that had to change something did.
func atLeastOnce(e entry, ours []act, servers [2][]act) bool {
	within := func(w act) bool { return !w.when.Before(e.from) && !w.when.After(e.to) }
	switch {
	case e.kind == "put":
		return slices.ContainsFunc(ours, within)
	case e.cutsOff() && openAt(servers[0], e.from) && openAt(servers[1], e.from):
		return slices.ContainsFunc(ours, func(w act) bool { return w.closes && within(w) })
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
