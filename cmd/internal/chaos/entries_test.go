package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/sync/synctest"
)

// script makes up access logs, an audit trail and the daemon's log.
type script struct {
	begin   time.Time
	servers [2][]act
	acts    []api.Act
	daemon  strings.Builder
	outages []outage
}

const someToken device.TokenID = "yk-30000001/otp2"

func (l *script) at(ms int) time.Time { return l.begin.Add(time.Duration(ms) * time.Millisecond) }

// log is a write of the desk.
func (l *script) log(server, ms int, m ...synctest.Mod) { l.write(server, ms, server, ms, true, m) }

// replicate is one that came later from the other server.
func (l *script) replicate(server, ms, madeAt int, m ...synctest.Mod) {
	l.write(server, ms, 1-server, madeAt, false, m)
}

func (l *script) write(server, ms, first, madeAt int, ours bool, m []synctest.Mod) {
	order := time.Duration(len(l.servers[server])) * time.Microsecond
	csn := fmt.Sprintf("%s#000000#00%d#000000", l.at(madeAt).Format("20060102150405.000000Z"), first+1)
	w := synctest.Write{Type: "modify", Time: l.at(ms).Truncate(time.Second).Add(order), CSN: csn, Mods: m, Reseeds: true}
	a, before := act{Write: w, at: server, ours: ours, changed: true}, act{}
	if n := len(l.servers[server]); n > 0 {
		before = l.servers[server][n-1]
	}
	a.follow(before)
	l.servers[server] = append(l.servers[server], a)
}

func (l *script) officer(ms int, action string) { l.act(ms, action, "done") }

func (l *script) act(ms int, action, outcome string) {
	l.acts = append(l.acts, api.Act{Time: l.at(ms), Action: action, Object: string(someToken), Outcome: outcome})
}

// push is the end of an entry.
func (l *script) push(ms, seq int, kind string) {
	l.act(ms, "push "+kind, "done")
	l.line(ms, "INFO", "delivered", seq, kind, "counter=7 attempts=1")
}

// fails is an attempt that did.
func (l *script) fails(ms, seq int, kind string, again int) {
	l.line(ms, "WARN", `"cannot deliver yet"`, seq, kind, `problem="it said \"no\": again=never" attempts=1 again=`+l.at(again).Format(time.RFC3339Nano))
}

func (l *script) line(ms int, level, text string, seq int, kind, rest string) {
	fmt.Fprintf(&l.daemon, "time=%s level=%s msg=%s change=%d kind=%s token=%s user=\"\" %s\n",
		l.at(ms).Format("2006-01-02T15:04:05.000Z07:00"), level, text, seq, kind, someToken, rest)
}

func (l *script) daemonKilled(from, to int) {
	l.outages = append(l.outages, outage{what: "daemon killed", daemon: true, from: l.at(from), to: l.at(to)})
}

func (l *script) settle() *stage {
	s := &stage{out: io.Discard, outages: l.outages}
	entries := entriesOf([]device.TokenID{someToken}, l.acts, changesIn(l.daemon.String()), s.kills())
	s.book(someToken, l.servers, entries[someToken]).settle()
	return s
}

