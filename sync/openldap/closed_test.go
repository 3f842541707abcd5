package openldap_test

import (
	"testing"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// The only provider that can be reached has missed that the token was closed, and is to raise its counter. That makes its
// entry the newer one; so the entry must not be what it was.
func TestAdvanceOfAClosedTokenOpensNothing(t *testing.T) {
	for _, status := range []vault.Status{vault.Disabled, vault.Expired} {
		t.Run(string(status), func(t *testing.T) {
			p := startPair(t)
			f := openOffice(t, toPair(p))
			seed, put := f.enroll(token, 1, 0)
			f.delivered(put...)
			f.delivered(f.alter(token, func(t *vault.Token) { t.Owner = "alice" }, vault.Change{Kind: vault.Assign, User: "alice"})...)
			settle(t, p)
			login(t, p.Providers[0], "alice", seed, 0)
			login(t, p.Providers[1], "alice", seed, 0)

			p.Providers[1].Stop()
			closed := func(t *vault.Token) {
				if t.Status = status; status == vault.Expired {
					t.Expires = time.Now()
				}
			}
			f.delivered(f.alter(token, closed, vault.Change{Kind: vault.Disable, User: "alice"})...)
			onlyAtTheFirst(t, p, f.c, secret.Secret{})
			login(t, p.Providers[1], "alice", seed, 1) // it has missed all that
			raised := f.alter(token, func(t *vault.Token) { t.Counter = 5 }, vault.Change{Kind: vault.Advance, User: "alice"})
			f.delivered(raised...)
			noLogin(t, p.Providers[1], "alice", seed, 5, "the vault says that its codes may not be accepted")
			firstReturns(t, p, f.c)
			for i, s := range p.Providers {
				for n := uint64(5); n < 9; n++ {
					noLogin(t, s, "alice", seed, n, "it was closed at the other provider")
				}
				if next, err := s.Stored(token.Central()); err != nil || next+1 < 5 {
					t.Errorf("provider %d has the counter at %d, %v, want at least 5", i+1, next+1, err)
				}
			}
		})
	}
}
