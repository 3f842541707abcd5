package provision_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

var second = audit.Officer{UID: 1001, Name: "pete"}

// others are tokens on devices that are not at hand.
var others = []device.TokenID{"yk-20000001/otp1", "yk-20000002/otp1", "yk-20000003/otp1", "yk-20000004/otp1"}

// withTokens is a bench whose vault has active tokens of some users; "" is stock.
func withTokens(t *testing.T, owners ...string) *bench {
	t.Helper()
	b := newVaultBench(t)
	for i, owner := range owners {
		b.put(vault.Token{ID: others[i], Status: vault.Active, Owner: owner, Digits: 6, Generation: 1})
	}
	return b
}

// waits gives an order that must wait for a second officer.
func (b *bench) waits(by audit.Officer, o provision.Order) vault.Approval {
	b.t.Helper()
	tokens, changes, err := b.Do(b.t.Context(), by, o)
	var waiting *provision.ApprovalError
	if !errors.As(err, &waiting) || len(tokens) != 0 || len(changes) != 0 {
		b.t.Fatalf("%v, %v, %v: want an order that waits", tokens, changes, err)
	}
	return waiting.Approval
}

func (b *bench) approvals() (all []vault.Approval) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) (err error) { all, err = tx.Approvals(); return err })
	return all
}

func (b *bench) history(id device.TokenID) (all []audit.Entry) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) (err error) { all, err = tx.History(id, 0, 0); return err })
	return all
}

// acts renders the audit trail: "olga:disable yk-1/otp1".
func (b *bench) acts() (all []audit.Entry) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) error {
		return tx.Acts(1, func(e audit.Entry) (bool, error) { all = append(all, e); return true, nil })
	})
	return all
}

func order(a provision.Action, ids ...device.TokenID) provision.Order {
	return provision.Order{Action: a, Tokens: ids}
}

func TestApproval(t *testing.T) {
	b := withTokens(t, "alice")
	b.Policy.LastToken = true
	o := order(provision.ActUnassign, others[0])
	_, _, err := b.Do(t.Context(), officer, o)
	wantRefused(t, err, "leaves alice without an active token", "--reason")
	if len(b.approvals()) != 0 {
		t.Error("an order without a reason waits")
	}
	o.Reason = "she leaves"
	before := b.token(others[0])
	a := b.waits(officer, o)
	intent, err := b.Prepare(t.Context(), o)
	if err != nil || intent.Digest != a.Digest || len(intent.Why) != 1 || intent.Effects[0].LastOf != "alice" {
		t.Errorf("%+v, %v", intent, err)
	}
	if a.ID != 1 || a.Action != "unassign" || a.Object != string(others[0]) || a.By != officer || a.Reason != "she leaves" || len(a.Text) != 1 ||
		a.Text[0] != string(others[0])+" stays active, is taken from alice, and it is the last active token of alice" {
		t.Errorf("%+v", a)
	}
	if d := a.Expires.Sub(a.Created); d != provision.ApprovalLife {
		t.Errorf("it waits for %v", d)
	}
	if b.token(others[0]) != before || b.outbox() != "" {
		t.Error("an order that waits has changed something")
	}
	if again := b.waits(officer, o); again.ID != a.ID || len(b.approvals()) != 1 {
		t.Errorf("asked again, it waits again: %+v", again)
	}
	if other := b.waits(second, o); other.ID == a.ID || len(b.approvals()) != 2 {
		t.Errorf("another officer's order is not one of their own: %+v", other)
	}
	_, _, err = b.Approve(t.Context(), officer, a.ID)
	wantRefused(t, err, "olga has asked for approval 1, and cannot approve it too", "another officer")
	tokens, changes, err := b.Approve(t.Context(), second, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(tokens) != 1 || tokens[0].Owner != "" || len(changes) != 1 || b.token(others[0]).Owner != "" {
		t.Errorf("%+v, %+v", tokens, changes)
	}
	b.wantOutbox("unassign/1:alice")
	if _, _, err := b.Approve(t.Context(), second, a.ID); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("approved twice: %v", err)
	}
	last := b.history(others[0])[0]
	if last.Officer != officer || last.Action != "unassign" || last.Reason != "user alice; approval 1, by pete (uid 1001); reason: she leaves" {
		t.Errorf("%+v", last)
	}
	acts := b.acts()
	if end := acts[len(acts)-1]; end.Officer != second || end.Action != "approve" || end.Object != "approval 1" || !strings.Contains(end.Reason, "asked for by olga (uid 1000)") {
		t.Errorf("%+v", end)
	}
	// The same order of the other officer means nothing any more.
	_, _, err = b.Approve(t.Context(), officer, 2)
	wantRefused(t, err, "approval 2 is stale, and was removed", "is stock: it belongs to nobody")
	if len(b.approvals()) != 0 {
		t.Errorf("%+v", b.approvals())
	}
}

