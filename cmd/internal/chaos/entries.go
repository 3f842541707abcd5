package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
)

// entry is one of the outbox, as the audit trail and the daemon's log tell of it: the desk had it from then to then.
type entry struct {
	seq      uint64 // 0 if the daemon was killed before it could log the end
	kind     string
	from, to time.Time
	dropped  bool // as obsolete
	// spare: it has nothing of its own to write but a counter. So has an Assign beside a Put, which does all there is to do to the
	// token's entry, unless a cut-off comes in between.
	spare    bool
	attempts []attempt
}

const advance = "advance"

func (e entry) cutsOff() bool { return e.kind == "unassign" || e.kind == "disable" }

func (e entry) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (change %d) from %s to %s", e.kind, e.seq, e.from.Format(clock), e.to.Format(clock))
	for _, a := range e.attempts {
		fmt.Fprintf(&b, ", tried %s-%s", a.from.Format(clock), a.to.Format(clock))
		if a.end != delivered {
			fmt.Fprintf(&b, " (%s)", a.end)
		}
	}
	return b.String()
}

// attempt is a time in which the daemon tried once, at most, to deliver an entry.
type attempt struct {
	from, to time.Time
	end      ending
}

type ending string

const (
	delivered ending = "delivered"
	failed    ending = "failed"
	killed    ending = "killed"
)

// causes are the acts that leave an entry.
var causes = map[string][]string{
	"assign": {"assign"}, "unassign": {"unassign"}, "disable": {"disable"}, "enable": {"enable"},
	"enroll: assign": {"put", "assign"}, "reissue: assign": {"put", "assign"}, "reissue: cut-off": {"unassign"},
}

// cause is an act that has left an entry.
type cause struct {
	at     time.Time
	beside bool // an Assign that comes with a Put
}

// causesOf lists by kind what has left entries of a token.
func causesOf(id device.TokenID, acts []api.Act) map[string][]cause {
	all, owned := map[string][]cause{}, false
	for _, a := range acts {
		if a.Object != string(id) || a.Outcome != "done" || causes[a.Action] == nil {
			continue
		}
		named := a.Reason != "" // the user
		for _, kind := range causes[a.Action] {
			beside := kind == "assign" && a.Action != "assign"
			if beside && !named || a.Action == "reissue: cut-off" && !owned {
				continue // there is nobody
			}
			all[kind] = append(all[kind], cause{a.Time, beside})
		}
		switch a.Action {
		case "assign", "enroll: assign", "reissue: assign":
			owned = named
		case "unassign", "reissue: cut-off":
			owned = false
		}
	}
	return all
}

// entriesOf lists what the outbox had of each token, in the order of its ends. What was never delivered ends now.
func entriesOf(ids []device.TokenID, acts []api.Act, log []change, kills []outage) map[device.TokenID][]entry {
	all := map[device.TokenID][]entry{}
	for _, id := range ids {
		all[id] = begun(ended(id, acts, log, kills), causesOf(id, acts))
	}
	beginAdvances(all)
	for _, entries := range all {
		for i := range entries {
			entries[i].divide(log, kills)
		}
	}
	return all
}

// ended lists a token's entries that were delivered or dropped.
func ended(id device.TokenID, acts []api.Act, log []change, kills []outage) (all []entry) {
	waiting := map[string][]change{} // for their entry, by kind
	for _, c := range log {
		if c.token == string(id) && !c.ended.IsZero() {
			waiting[c.kind] = append(waiting[c.kind], c)
		}
	}
	for _, a := range acts {
		kind, push := strings.CutPrefix(a.Action, "push ")
		if a.Object != string(id) || !push || a.Outcome == "parked" {
			continue
		}
		e := entry{kind: kind, to: a.Time, dropped: a.Outcome == "obsolete", spare: kind == advance}
		// The line comes just after the act, or not at all if the daemon is killed between them.
		line := slices.IndexFunc(waiting[kind], func(c change) bool { return !c.ended.Before(e.to) })
		if line >= 0 && !slices.ContainsFunc(kills, func(k outage) bool { return k.to.After(e.to) && k.to.Before(waiting[kind][line].ended) }) {
			e.seq = waiting[kind][line].seq
			waiting[kind] = waiting[kind][line+1:]
		}
		all = append(all, e)
	}
	return all
}

// begun gives each entry its cause: of one kind, they come in the same order.
func begun(all []entry, left map[string][]cause) []entry {
	var order []*entry
	for i := range all {
		order = append(order, &all[i])
	}
	if !slices.ContainsFunc(all, func(e entry) bool { return e.seq == 0 }) {
		slices.SortFunc(order, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	}
	for _, e := range order {
		if waiting := left[e.kind]; len(waiting) > 0 {
			left[e.kind] = waiting[1:]
			e.from, e.spare = waiting[0].at, waiting[0].beside
		}
	}
	for kind, waiting := range left {
		for _, c := range waiting {
			all = append(all, entry{kind: kind, from: c.at, to: time.Now(), spare: c.beside})
		}
	}
	for i, e := range all {
		all[i].spare = e.spare && (e.kind == advance || !slices.ContainsFunc(all, func(c entry) bool { return c.cutsOff() && c.from.Before(e.to) && c.to.After(e.from) }))
	}
	return all
}

// beginAdvances tells of entries of which the audit trail does not, when they were left at the earliest: after what has a lower
// number, of whatever token.
func beginAdvances(all map[device.TokenID][]entry) {
	var order []*entry
	for _, entries := range all {
		for i := range entries {
			if e := &entries[i]; e.seq > 0 {
				order = append(order, e)
			}
		}
	}
	slices.SortFunc(order, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	var last time.Time
	for _, e := range order {
		if e.kind == advance {
			e.from = last
		}
		last = latest(last, e.from)
	}
	for _, entries := range all {
		var last time.Time
		for i := range entries {
			if e := &entries[i]; e.kind == advance && e.seq == 0 {
				e.from = last
			} else if !e.cutsOff() {
				last = latest(last, e.from)
			}
		}
	}
}

// divide finds out when the entry was tried: each time ends with a failure, which the daemon logs, with the daemon, or with
// success. After a failure there is a pause, and what is dropped is not tried before that.
func (e *entry) divide(log []change, kills []outage) {
	var ends []attempt
	for _, c := range log {
		if c.seq == e.seq && e.seq > 0 {
			for _, f := range c.failures {
				ends = append(ends, attempt{f.again, f.at, failed})
			}
		}
	}
	for _, k := range kills {
		if k.from.After(e.from) && k.from.Before(e.to) {
			ends = append(ends, attempt{k.from, k.from, killed})
		}
	}
	slices.SortStableFunc(ends, func(a, b attempt) int { return a.to.Compare(b.to) })
	begin := e.from
	for _, end := range ends {
		if begin.Before(end.to) {
			e.attempts = append(e.attempts, attempt{begin, end.to, end.end})
		}
		begin = latest(begin, end.from)
	}
	if !e.dropped {
		e.attempts = append(e.attempts, attempt{begin, e.to, delivered})
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
