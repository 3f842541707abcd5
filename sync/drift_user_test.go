package syncer_test

import (
	"strings"
	"testing"

	syncer "tokendesk/sync"
	"tokendesk/vault"
)

func TestUserView(t *testing.T) {
	s := openPair(t)
	s.issue(tokenA, "alice")
	view := func(name string) syncer.UserView {
		t.Helper()
		v, err := s.d.UserView(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := view("ALICE")
	if v.User != "alice" || !v.Known || len(v.Tokens) != 1 || v.Tokens[0].Token != tokenA || v.Tokens[0].Desk.Owner != "alice" ||
		!v.Tokens[0].There.Enabled || len(v.Tokens[0].Differences) != 0 {
		t.Errorf("in step: %+v", v)
	}
	all, err := s.pair.Providers[0].Crowd(1)
	if err != nil {
		t.Fatal(err)
	}
	s.adminUnlinks("alice")
	s.adminLinksTo("alice", all[0])
	v = view("alice")
	if len(v.Tokens) != 2 || v.Tokens[0].Token != tokenA || v.Tokens[1].Central != all[0] || v.Tokens[1].Desk != nil ||
		len(v.Tokens[1].Differences) != 1 || v.Tokens[1].Differences[0].Kind != syncer.DiffersUnknown ||
		len(v.Tokens[0].Differences) != 1 || v.Tokens[0].Differences[0].Kind != syncer.DiffersOwner {
		t.Errorf("with a token of another tool: %+v", v)
	}
	s.unassign(tokenA)
	if v = view("alice"); len(v.Tokens) != 1 || v.Tokens[0].Central != all[0] {
		t.Errorf("without the desk's: %+v", v)
	}
	if v = view("nobody"); v.Known || v.Problem == "" || len(v.Tokens) != 0 {
		t.Errorf("nobody: %+v", v)
	}
	s.drain()
	s.assign(tokenA, "bob")
	v = view("bob")
	if len(v.Tokens) != 1 || len(v.Tokens[0].Waiting) != 1 || v.Tokens[0].Waiting[0].Kind != vault.Assign {
		t.Fatalf("on its way: %+v", v)
	}
	for _, x := range v.Tokens[0].Differences {
		if !strings.Contains(x.Pending, "is on its way") {
			t.Errorf("on its way: %+v", x)
		}
	}
	s.pair.Stop()
	if v = view("bob"); v.Known || v.Problem == "" || len(v.Tokens) != 1 || v.Tokens[0].There != nil {
		t.Errorf("without the service: %+v", v)
	}
}
