package openldap_test

import (
	"sync"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// operations are searches, compares and writes.
type operations [3]int

// counter counts what comes through a gate.
func counter(g *synctest.Gate) (taken func() operations) {
	var mu sync.Mutex
	var n operations
	g.Judge(func(op uint8) synctest.Verdict {
		mu.Lock()
		defer mu.Unlock()
		switch op {
		case ldap.ApplicationSearchRequest:
			n[0]++
		case ldap.ApplicationCompareRequest:
			n[1]++
		case ldap.ApplicationModifyRequest, ldap.ApplicationAddRequest, ldap.ApplicationDelRequest:
			n[2]++
		}
		return synctest.Pass
	})
	return func() operations {
		mu.Lock()
		defer mu.Unlock()
		now := n
		n = operations{}
		return now
	}
}

// The package comment's table is what happens.
func TestOperations(t *testing.T) {
	s := start(t)
	g := gate(t, s)
	c, seed := through(t, s, g), secret.Random(20)
	taken := counter(g)
	for _, step := range []struct {
		name          string
		change        vault.Change
		seed          secret.Secret
		first, second operations
	}{
		{"a new entry", change(vault.Put, "", 0), secret.Secret{}, operations{5, 2, 1}, operations{2, 1, 0}},
		{"assign", change(vault.Assign, "alice", 0), seed, operations{5, 2, 2}, operations{3, 1, 0}},
		{"advance", change(vault.Advance, "alice", 9), secret.Secret{}, operations{3, 1, 1}, operations{3, 1, 0}},
		{"put", change(vault.Put, "alice", 12), seed, operations{5, 2, 1}, operations{3, 1, 0}},
		{"disable", change(vault.Disable, "alice", 0), secret.Secret{}, operations{3, 2, 1}, operations{3, 2, 0}},
		{"enable", change(vault.Enable, "alice", 0), seed, operations{5, 2, 1}, operations{3, 1, 0}},
		{"unassign", change(vault.Unassign, "alice", 0), secret.Secret{}, operations{4, 2, 2}, operations{4, 2, 0}},
		{"assign again", change(vault.Assign, "alice", 0), seed, operations{5, 2, 2}, operations{3, 1, 0}},
		{"remove", change(vault.Remove, "alice", 0), secret.Secret{}, operations{7, 2, 3}, operations{6, 2, 0}},
	} {
		apply(t, c, step.seed, step.change)
		if got := taken(); got != step.first {
			t.Errorf("%s: %v searches, compares and writes, want %v", step.name, got, step.first)
		}
		apply(t, c, step.seed, step.change)
		if got := taken(); got != step.second {
			t.Errorf("%s for the second time: %v, want %v", step.name, got, step.second)
		}
	}
}
