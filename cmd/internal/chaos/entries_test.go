package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/sync/synctest"
)

// script makes up access logs and an audit trail.
type script struct {
	begin   time.Time
	servers [2][]act
	acts    []api.Act
}

const someToken device.TokenID = "yk-30000001/otp2"

func (l *script) at(ms int) time.Time { return l.begin.Add(time.Duration(ms) * time.Millisecond) }

func (l *script) log(server, ms int, ours bool, m synctest.Mod) {
	order := time.Duration(len(l.servers[server])) * time.Microsecond
	w := synctest.Write{Type: "modify", Time: l.at(ms).Truncate(time.Second).Add(order), CSN: l.at(ms).Format("20060102150405.000000Z") + "#000000#001#000000", Mods: []synctest.Mod{m}}
	a, before := act{Write: w, at: server, ours: ours, changed: true}, act{}
	if n := len(l.servers[server]); n > 0 {
		before = l.servers[server][n-1]
	}
	a.follow(before)
	l.servers[server] = append(l.servers[server], a)
}

func (l *script) officer(ms int, action string) {
	l.acts = append(l.acts, api.Act{Time: l.at(ms), Action: action, Object: string(someToken), Outcome: "done"})
}

// What the accounts are worth: each rule is broken once.
func TestAccounts(t *testing.T) {
	opening := synctest.Mod{Attr: attrSecret, Op: "replace", Values: []string{"[redacted]"}}
	closing := synctest.Mod{Attr: attrSecret, Op: "delete"}
	raising := synctest.Mod{Attr: attrCounter, Op: "add", Values: []string{"7"}}
	for _, c := range []struct {
		name   string
		tell   func(l *script)
		want   string // a part of the failure; empty: none
		direct int
	}{
		{"one entry, one write, and replication", func(l *script) { l.log(0, 100, true, opening); l.log(1, 100, false, opening) }, "", 0},
		{"raises are free", func(l *script) {
			l.log(0, 100, true, opening)
			l.log(0, 200, true, raising)
			l.log(1, 250, true, raising)
		}, "", 0},
		{"twice at one server", func(l *script) { l.log(0, 100, true, opening); l.log(0, 2000, true, opening) }, "no entry of the outbox is left", 0},
		{"again as replication took it back", func(l *script) {
			l.log(0, 100, true, opening)
			l.log(0, 200, false, closing)
			l.log(0, 300, true, opening)
		}, "", 0},
		{"after its entry was gone", func(l *script) { l.log(0, 100, true, opening); l.log(0, 3500, true, opening) }, "no entry of the outbox is left", 0},
		{"at both servers, too soon", func(l *script) { l.log(0, 100, true, opening); l.log(1, 900, true, opening) }, "replication was not late", 0},
		{"at both servers, after the grace", func(l *script) { l.log(0, 100, true, opening); l.log(1, 1700, true, opening) }, "", 1},
		{"nowhere", func(*script) {}, "was written nowhere", 0},
		{"a cut-off at both servers", func(l *script) {
			l.log(0, 100, true, opening)
			l.log(1, 100, false, opening)
			l.officer(4000, "disable")
			l.log(0, 4010, true, closing)
			l.log(1, 4011, true, closing)
			l.officer(4020, "push disable")
		}, "", 0},
		{"a cut-off that brings a secret", func(l *script) {
			l.log(0, 100, true, opening)
			l.officer(4000, "disable")
			l.log(0, 4010, true, opening)
			l.officer(4020, "push disable")
		}, "no entry of the outbox is left", 0},
		{"a cut-off that closes nothing", func(l *script) {
			l.log(0, 100, true, opening)
			l.log(1, 100, false, opening)
			l.officer(4000, "unassign")
			l.officer(4020, "push unassign")
		}, "unassign of yk-30000001/otp2", 0},
	} {
		l := &script{begin: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
		l.officer(0, "enroll: assign")
		c.tell(l)
		l.acts = append(l.acts, api.Act{Time: l.at(3000), Action: "push put", Object: string(someToken), Outcome: "done"})
		s := &stage{out: io.Discard}
		s.settleAccounts(someToken, l.servers, entriesOf(someToken, l.acts))
		got := strings.Join(slices.Concat(s.failures, s.result.twice), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) || s.result.direct != c.direct {
			t.Errorf("%s: %d direct, and %q, want %d and %q", c.name, s.result.direct, got, c.direct, c.want)
		}
	}
}

// A code that is taken again is all right only where the server did not know of its use, or was set back.
func TestAcceptedAgain(t *testing.T) {
	begin := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	counter := func(second int, ours bool, old, new int64) act {
		a := act{Write: synctest.Write{Type: "modify", Time: begin.Add(time.Duration(second) * time.Second),
			Mods: []synctest.Mod{{Attr: attrCounter, Op: "replace"}}, Counter: &synctest.CounterChange{Old: old, New: new}}, ours: ours}
		a.follow(act{})
		return a
	}
	try := func(at, second int) login {
		from := begin.Add(time.Duration(second) * time.Second)
		return login{token: someToken, code: "12345678", at: at, from: from, to: from.Add(300 * time.Millisecond), accepted: true}
	}
	for _, c := range []struct {
		name   string
		second []act // the other server's log
		early  int
		fallen int
		bad    int
	}{
		{"before it was levelled", []act{counter(9, false, 2, 5)}, 1, 0, 0},
		{"after it was levelled and set back", []act{counter(5, true, 2, 5), counter(7, false, 5, 3), counter(9, false, 3, 5)}, 0, 1, 0},
		{"after it was levelled", []act{counter(5, true, 2, 5), counter(9, false, 4, 5)}, 0, 0, 1},
	} {
		s := &stage{out: io.Discard, logins: []login{try(0, 1), try(1, 9)}}
		s.acceptedAgain(history{dnOf(someToken): {nil, c.second}})
		if s.result.early != c.early || s.result.fallen != c.fallen || len(s.failures) != c.bad {
			t.Errorf("%s: %+v, %v", c.name, s.result, s.failures)
		}
	}
}
