package openldap_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
)

// wantProblem expects a problem with these words, in what it is or in its cure.
func wantProblem(t *testing.T, c *openldap.Connector, words ...string) {
	t.Helper()
	var texts []string
	for _, p := range c.Check(t.Context()) {
		text, all := p.What+" -> "+p.Cure, true
		for _, w := range words {
			all = all && strings.Contains(text, w)
		}
		if all {
			return
		}
		texts = append(texts, text)
	}
	t.Errorf("got %q, want %q", texts, words)
}

// Whoever is not told otherwise gets 500 entries, however small the pages.
func TestLimitOfPagedSearches(t *testing.T) {
	s := start(t)
	unlimited := `limits dn.exact="` + s.BindDN + `" size=unlimited size.prtotal=unlimited time=unlimited` + "\n"
	rewrite(t, s, unlimited, "")
	if _, err := s.Crowd(501); err != nil {
		t.Fatal(err)
	}
	c := connect(t, config(s))
	cure := `limits dn.exact="` + s.BindDN + `" size.prtotal=unlimited`
	wantProblem(t, c, "page by page", "size limit", cure)
	read := 0
	count := func(page []syncer.Reading) error { read += len(page); return nil }
	err := c.Counters(t.Context(), c.Providers()[0], count)
	wantError(t, err, syncer.ErrRefused, cure)
	rewrite(t, s, "index objectClass", cure+"\nindex objectClass") // followed to the letter
	read = 0
	if err := c.Counters(t.Context(), c.Providers()[0], count); err != nil || read != 501 {
		t.Errorf("%d tokens, %v", read, err)
	}
	for _, p := range c.Check(t.Context()) {
		t.Errorf("%s (cure: %s)", p.What, p.Cure)
	}
}

// A long reading holds up nothing else, and ends with its context.
func TestReadingHoldsUpNothing(t *testing.T) {
	s := start(t)
	if _, err := s.Crowd(3); err != nil {
		t.Fatal(err)
	}
	c := connect(t, config(s))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := c.Inventory(ctx, c.Providers()[0], func(page []syncer.Entry) error {
		if len(page) != 3 || !page[0].Enabled || page[0].Ours {
			t.Errorf("read %+v", page)
		}
		if _, err := c.Observe(t.Context(), token); err != nil {
			t.Error(err)
		}
		cancel()
		return ctx.Err()
	})
	wantError(t, err, context.Canceled)
}

func TestCheckComparesProviders(t *testing.T) {
	p := startPair(t)
	c := connect(t, toPair(p))
	for _, p := range c.Check(t.Context()) {
		t.Errorf("%s (cure: %s)", p.What, p.Cure)
	}
	if got := c.Capabilities().LookAhead; got != synctest.LookAhead {
		t.Errorf("the look-ahead is %d, want %d", got, synctest.LookAhead)
	}
	c.SetGrace(100 * time.Millisecond)
	p.Cut(synctest.Reset)
	if err := p.Providers[1].AsAdmin(func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest(synctest.Params6, nil)
		m.Replace("oathHOTPLookAhead", []string{"3"})
		return c.Modify(m)
	}); err != nil {
		t.Fatal(err)
	}
	first, second := c.Providers()[0], c.Providers()[1]
	wantProblem(t, c, "oathHOTPLookAhead of "+synctest.Params6, `"10" at `+first, `"3" at `+second)
	wantProblem(t, c, first+" has not received what "+second+" has", "syncrepl")
	if got := c.Capabilities().LookAhead; got != 3 {
		t.Errorf("the look-ahead is %d, want that of the narrower provider", got)
	}
	rule := "access to attrs=oathSecret"
	rewrite(t, p.Providers[1], rule, "access to attrs=oathSecret by * none\n"+rule)
	wantProblem(t, c, second+": "+p.Providers[1].BindDN+" may not write oathSecret", "=wc")
	p.Providers[0].Stop()
	wantProblem(t, c, first, "refused", "start the server")
}