// Whatever changes after somebody has asked, nobody approves what they have not seen.
func TestApprovalDiesWithTheStateItWasAskedIn(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *bench)
		words  string
	}{
		"the token was edited": {func(b *bench) {
			words := "blue"
			if _, _, err := b.Do(b.t.Context(), officer, provision.Order{Action: provision.ActEdit, Tokens: others[:1], Description: &words}); err != nil {
				b.t.Fatal(err)
			}
		}, string(others[0]) + " was changed on "},
		"the user got another token": {func(b *bench) {
			if _, _, err := b.act("assign", others[1], "alice"); err != nil {
				b.t.Fatal(err)
			}
		}, "now " + string(others[0]) + " active, becomes disabled, alice can no longer log in with it"},
		"the token is gone": {func(b *bench) {
			b.Policy.LastToken = false
			if _, _, err := b.act("delete", others[0], ""); err != nil {
				b.t.Fatal(err)
			}
		}, "not found"},
		"work was begun": {func(b *bench) {
			b.update(func(tx *vault.Tx) error { return tx.PutJob(&vault.Job{Kind: "reissue", Token: others[0]}) })
		}, "unfinished reissue"},
	} {
		t.Run(name, func(t *testing.T) {
			b := withTokens(t, "alice", "")
			b.Policy.LastToken = true
			o := order(provision.ActDisable, others[0])
			o.Reason = "on leave"
			a := b.waits(officer, o)
			c.change(b)
			state := b.outbox()
			_, _, err := b.Approve(t.Context(), second, a.ID)
			wantRefused(t, err, "approval 1 is stale, and was removed", c.words, "ask again")
			if len(b.approvals()) != 0 || b.outbox() != state {
				t.Errorf("%+v, outbox %q", b.approvals(), b.outbox())
			}
		})
	}
}

func TestApprovalAskedAgainAfterAChangeReplacesTheOldOne(t *testing.T) {
	b := withTokens(t, "alice")
	b.Policy.LastToken = true
	o := order(provision.ActDisable, others[0])
	o.Reason = "on leave"
	first := b.waits(officer, o)
	b.update(func(tx *vault.Tx) error {
		tok, err := tx.Token(others[0])
		tok.Batch = "May"
		return errors.Join(err, tx.PutToken(tok))
	})
	next := b.waits(officer, o)
	if all := b.approvals(); next.ID == first.ID || next.Digest == first.Digest || len(all) != 1 || all[0].ID != next.ID {
		t.Errorf("%+v", all)
	}
	if _, _, err := b.Approve(t.Context(), second, next.ID); err != nil {
		t.Error(err)
	}
}

func TestApprovalExpires(t *testing.T) {
	b := withTokens(t, "alice")
	b.Policy.LastToken = true
	o := order(provision.ActDisable, others[0])
	o.Reason = "on leave"
	a := b.waits(officer, o)
	a.Expires = time.Now().Add(-time.Minute)
	b.update(func(tx *vault.Tx) error { return tx.PutApproval(&a) })
	if next := b.waits(officer, o); next.ID == a.ID || len(b.approvals()) != 1 {
		t.Errorf("it waits for ever: %+v", b.approvals())
	}
	a = b.approvals()[0]
	a.Expires = time.Now().Add(-time.Minute)
	b.update(func(tx *vault.Tx) error { return tx.PutApproval(&a) })
	_, _, err := b.Approve(t.Context(), second, a.ID)
	wantRefused(t, err, "approval 2 has waited too long")
	if len(b.approvals()) != 0 || b.token(others[0]).Status != vault.Active {
		t.Errorf("%+v", b.approvals())
	}
}

