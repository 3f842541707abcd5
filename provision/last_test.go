package provision_test

import (
	"context"
	"errors"
	"testing"

	"tokendesk/provision"
	"tokendesk/vault"
)

// A user's last active token, here or at the central service, is not taken without a reason.
func TestLastActiveToken(t *testing.T) {
	down := errors.New("the directory does not answer")
	own := others[0].Central()
	for name, c := range map[string]struct {
		owners  []string
		central func(context.Context, string) ([]string, error)
		also    []int // of others, in the order too
		last    bool
	}{
		"one":                                 {owners: []string{"alice"}, last: true},
		"two":                                 {owners: []string{"alice", "Alice"}},
		"two, and both go":                    {owners: []string{"alice", "Alice"}, also: []int{1}, last: true},
		"another user's":                      {owners: []string{"alice", "bob"}, last: true},
		"one, and the service has that":       {owners: []string{"alice"}, central: has(own), last: true},
		"one, and the service has another":    {owners: []string{"alice"}, central: has(own, "YK999-1")},
		"one, and the service has a fob":      {owners: []string{"alice"}, central: has("OATH00017")},
		"one, and the service has stock":      {owners: []string{"alice", ""}, central: has(others[1].Central()), last: true},
		"one, and the service does not say":   {owners: []string{"alice"}, central: fails(down), last: true},
		"two, and the service is not asked":   {owners: []string{"alice", "alice"}, central: fails(errors.New("asked in vain"))},
		"one, in another case of the letters": {owners: []string{"alice"}, central: has("yk20000001-1"), last: true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, a := range []provision.Action{provision.ActDisable, provision.ActUnassign, provision.ActDelete} {
				b := withTokens(t, c.owners...)
				b.CentralTokens = c.central
				o := order(a, others[0])
				for _, i := range c.also {
					o.Tokens = append(o.Tokens, others[i])
				}
				intent, err := b.Prepare(t.Context(), o)
				_, _, doErr := b.Do(t.Context(), officer, o)
				if !c.last {
					if err != nil || doErr != nil || intent.Effects[0].LastOf != "" || len(intent.Why) != 0 {
						t.Errorf("%s: %+v, %v, %v", a, intent, err, doErr)
					}
					continue
				}
				wantRefused(t, err, "it leaves alice without an active token", "--reason")
				wantRefused(t, doErr, "it leaves alice without an active token", "--reason")
				if name == "one, and the service does not say" {
					wantRefused(t, doErr, "cannot tell of others: "+down.Error())
				}
				o.Reason = "she knows"
				intent, err = b.Prepare(t.Context(), o)
				if _, _, doErr = b.Do(t.Context(), officer, o); err != nil || doErr != nil || intent.Effects[0].LastOf != "alice" || len(intent.Why) != 0 {
					t.Errorf("%s with a reason: %+v, %v, %v", a, intent, err, doErr)
				}
			}
		})
	}
}

func has(names ...string) func(context.Context, string) ([]string, error) {
	return func(context.Context, string) ([]string, error) { return names, nil }
}

func fails(err error) func(context.Context, string) ([]string, error) {
	return func(context.Context, string) ([]string, error) { return nil, err }
}

// A token that was deleted here, and not yet there, lets nobody log in for long.
func TestADeletedTokenIsNotALastOne(t *testing.T) {
	b := withTokens(t, "alice", "alice")
	b.CentralTokens = has(others[0].Central(), others[1].Central())
	if _, _, err := b.act("delete", others[1], ""); err != nil {
		t.Fatal(err)
	}
	_, _, err := b.Do(t.Context(), officer, order(provision.ActDisable, others[0]))
	wantRefused(t, err, "it leaves alice without an active token")
}

// Nothing holds up a compromise, and what nobody can log in with is nobody's last token.
func TestWhatTheLastTokenRuleDoesNotHoldUp(t *testing.T) {
	b := withTokens(t, "alice", "bob", "carol")
	b.Policy.LastToken = true
	b.CentralTokens = fails(errors.New("the directory does not answer"))
	o := order(provision.ActCompromise, others[0])
	o.Loss = vault.Lost
	if _, _, err := b.Do(t.Context(), officer, o); err != nil {
		t.Errorf("compromise: %v", err)
	}
	o = order(provision.ActCompromise, others[1])
	o.Loss = vault.Other
	_, _, err := b.Do(t.Context(), officer, o)
	wantRefused(t, err, "takes words")
	o.Reason = "found in a lake"
	if _, _, err := b.Do(t.Context(), officer, o); err != nil {
		t.Errorf("compromise: %v", err)
	}
	if loss := b.token(others[1]).Loss; loss.Words != "found in a lake" || loss.Owner != "bob" {
		t.Errorf("%+v", loss)
	}
	b.update(func(tx *vault.Tx) error {
		tok, err := tx.Token(others[2])
		tok.Status = vault.Disabled
		return errors.Join(err, tx.PutToken(tok))
	})
	if _, _, err := b.Do(t.Context(), officer, order(provision.ActUnassign, others[2])); err != nil {
		t.Errorf("unassign of a disabled token: %v", err)
	}
}

func TestWipeOfTheLastToken(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	_, err := b.Wipe(t.Context(), officer, slot2, "", b.tell)
	wantRefused(t, err, "it leaves alice without an active token", "--reason")
	b.Policy.LastToken = true
	_, err = b.Wipe(t.Context(), officer, slot2, "scrapped", b.tell)
	wantRefused(t, err, "takes a second officer", "tokendesk unassign "+string(slot2))
	b.wantOutbox("")
	b.wantOnDevice(slot2)
}
