package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/rogpeppe/go-internal/testscript"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/sync/synctest"
	"tokendesk/vault/vaulttest"
)

func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	s := on(ts)
	switch args[0] {
	case "start":
		err := s.StartDaemon()
		if neg && err != nil {
			fmt.Fprintln(ts.Stderr(), err)
			return
		} else if neg {
			ts.Fatalf("the daemon started")
		}
		ts.Check(err)
		awaitKeys(ts)
	case "stop":
		ts.Check(s.StopDaemon())
	case "kill":
		s.KillDaemon()
	default:
		ts.Fatalf("daemon start, stop or kill, not %q", args[0])
	}
}

func cmdConfigure(ts *testscript.TestScript, _ bool, args []string) {
	s := on(ts)
	text := ts.ReadFile(s.Config)
	if strings.Count(text, args[0]) != 1 {
		ts.Fatalf("the configuration has %q %d times:\n%s", args[0], strings.Count(text, args[0]), text)
	}
	ts.Check(os.WriteFile(s.Config, []byte(strings.Replace(text, args[0], args[1], 1)), 0o600))
	ts.Check(s.StopDaemon())
	ts.Check(s.StartDaemon())
	awaitKeys(ts)
}

// named are the servers that a command is about: all, or the first.
func (s *stage) named(args []string) []*synctest.Slapd {
	if len(args) == 2 && args[1] == "all" {
		return s.Providers()
	}
	return s.Providers()[:1]
}

// cmdLevelled waits until the servers show the same counter.
func cmdLevelled(ts *testscript.TestScript, _ bool, args []string) {
	central := device.TokenID(args[0]).Central()
	await(ts, "until the counters are level", func(context.Context) bool {
		var all []int64
		for _, p := range on(ts).Providers() {
			n, err := p.Stored(central)
			ts.Check(err)
			all = append(all, n)
		}
		return len(slices.Compact(all)) == 1
	})
}

// cmdSynced waits until the servers have replicated everything.
func cmdSynced(ts *testscript.TestScript, _ bool, _ []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ts.Check(on(ts).Pair.AwaitSync(ctx))
}

// cmdLastChange sets CHANGE to the number of the last change in the outbox.
func cmdLastChange(ts *testscript.TestScript, _ bool, _ []string) {
	var found api.Changes
	ts.Check(on(ts).Client.Get(context.Background(), "/v1/outbox", nil, &found))
	if len(found.Changes) == 0 {
		ts.Fatalf("the outbox is empty")
	}
	ts.Setenv("CHANGE", strconv.FormatUint(found.Changes[len(found.Changes)-1].Seq, 10))
}

func cmdSlapd(ts *testscript.TestScript, _ bool, args []string) {
	s := on(ts)
	verdict := func(v synctest.Verdict) { s.gate.Judge(func(uint8) synctest.Verdict { return v }) }
	switch args[0] {
	case "start":
		for _, server := range s.named(args) {
			ts.Check(server.Start())
		}
	case "stop":
		for _, server := range s.named(args) {
			server.Stop()
		}
	case "gate": // the desk reaches the server through a gate from now on
		var err error
		s.gate, err = synctest.NewGate(s.Slapd)
		ts.Check(err)
		cmdConfigure(ts, false, []string{s.Slapd.URL, s.gate.URL})
	case "busy":
		verdict(synctest.Busy)
	case "pass":
		verdict(synctest.Pass)
	case "learn":
		add := ldap.NewAddRequest(synctest.UserDN(args[1]), nil)
		add.Attribute("objectClass", []string{"inetOrgPerson"})
		add.Attribute("cn", []string{args[1]})
		add.Attribute("sn", []string{args[1]})
		ts.Check(s.Slapd.AsAdmin(func(c *ldap.Conn) error { return c.Add(add) }))
	case "unlink": // as somebody does with the server's own tools
		m := ldap.NewModifyRequest(synctest.UserDN(args[1]), nil)
		m.Delete("oathHOTPToken", nil)
		ts.Check(s.Slapd.AsAdmin(func(c *ldap.Conn) error { return c.Modify(m) }))
	case "describe":
		m := ldap.NewModifyRequest("cn="+args[1]+","+synctest.TokensBase, nil)
		m.Add("description", []string{"seen"})
		ts.Check(s.Slapd.AsAdmin(func(c *ldap.Conn) error { return c.Modify(m) }))
	case "forget":
		ts.Check(s.Slapd.AsAdmin(func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(synctest.UserDN(args[1]), nil)) }))
	default:
		ts.Fatalf("slapd cannot %q", args[0])
	}
}

