package provision_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// A token that came back goes to stock; its seed is one that somebody had.
func TestReturned(t *testing.T) {
	b := withTokens(t, "alice", "bob")
	b.leave(provision.Leave{User: "alice"})
	wantItem(t, b.settle("alice", vault.Returned, others[0]), true, vault.Returned, "is back in stock", "tokendesk reseed yk-20000001/otp1")
	if tok := b.token(others[0]); tok.Owner != "" || tok.Status != vault.Active || !tok.ReseedDue {
		t.Errorf("%+v", tok)
	}
	b.wantOutbox("unassign/1:alice")
	act := b.history(others[0])
	if act[0].Action != "returned" || act[0].Reason != "user alice" || act[1].Action != "unassign" || !strings.HasSuffix(act[1].Reason, "reason: leaver") {
		t.Errorf("%+v", act[:2])
	}
	_, _, err := b.Settle(t.Context(), officer, provision.Settlement{User: "alice", State: vault.Returned})
	wantRefused(t, err, "all tokens of alice are settled")
	_, _, err = b.Settle(t.Context(), officer, provision.Settlement{User: "alice", Token: others[0], State: vault.WrittenOff})
	wantRefused(t, err, "is settled: it is back in stock")
	_, _, err = b.Settle(t.Context(), officer, provision.Settlement{User: "alice", Token: others[1], State: vault.Returned})
	wantRefused(t, err, string(others[1])+" is no token of alice")

	// Settled is settled: a token that alice gets later is no leaver's.
	b.update(func(tx *vault.Tx) error {
		tok, err := tx.Token(others[0])
		tok.Owner = "alice"
		return errors.Join(err, tx.PutToken(tok))
	})
	if l := b.leaver("alice"); l.Open() != 0 {
		t.Errorf("%+v", l)
	}
	if l := b.leave(provision.Leave{User: "alice"}); l.Open() != 1 || !l.Settled.IsZero() || l.Tokens[0].State != vault.Open {
		t.Errorf("she leaves again: %+v", l)
	}
}

// With a successor, the reissue takes it from the leaver: until then nothing changes.
func TestReturnedForSuccessor(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.leave(provision.Leave{User: "alice", Successor: "bob"})
	l := b.settle("alice", vault.Returned, "")
	reissue := "tokendesk reissue " + string(slot2) + " --to bob"
	wantItem(t, l, false, vault.Returned, "alice can still log in with it", reissue)
	if tok := b.token(slot2); tok.Owner != "alice" {
		t.Errorf("%+v", tok)
	}
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	// Facts win: nobody has to say anything.
	l = b.leaver("alice")
	if s := l.Tokens[0]; !s.Settled || s.Fact != "was reissued to bob; that waits in the outbox as change 3" || s.Next != "" {
		t.Errorf("%+v", s)
	}
	b.deliver()
	b.closed()
	wantItem(t, b.leaver("alice"), true, vault.Returned, "was reissued to bob", "")
}

// What did not come back is cut off at once, and stays in the queue until it turns up, or is written off.
func TestNotReturned(t *testing.T) {
	for name, end := range map[string]func(*bench){
		"it turns up": func(b *bench) {
			wantItem(b.t, b.settle("alice", vault.Returned, ""), true, vault.Returned, "is back in stock, and needs a new seed", "tokendesk reseed yk-20000001/otp1")
		},
		"it is written off": func(b *bench) {
			wantItem(b.t, b.settle("alice", vault.WrittenOff, ""), true, vault.WrittenOff, "is compromised (lost)", "")
			if tok := b.token(others[0]); tok.Status != vault.Compromised || tok.Loss.Words != "leaver" {
				b.t.Errorf("%+v", tok)
			}
		},
		"it is reseeded without a word": func(b *bench) {
			b.update(func(tx *vault.Tx) error {
				tok, err := tx.Token(others[0])
				tok.ReseedDue = false
				return errors.Join(err, tx.PutToken(tok))
			})
			b.closed()
			wantItem(b.t, b.leaver("alice"), true, vault.NotReturned, "is back in stock", "")
		},
		"it is deleted": func(b *bench) {
			o := order(provision.ActDelete, others[0])
			if _, _, err := b.Do(b.t.Context(), officer, o); err != nil {
				b.t.Fatal(err)
			}
			b.deliver()
			b.closed()
			wantItem(b.t, b.leaver("alice"), true, vault.NotReturned, "was deleted on ", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := withTokens(t, "alice")
			b.leave(provision.Leave{User: "alice"})
			l := b.settle("alice", vault.NotReturned, "")
			wantItem(t, l, false, vault.NotReturned, "alice is cut off; the device has not come back; that waits in the outbox as change ", next0+"returned")
			if tok := b.token(others[0]); tok.Owner != "" || !tok.ReseedDue {
				t.Errorf("%+v", tok)
			}
			b.wantOutbox("unassign/1:alice")
			b.view(func(tx *vault.Tx) error { // there is no chain of custody: it is as old as that
				l, _, found, err := provision.LeaverWith(tx, b.token(others[0]))
				if !found || l.User != "alice" {
					t.Errorf("the token is not known as hers: %+v", l)
				}
				return err
			})
			b.deliver()
			end(b)
		})
	}
}

