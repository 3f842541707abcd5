package synctest_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/sync/synctest"
)

func flaky(t *testing.T, s *synctest.Slapd, seed uint64, rate float64, only ...synctest.Fault) *synctest.Flaky {
	t.Helper()
	f, err := synctest.NewFlaky(s, seed, rate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	f.Only(only...)
	return f
}

// ask connects anonymously and asks for the tree's root, some times.
func ask(address string, times int, security *tls.Config) error {
	c, err := ldap.DialURL(address, ldap.DialWithTLSConfig(security))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetTimeout(5 * time.Second)
	for range times {
		r, err := c.Search(ldap.NewSearchRequest(synctest.BaseDN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"dc"}, nil))
		if err != nil {
			return err
		}
		if len(r.Entries) != 1 || r.Entries[0].GetAttributeValue("dc") != "example" {
			return fmt.Errorf("the answer has %d entries", len(r.Entries))
		}
	}
	return nil
}

func injected(t *testing.T, f *synctest.Flaky, want ...synctest.Fault) {
	t.Helper()
	got := f.Injected()
	for fault := range got {
		if !slices.Contains(want, fault) {
			t.Errorf("nobody asked for %q", fault)
		}
	}
	for _, fault := range want {
		if got[fault] == 0 {
			t.Errorf("%q was not injected: %v", fault, got)
		}
	}
}

// What the client sees of each fault, and what the server.
func TestFlakyFaults(t *testing.T) {
	s := start(t)
	ldap.Logger(log.New(io.Discard, "", 0)) // it tells of every duplicate
	for _, c := range []struct {
		fault          synctest.Fault
		breaks, writes bool
	}{
		{synctest.Delay, false, true},
		{synctest.ResetBefore, true, false},
		{synctest.ResetAfter, true, true},
		{synctest.HalfAnswer, true, true},
		{synctest.Duplicate, false, true},
	} {
		t.Run(string(c.fault), func(t *testing.T) {
			f := flaky(t, s, 1, 1, "nothing")
			before, err := s.Writes(s.AdminDN)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := ldap.DialURL(f.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetTimeout(5 * time.Second)
			if err := conn.Bind(s.AdminDN, s.AdminPassword); err != nil {
				t.Fatal(err)
			}
			f.Only(c.fault)
			m := ldap.NewModifyRequest(synctest.UserDN("carol"), nil)
			m.Replace("description", []string{string(c.fault)})
			if err := conn.Modify(m); (err != nil) != c.breaks {
				t.Errorf("the client sees %v", err)
			}
			injected(t, f, c.fault)
			f.Close() // after that nothing more is under way
			if after, err := s.Writes(s.AdminDN); err != nil || (len(after) > len(before)) != c.writes {
				t.Errorf("the server made %d writes, %v", len(after)-len(before), err)
			}
		})
	}
}

// Two requests are outstanding: the answer to one waits until the other has gone.
func TestFlakyReorders(t *testing.T) {
	s := start(t)
	f := flaky(t, s, 1, 1, "nothing")
	c := asProvisioner(t, s, f.URL)
	f.Only(synctest.Reorder)
	if err := s.Pause(); err != nil { // so that both get there before either is answered
		t.Fatal(err)
	}
	arrived, answers := make(chan struct{}), make(chan error)
	f.BeforeWrite(func() { f.BeforeWrite(func() { close(arrived) }) })
	for _, user := range synctest.Users[:2] {
		go func() {
			m := ldap.NewModifyRequest(synctest.UserDN(user), nil)
			m.Add("objectClass", []string{"oathHOTPUser"})
			answers <- c.Modify(m)
		}()
	}
	<-arrived
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	injected(t, f, synctest.Reorder)
}

func TestFlakyHandshakes(t *testing.T) {
	s := start(t)
	security := &tls.Config{RootCAs: roots(t, s), ServerName: "127.0.0.1"}
	f := flaky(t, s, 1, 1, synctest.CutHandshake)
	for range 20 {
		if err := ask(f.TLSURL, 1, security); err == nil {
			t.Fatal("a handshake that was cut went well")
		}
	}
	injected(t, f, synctest.CutHandshake)

	f = flaky(t, s, 2, 0.2)
	failed, passed := 0, 0
	for range 100 {
		if ask(f.TLSURL, 3, security) == nil {
			passed++
		} else {
			failed++
		}
	}
	if failed == 0 || passed == 0 {
		t.Errorf("%d failed and %d passed", failed, passed)
	}
	injected(t, f, synctest.CutHandshake, synctest.Delay, synctest.ResetBefore, synctest.ResetAfter, synctest.HalfAnswer)
}

func TestFlakyStartTLS(t *testing.T) {
	s := start(t)
	security := &tls.Config{RootCAs: roots(t, s), ServerName: "127.0.0.1"}
	secure := func(f *synctest.Flaky) error {
		c, err := ldap.DialURL(f.URL)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetTimeout(5 * time.Second)
		if err := c.StartTLS(security); err != nil {
			return err
		}
		return c.Bind(s.BindDN, s.Password)
	}
	if err := secure(flaky(t, s, 1, 0)); err != nil {
		t.Error(err)
	}
	f := flaky(t, s, 1, 1, synctest.CutHandshake)
	if err := secure(f); err == nil {
		t.Error("a handshake that was cut went well")
	}
	injected(t, f, synctest.CutHandshake)
}

// The same seed disturbs the same requests, another one others.
func TestFlakyRepeats(t *testing.T) {
	s := start(t)
	story := func(seed uint64) (outcomes []bool) {
		f := flaky(t, s, seed, 0.3, synctest.ResetBefore, synctest.ResetAfter, synctest.HalfAnswer)
		for range 40 {
			outcomes = append(outcomes, ask(f.URL, 1, nil) == nil)
		}
		return outcomes
	}
	one := story(7)
	if again := story(7); !slices.Equal(one, again) {
		t.Errorf("the same seed: %v, then %v", one, again)
	}
	if other := story(8); slices.Equal(one, other) {
		t.Errorf("another seed does the same: %v", one)
	}
}

func TestBeforeWrite(t *testing.T) {
	s := start(t)
	g, err := synctest.NewGate(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	f := flaky(t, s, 1, 0)
	for address, front := range map[string]synctest.Front{g.URL: g, f.URL: f} {
		c := asProvisioner(t, s, address)
		var called atomic.Int32
		front.BeforeWrite(func() { called.Add(1) })
		for i := range 2 {
			m := ldap.NewModifyRequest(synctest.UserDN("bob"), nil)
			m.Replace("objectClass", []string{"inetOrgPerson"})
			if err := c.Modify(m); err != nil {
				t.Fatal(err)
			}
			if called.Load() != 1 {
				t.Errorf("write %d: called %d times", i, called.Load())
			}
		}
	}
}