// await asks until what the desk tells nobody by itself is so.
func await(ts *testscript.TestScript, what string, so func(context.Context) bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("waited in vain: %s", what)
		}
	}
}

func outboxIs(ts *testscript.TestScript, want func(left, parked int) bool) {
	await(ts, "until the outbox is as expected", func(ctx context.Context) bool {
		var found api.Changes
		ts.Check(on(ts).Client.Get(ctx, "/v1/outbox", nil, &found))
		parked := 0
		for _, c := range found.Changes {
			if c.State == "parked" {
				parked++
			}
		}
		return want(len(found.Changes), parked)
	})
}

func cmdSeen(ts *testscript.TestScript, _ bool, args []string) {
	serial, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	ts.Check(on(ts).AwaitKeys(context.Background(), device.Serial(serial)))
}

func cmdGone(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "until nothing is at port "+args[0], func(ctx context.Context) bool {
		var found api.Keys
		ts.Check(on(ts).Client.Get(ctx, "/v1/devices", nil, &found))
		return !slices.ContainsFunc(found.Keys, func(k api.Key) bool { return k.Port == args[0] })
	})
}

// cmdSettled waits until the daemon has noticed that an officer hung up: the journal says why the work stopped.
func cmdSettled(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "until work on "+args[0]+" has stopped", func(ctx context.Context) bool {
		var s api.Status
		ts.Check(on(ts).Client.Get(ctx, "/v1/status", nil, &s))
		return slices.ContainsFunc(s.Unfinished, func(u string) bool { return strings.HasPrefix(u, args[0]+": ") && strings.Count(u, ": ") > 1 })
	})
}

func cmdExpired(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "until the time of "+args[0]+" is over", func(ctx context.Context) bool {
		var t api.Token
		ts.Check(on(ts).Client.Get(ctx, "/v1/tokens/"+args[0], nil, &t))
		return t.Status == "expired"
	})
}

func cmdParked(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	outboxIs(ts, func(_, parked int) bool { return parked == n })
}

func cmdLogin(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 3 {
		args = append(args, "1")
	}
	if len(args) != 4 || !slices.Contains([]string{"ok", "refused"}, args[2]) {
		ts.Fatalf("login USER CODE ok|refused [SERVER], not %q", args)
	}
	server, err := strconv.Atoi(args[3])
	ts.Check(err)
	answer, accepted, err := on(ts).WhoAmI(context.Background(), on(ts).Providers()[server-1], args[0], args[1])
	ts.Check(err)
	if accepted != (args[2] == "ok") {
		ts.Fatalf("login of %s with %s: %s", args[0], args[1], answer)
	}
}

// cmdTPM changes the configuration; the daemon learns it when it starts. TPM 1 is the world's, others are started when they are
// first used.
func cmdTPM(ts *testscript.TestScript, _ bool, args []string) {
	s := on(ts)
	if s.tpms == nil {
		s.tpms, s.tpm = map[string]string{"1": s.TPM}, s.TPM
	}
	if s.tpms[args[0]] == "" {
		dir, err := os.MkdirTemp("", "td")
		ts.Check(err)
		device, stop, err := vaulttest.StartSWTPMProcess(dir)
		ts.Check(err)
		ts.Defer(func() { ts.Check(errors.Join(stop(), os.RemoveAll(dir))) })
		s.tpms[args[0]] = device
	}
	text := []byte(ts.ReadFile(s.Config))
	ts.Check(os.WriteFile(s.Config, bytes.Replace(text, []byte(s.tpm), []byte(s.tpms[args[0]]), 1), 0o600))
	s.tpm = s.tpms[args[0]]
}