// A token that was unassigned elsewhere, its device somewhere, is to come back all the same.
func TestUnassignedWithoutAWord(t *testing.T) {
	b := withTokens(t, "alice")
	b.leave(provision.Leave{User: "alice"})
	o := order(provision.ActUnassign, others[0])
	o.Reason = "left"
	if _, _, err := b.Do(t.Context(), officer, o); err != nil {
		t.Fatal(err)
	}
	b.deliver()
	wantItem(t, b.leaver("alice"), false, vault.Open, "alice is cut off; the device has not come back", next0+"returned")
	wantItem(t, b.settle("alice", vault.Returned, ""), true, vault.Returned, "is back in stock", "tokendesk reseed yk-20000001/otp1")
	b.wantOutbox("")
}

// What takes a second officer does so here, too. What was said is kept meanwhile.
func TestSettlementThatTakesTwo(t *testing.T) {
	b := withTokens(t, "alice")
	b.Policy.LastToken = true
	b.leave(provision.Leave{User: "alice"})
	_, _, err := b.Settle(t.Context(), officer, provision.Settlement{User: "alice", State: vault.NotReturned, Words: "moved away"})
	waiting := (*provision.ApprovalError)(nil)
	if !errors.As(err, &waiting) || waiting.Approval.Reason != "moved away" {
		t.Fatal(err)
	}
	wantItem(t, b.leaver("alice"), false, vault.NotReturned, "alice can still log in with it; approval 1 waits for a second officer", "tokendesk approvals approve 1")
	if tok := b.token(others[0]); tok.Owner != "alice" || tok.ReseedDue {
		t.Errorf("%+v", tok)
	}
	if _, _, err := b.Approve(t.Context(), second, waiting.Approval.ID); err != nil {
		t.Fatal(err)
	}
	b.deliver()
	wantItem(t, b.leaver("alice"), false, vault.NotReturned, "alice is cut off; the device has not come back", next0+"returned")

	// A compromise is never held up.
	b.Policy.CompromiseOver = 1
	wantItem(t, b.settle("alice", vault.WrittenOff, ""), true, vault.WrittenOff, "is compromised (lost)", "")
}

// All tokens of a leaver, or none.
func TestSettleAll(t *testing.T) {
	b := withTokens(t, "alice", "alice", "")
	b.leave(provision.Leave{User: "alice"})
	release, err := b.Claim(others[1])
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = b.Settle(t.Context(), officer, provision.Settlement{User: "alice", State: vault.NotReturned})
	wantRefused(t, err, "another officer's work on")
	if l := b.leaver("alice"); l.Open() != 2 || l.Tokens[0].State != vault.Open || b.outbox() != "" {
		t.Errorf("%+v, outbox %q", l, b.outbox())
	}
	release()
	if l := b.settle("alice", vault.Returned, ""); l.Open() != 0 || l.Settled.IsZero() {
		t.Errorf("%+v", l)
	}
	b.wantOutbox("unassign/1:alice unassign/1:alice")
}

// What cannot be reissued goes to stock, whoever takes over. A fob that did not come back is waited for; nobody brings a mailbox.
func TestLeaverWithOtherTypes(t *testing.T) {
	b := newVaultBench(t)
	fob, mail := device.TokenID("fob-2308001"), device.TokenID("mail-7")
	b.put(vault.Token{ID: fob, Status: vault.Active, Owner: "alice", Digits: 6, Generation: 1})
	b.put(vault.Token{ID: mail, Status: vault.Active, Owner: "alice", Address: "alice@example.org"})
	b.leave(provision.Leave{User: "alice", Successor: "bob"})
	items := func() (f, m provision.LeaverToken) {
		l := b.leaver("alice")
		if len(l.Tokens) != 2 || l.Tokens[0].Token != fob || l.Tokens[1].Token != mail {
			t.Fatalf("%+v", l.Tokens)
		}
		return l.Tokens[0], l.Tokens[1]
	}
	if f, m := items(); f.AtHand != "tokendesk reissue fob-2308001 --to bob CODE CODE" || m.AtHand != "tokendesk leavers settle alice mail-7 --returned" {
		t.Errorf("%+v, %+v", f, m)
	}
	b.settle("alice", vault.NotReturned, "")
	b.deliver()
	if f, m := items(); f.Settled || f.Fact != "alice is cut off; the device has not come back" || !m.Settled || m.Fact != "is back in stock" {
		t.Errorf("%+v, %+v", f, m)
	}
	b.settle("alice", vault.Returned, fob)
	if f, _ := items(); !f.Settled || f.Fact != "is back in stock" || f.Next != "" {
		t.Errorf("%+v", f)
	}
}

// A reissue that stopped in the middle is to be finished first.
func TestUnfinishedWorkOfALeaver(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.leave(provision.Leave{User: "alice", Successor: "bob"})
	b.touch = false
	b.TouchTimeout = time.Millisecond
	if err := b.reissue(t.Context(), slot2, "bob"); err == nil {
		t.Fatal("nobody has touched it")
	}
	_, _, err := b.Settle(t.Context(), officer, provision.Settlement{User: "alice", State: vault.NotReturned})
	wantRefused(t, err, "tokendesk resolve "+string(slot2))
	l := b.leaver("alice")
	if s := l.Tokens[0]; s.Settled || s.State != vault.Open || !strings.Contains(s.Fact, `stopped at "verify"`) || s.Next != "tokendesk resolve "+string(slot2) {
		t.Errorf("%+v", s)
	}
	b.touch, b.TouchTimeout = true, 0
	if _, err := b.Resolve(context.Background(), officer, slot2, nil, b.tell); err != nil {
		t.Fatal(err)
	}
	if l := b.leaver("alice"); l.Open() != 0 {
		t.Errorf("%+v", l)
	}
}