// What the accounts are worth: each rule is broken once.
func TestAccounts(t *testing.T) {
	opening := synctest.Mod{Attr: attrSecret, Op: "replace", Values: []string{"[redacted]"}}
	closing := synctest.Mod{Attr: attrSecret, Op: "delete"}
	emptying := synctest.Mod{Attr: attrSecret, Op: "replace"}
	raising := synctest.Mod{Attr: attrCounter, Op: "add", Values: []string{"7"}}
	const noAttempt = "no attempt of an entry explains a write"
	for _, c := range []struct {
		name           string
		tell           func(l *script) // an enroll's Put is delivered at 3000
		want           string          // a part of the failure; empty: none
		direct, undone int
	}{
		{"one entry, one write, and replication", func(l *script) { l.log(0, 100, opening); l.replicate(1, 100, 100, opening) }, "", 0, 0},
		{"raises are free", func(l *script) { l.log(0, 100, opening); l.log(0, 200, raising); l.log(1, 250, raising) }, "", 0, 0},
		{"a raise by nobody", func(l *script) { l.log(0, 100, opening); l.log(0, 3200, raising) }, "when no entry was tried", 0, 0},
		{"twice at one server", func(l *script) { l.log(0, 100, opening); l.log(0, 2000, opening) }, noAttempt, 0, 0},
		{"twice at one server, in two attempts", func(l *script) {
			l.log(0, 100, opening)
			l.fails(500, 1, "put", 1000)
			l.log(0, 2000, opening)
		}, noAttempt, 0, 0},
		{"again as replication took it back", func(l *script) {
			l.log(0, 100, opening)
			l.replicate(0, 200, 150, closing)
			l.fails(300, 1, "put", 400)
			l.log(0, 500, opening)
		}, "", 0, 1},
		{"again in one attempt", func(l *script) {
			l.log(0, 100, opening)
			l.replicate(0, 200, 150, closing)
			l.log(0, 500, opening)
		}, noAttempt, 0, 0},
		{"in the pause after an attempt", func(l *script) { l.fails(500, 1, "put", 1000); l.log(0, 700, opening) }, noAttempt, 0, 0},
		{"after its entry was gone", func(l *script) { l.log(0, 100, opening); l.log(0, 3500, opening) }, noAttempt, 0, 0},
		{"at both servers, too soon", func(l *script) { l.log(0, 100, opening); l.log(1, 900, opening) }, noAttempt, 0, 0},
		{"at both servers, after the grace", func(l *script) { l.log(0, 100, opening); l.log(1, 1700, opening) }, "", 1, 0},
		{"at both servers, after the grace, and after replication", func(l *script) {
			l.log(0, 100, opening)
			l.replicate(1, 150, 100, opening)
			l.log(1, 1700, opening)
		}, noAttempt, 0, 0},
		{"at the other server, as the first attempt had no answer", func(l *script) {
			l.log(0, 100, opening)
			l.fails(200, 1, "put", 300)
			l.log(1, 400, opening)
		}, "", 1, 0},
		{"at the other server, as the daemon was killed", func(l *script) {
			l.log(0, 100, opening)
			l.daemonKilled(110, 300)
			l.log(1, 400, opening)
		}, "", 1, 0},
		{"just after the daemon was killed", func(l *script) {
			l.daemonKilled(90, 2000)
			l.log(0, 100, opening)
		}, "", 0, 0},
		{"nowhere", func(*script) {}, "was written nowhere", 0, 0},
		{"a cut-off at both servers", func(l *script) {
			l.log(0, 100, opening)
			l.replicate(1, 100, 100, opening)
			l.officer(4000, "disable")
			l.log(0, 4010, closing)
			l.log(1, 4011, closing)
			l.push(4020, 2, "disable")
		}, "", 0, 0},
		{"a cut-off that brings a secret", func(l *script) {
			l.log(0, 100, opening)
			l.officer(4000, "disable")
			l.log(0, 4010, opening)
			l.push(4020, 2, "disable")
		}, noAttempt, 0, 0},
		{"a cut-off again, as an earlier entry opened it in between", func(l *script) {
			l.log(0, 100, opening)
			l.officer(4000, "enable")
			l.officer(4050, "disable")
			l.log(0, 4100, closing)
			l.fails(4200, 3, "disable", 4400)
			l.officer(4250, "enable")
			l.log(0, 4300, opening)
			l.push(4350, 2, "enable")
			l.log(0, 4450, closing)
			l.push(4500, 3, "disable")
			l.log(0, 4600, opening)
			l.push(4700, 4, "enable")
		}, "", 0, 1},
		{"a cut-off again in one attempt", func(l *script) {
			l.log(0, 100, opening)
			l.officer(4000, "enable")
			l.officer(4050, "disable")
			l.log(0, 4100, closing)
			l.log(0, 4300, opening)
			l.push(4350, 2, "enable")
			l.log(0, 4450, closing)
			l.push(4500, 3, "disable")
		}, noAttempt, 0, 0},
		{"a cut-off that closes nothing", func(l *script) {
			l.log(0, 100, opening)
			l.replicate(1, 100, 100, opening)
			l.officer(4000, "unassign")
			l.push(4020, 2, "unassign")
		}, "of yk-30000001/otp2 was written nowhere", 0, 0},
		{"an act that was refused leaves no entry", func(l *script) {
			l.log(0, 100, opening)
			l.act(3100, "disable", "refused")
			l.log(0, 3500, closing)
			l.officer(4000, "disable")
			l.push(4020, 2, "disable")
		}, noAttempt, 0, 0},
		{"an Advance that makes an end of what is gone", func(l *script) {
			l.log(0, 100, opening)
			l.officer(4000, "disable")
			l.log(0, 4010, closing)
			l.push(4020, 2, "disable")
			l.log(0, 4100, raising, emptying)
			l.officer(4150, "enable")
			l.push(4200, 3, "advance")
			l.log(0, 4300, opening)
			l.push(4400, 4, "enable")
		}, "", 0, 0},
		{"an Advance that brings a secret to the other server, where replication has not", func(l *script) {
			l.log(0, 100, opening)
			l.log(1, 4000, raising, opening)
			l.push(4200, 3, "advance")
		}, "", 1, 0},
		{"an Advance that brings a secret to the other server, too soon", func(l *script) {
			l.log(0, 2900, opening)
			l.log(1, 3100, raising, opening)
			l.push(4200, 3, "advance")
		}, noAttempt, 0, 0},
		{"an Advance that brings a secret", func(l *script) {
			l.officer(0, "enable")
			l.log(0, 100, opening)
			l.push(3010, 2, "enable")
			l.log(0, 3100, opening)
			l.push(4200, 3, "advance")
		}, noAttempt, 0, 0},
	} {
		l := &script{begin: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
		l.officer(0, "enroll: assign")
		l.act(3000, "push put", "done") // first, lest it takes another one's line
		c.tell(l)
		l.line(3000, "INFO", "delivered", 1, "put", "counter=7 attempts=1")
		s := l.settle()
		got := strings.Join(s.failures, "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) || s.result.direct != c.direct || s.result.undone != c.undone {
			t.Errorf("%s: %d direct, %d undone, and %q, want %d, %d and %q", c.name, s.result.direct, s.result.undone, got, c.direct, c.undone, c.want)
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
