package provision_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/vaulttest"
)

// Nothing takes a user's last active token without a reason, by whatever way.
func TestWaysAroundTheLastTokenRule(t *testing.T) {
	const rule = "it leaves alice without an active token"
	t.Run("an end that is near", func(t *testing.T) {
		b := withTokens(t, "alice")
		near := time.Now().Add(time.Minute)
		_, _, err := b.Do(t.Context(), officer, provision.Order{Action: provision.ActEdit, Tokens: others[:1], Expires: &near})
		wantRefused(t, err, rule, "--reason")
	})
	t.Run("limbo", func(t *testing.T) {
		b := newBench(t)
		b.enrolled(slot2, "alice")
		ctx, stop := context.WithCancel(t.Context())
		_, err := b.Reseed(ctx, officer, slot2, "", func(p provision.Progress) {
			if p.Step == "seal" {
				stop()
			}
		})
		b.wantUnfinished(err, slot2, "program", context.Canceled)
		_, _, err = b.Do(t.Context(), officer, order(provision.ActDelete, slot2))
		wantRefused(t, err, rule, "--reason")
	})
	t.Run("a token that is overdue is none", func(t *testing.T) {
		b := withTokens(t, "alice", "alice")
		b.due(others[1])
		_, _, err := b.Do(t.Context(), officer, order(provision.ActDisable, others[0]))
		wantRefused(t, err, rule, "--reason")
	})
	t.Run("a blank reason", func(t *testing.T) {
		b := withTokens(t, "alice")
		_, _, err := b.Do(t.Context(), officer, provision.Order{Action: provision.ActUnassign, Tokens: others[:1], Reason: " "})
		wantRefused(t, err, rule, "--reason")
	})
	t.Run("reissue", func(t *testing.T) {
		b := newBench(t)
		b.enrolled(slot2, "alice")
		b.Policy.LastToken = true
		wantRefused(t, b.reissue(t.Context(), slot2, "bob"), "this takes a second officer", "tokendesk unassign")
		b.wantOnly(slot2, "alice")
	})
	for name, take := range map[string]func(*bench) error{
		"wipe meanwhile":    func(b *bench) error { _, err := b.Wipe(t.Context(), officer, slot2, "", b.tell); return err },
		"reissue meanwhile": func(b *bench) error { return b.reissue(t.Context(), slot2, "bob") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.enrolled(slot1, "alice")
			b.enrolled(slot2, "alice")
			b.Policy.LastToken = true
			open, first := b.Open, true
			b.Open = func(ctx context.Context, id device.TokenID, fn func(device.HOTPToken, bool) error) error {
				if first {
					first = false
					if _, _, err := b.Do(ctx, second, order(provision.ActUnassign, slot1)); err != nil {
						t.Error(err)
					}
				}
				return open(ctx, id, fn)
			}
			wantRefused(t, take(b), rule)
			if tok := b.token(slot2); tok.Owner != "alice" || tok.Status != vault.Active {
				t.Errorf("%+v", tok)
			}
			if _, found := b.job(slot2); found {
				t.Error("it is in the journal")
			}
		})
	}
}

// A token that was given more time while its expiry was on its way does not expire.
func TestOnlyWhatIsDueExpires(t *testing.T) {
	b := withTokens(t, "alice")
	_, _, err := b.Do(t.Context(), provision.Desk, order(provision.ActExpire, others[0]))
	wantRefused(t, err, "was given more time")
}

// What is recorded and waits for the TPM is delivered once that is back: the outbox has to know of it.
func TestTheOutboxIsWokenForWhatWaitsForTheTPM(t *testing.T) {
	b := withTokens(t, "alice", "alice")
	woken := 0
	b.Wake = func() { woken++ }
	vaulttest.Board.Fail = func(call string) (error, bool) {
		if call == "increment" || call == "count" {
			return errors.New("gone"), false
		}
		return nil, false
	}
	_, _, err := b.Do(t.Context(), officer, order(provision.ActUnassign, others[0]))
	vaulttest.Board.Fail = nil
	if !errors.Is(err, vault.ErrUnanchored) || woken != 1 {
		t.Errorf("%v, woken %d times", err, woken)
	}
	b.wantOutbox("unassign/1:alice")
}
