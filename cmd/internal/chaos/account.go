package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/sync/synctest"
)

// result is what the run has come to.
type result struct {
	healing  time.Duration
	open     int // tokens, times two, that let their owner in at the end
	replayed int // used codes that were tried again
	entries  int // outbox entries that were delivered
	obsolete int // and dropped
	writes   int // of the desk, that changed a token's entry
	raises   int // of those, of the counter alone
	direct   int // entries written at both servers, as replication was late
	undone   int // writes that a server's replication took back, and the desk made again
	lowered  int // by the desk
	beyond   int // writes of the desk that no attempt to deliver an entry explains
	early    int // codes accepted at both servers before the desk had levelled them
	fallen   int // codes accepted again where replication had taken the counter back
}

// attrCounter is what a raise is about alone.
const (
	attrCounter = "oathHOTPCounter"
	attrSecret  = "oathSecret"
	attrNote    = "description"
)

// act is a write in a server's access log, with what there is to know of the token before and after.
type act struct {
	synctest.Write
	at         int       // the server
	when       time.Time // by the entryCSN: where it was first made
	ours       bool
	changed    bool   // something
	note       string // which seed the token has afterwards
	sameSeed   bool   // and it is the same as before
	open       bool   // afterwards the secret is there
	opens      bool   // the write brings a secret
	closes     bool   // or removes it
	onlyRaises bool   // nothing but the counter is in it
	more       bool   // something else than the counter is changed by it
}

// history is all that was written to tokens' entries at the servers, by entry and server, in order.
type history map[string][2][]act

func (s *stage) history() (history, error) {
	h := history{}
	for at, p := range s.Providers() {
		var all []act
		for _, by := range []string{p.BindDN, p.AdminDN} {
			writes, err := p.Writes(by)
			if err != nil {
				return nil, err
			}
			for _, w := range writes {
				if strings.HasSuffix(strings.ToLower(w.DN), ","+synctest.TokensBase) {
					all = append(all, act{Write: w, at: at, ours: by == p.BindDN, changed: w.Changes()})
				}
			}
		}
		slices.SortStableFunc(all, func(a, b act) int { return a.Time.Compare(b.Time) })
		for _, a := range all {
			name := strings.ToLower(a.DN) // it comes as somebody wrote it
			of := h[name]
			before := act{}
			if n := len(of[at]); n > 0 {
				before = of[at][n-1]
			}
			a.follow(before)
			of[at] = append(of[at], a)
			h[name] = of
		}
	}
	return h, nil
}

// follow works out what a write means after the one before it.
func (a *act) follow(before act) {
	if stamp, _, ok := strings.Cut(a.CSN, "#"); ok {
		a.when, _ = time.Parse("20060102150405.999999Z", stamp)
	}
	a.note, a.open, a.onlyRaises, a.more = before.note, before.open, a.Type == "modify", a.Type != "modify"
	for _, m := range a.Mods {
		switch {
		case strings.EqualFold(m.Attr, attrNote) && len(m.Values) > 0 && m.Op != "delete":
			a.note, a.more = strings.Join(m.Values, "\n"), true
		case strings.EqualFold(m.Attr, attrSecret):
			a.open = len(m.Values) > 0 && m.Op != "delete"
			a.opens, a.closes = a.open, !a.open
			a.more = a.more || a.open != before.open || a.open && a.Reseeds // what was gone may be removed once more
		case !strings.EqualFold(m.Attr, attrCounter):
			a.more = true
		}
		a.onlyRaises = a.onlyRaises && strings.EqualFold(m.Attr, attrCounter)
	}
	a.more = a.more && a.changed
	a.sameSeed = a.Type == "modify" && a.note == before.note
}

// lowers tells whether codes count again that were used.
func (a *act) lowers() bool { return a.sameSeed && a.Counter != nil && a.Counter.New < a.Counter.Old }