func TestReject(t *testing.T) {
	b := withTokens(t, "alice")
	b.Policy.LastToken = true
	o := order(provision.ActDisable, others[0])
	o.Reason = "on leave"
	a := b.waits(officer, o)
	wantRefused(t, b.Reject(second, a.ID, ""), "olga wants to know why")
	wantRefused(t, b.Reject(second, a.ID, "no\n"), "control characters")
	if err := b.Reject(second, a.ID, "she is back"); err != nil {
		t.Fatal(err)
	}
	acts := b.acts()
	if end := acts[len(acts)-1]; end.Officer != second || end.Action != "reject" || !strings.HasPrefix(end.Reason, "she is back; disable of ") {
		t.Errorf("%+v", end)
	}
	if err := b.Reject(second, a.ID, "again"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("%v", err)
	}
	a = b.waits(officer, o)
	if err := b.Reject(officer, a.ID, ""); err != nil {
		t.Errorf("whoever asked cannot take it back: %v", err)
	}
	if len(b.approvals()) != 0 {
		t.Errorf("%+v", b.approvals())
	}
}

func TestApprovalOfSomethingElseIsNotCarriedOut(t *testing.T) {
	b := withTokens(t, "alice")
	b.update(func(tx *vault.Tx) error {
		return tx.PutApproval(&vault.Approval{Action: "discard", Object: "change 3", Request: []byte(`{"action":"delete","tokens":["yk-20000001/otp1"]}`),
			By: officer, Expires: time.Now().Add(time.Hour)})
	})
	_, _, err := b.Approve(t.Context(), second, 1)
	wantRefused(t, err, "approval 1 (discard) is not about tokens")
	if !b.exists(others[0]) {
		t.Error("it was carried out")
	}
}

// Two officers approve at once: one wins, and the order is carried out once.
func TestTwoApproversAtOnce(t *testing.T) {
	b := withTokens(t, "alice")
	b.Policy.LastToken = true
	o := order(provision.ActDisable, others[0])
	o.Reason = "on leave"
	a := b.waits(officer, o)
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			_, _, errs[i] = b.Approve(context.Background(), audit.Officer{UID: 2000 + int64(i), Name: "one of many"}, a.ID)
		})
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		var refused *provision.RefusedError
		if err == nil {
			won++
		} else if !errors.Is(err, vault.ErrNotFound) && !errors.As(err, &refused) {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d have won", won)
	}
	b.wantOutbox("disable/1:alice")
	if !b.Unclaimed() {
		t.Error("a claim is left")
	}
}

func TestCompromiseOfMany(t *testing.T) {
	b := withTokens(t, "alice", "bob", "carol")
	b.Policy = provision.Policy{LastToken: true, CompromiseOver: 2}
	o := order(provision.ActCompromise, others[:2]...)
	o.Loss = vault.Stolen
	if _, _, err := b.Do(t.Context(), officer, o); err != nil {
		t.Fatalf("a compromise is held up: %v", err)
	}
	o.Tokens = others[:3]
	_, _, err := b.Do(t.Context(), officer, o)
	wantRefused(t, err, "is compromised (stolen); it never comes back") // all or none
	if b.token(others[2]).Status != vault.Active {
		t.Error("one of the refused order was compromised")
	}
	b.Policy.CompromiseOver = 1
	b.put(vault.Token{ID: others[3], Status: vault.Active, Owner: "dave", Digits: 6, Generation: 1})
	o.Tokens = others[2:4]
	a := b.waits(officer, o)
	if a.Reason != "stolen" {
		t.Errorf("%+v", a)
	}
	if _, _, err := b.Approve(t.Context(), second, a.ID); err != nil {
		t.Fatal(err)
	}
	for i, owner := range []string{"alice", "bob", "carol", "dave"} {
		tok := b.token(others[i])
		if tok.Status != vault.Compromised || tok.Owner != "" || tok.Loss.Owner != owner || tok.Loss.Kind != vault.Stolen || time.Since(tok.Loss.Time) > time.Minute {
			t.Errorf("%+v", tok)
		}
	}
}