// account proves from the access logs and the audit trail what was written, and how often:
//
//   - No write of the desk lowers a counter within a seed generation.
//   - What changes more of a token's entry than its counter belongs to one attempt to deliver one entry of the outbox, and is
//     written once for that entry: see settle.
//   - A code is accepted a second time only by a server that did not know of the first, or that replication took back.
func (s *stage) account(ctx context.Context) error {
	h, err := s.history()
	if err != nil {
		return err
	}
	acts, err := s.acts(ctx)
	if err != nil {
		return err
	}
	ids := make([]device.TokenID, 0, len(s.keys))
	for _, k := range s.keys {
		ids = append(ids, k.token())
	}
	entries := entriesOf(ids, acts, changesIn(s.Logs()), s.kills())
	for dn, servers := range h {
		for _, writes := range servers {
			for _, w := range writes {
				if w.ours && w.changed {
					s.result.writes++
				}
				if w.Type == "delete" {
					s.fail("server %d: a token's entry was deleted: %s", w.at+1, w)
				}
				if w.ours && (w.lowers() || w.Lowers()) {
					s.result.lowered++
					s.fail("server %d: the desk lowered a counter: %s", w.at+1, w)
				}
			}
		}
		if id, ok := s.tokenAt(dn); ok {
			s.book(id, servers, entries[id]).settle()
		}
	}
	for _, a := range acts {
		switch {
		case strings.HasPrefix(a.Action, "push ") && a.Outcome == "obsolete":
			s.result.obsolete++
		case strings.HasPrefix(a.Action, "push ") && a.Outcome == "done":
			s.result.entries++
		}
	}
	s.acceptedAgain(h)
	return nil
}

// kills are the times in which there was no daemon.
func (s *stage) kills() (all []outage) {
	for _, o := range s.outages {
		if o.daemon {
			all = append(all, o)
		}
	}
	return all
}

func (s *stage) tokenAt(dn string) (device.TokenID, bool) {
	for _, k := range s.keys {
		if dn == dnOf(k.token()) {
			return k.token(), true
		}
	}
	return "", false
}

func dnOf(id device.TokenID) string {
	return strings.ToLower("cn=" + id.Central() + "," + synctest.TokensBase)
}

// acceptedAgain judges codes that were accepted more than once.
func (s *stage) acceptedAgain(h history) {
	first := map[string]login{}
	for _, l := range s.logins {
		if !l.accepted {
			continue
		}
		before, again := first[l.code]
		if !again {
			first[l.code] = l
			continue
		}
		switch known, back := knew(h[dnOf(l.token)][l.at], before, l); {
		case !known && before.at != l.at:
			s.result.early++
		case back:
			s.result.fallen++
		default:
			s.fail("server %d took a code of %s at %s that server %d had taken at %s, and nothing had taken its counter back",
				l.at+1, l.token, l.from.Format(clock), before.at+1, before.from.Format(clock))
		}
	}
}

// knew tells whether a server's counter was beyond a code that it then accepted, and whether replication took it back. The log
// is in order, and tells whole seconds only: of several logins in one it takes whichever did not know.
func knew(writes []act, before, l login) (known, back bool) {
	known = true
	for i, w := range writes {
		isLogin := !w.ours && w.CSN == "" && w.onlyRaises && w.Counter != nil
		if !isLogin || w.Time.Before(l.from.Truncate(time.Second)) || w.Time.After(l.to) {
			continue
		}
		knows, fell := false, false
		for _, b := range writes[:i] {
			if b.Counter == nil || b.Time.Before(before.from.Truncate(time.Second)) {
				continue
			}
			knows = knows || b.Counter.New >= w.Counter.New
			fell = fell || b.lowers() && !b.ours && b.Counter.New < w.Counter.New
		}
		known, back = known && knows, back || fell
	}
	return known || before.at == l.at, back
}

func (s *stage) verdict() string {
	accepted := 0
	for _, l := range s.logins {
		if l.accepted {
			accepted++
		}
	}
	r := s.result
	return fmt.Sprintf("%d entries (%d obsolete) by %d writes, %d of them of a counter alone; %d written at both servers as replication was late, %d again after it had taken them back; "+
		"%d codes accepted at both before they were levelled, %d where replication took a counter back\n"+
		"chaos: %.0f s, %d changes, %d daemon kills, %d slapd kills, %d pauses, %d cuts, %d logins: all agree, %d counters lowered, %d writes beyond what attempts explain",
		r.entries, r.obsolete, r.writes, r.raises, r.direct, r.undone, r.early, r.fallen,
		s.length.Seconds(), r.entries, s.daemonKills.Load(), s.slapdKills.Load(), s.pauses.Load(), s.cuts.Load(), accepted, r.lowered, r.beyond)
}
