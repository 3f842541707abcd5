package provision_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// notices renders what waits for holders, "disabled alice", and takes it away.
func (b *bench) notices() (out []string) {
	b.t.Helper()
	b.update(func(tx *vault.Tx) error {
		all, err := tx.Notices(0, 0)
		for _, n := range all {
			text := n.Kind + " " + n.User
			if n.Successor != "" {
				text += " > " + n.Successor
			}
			out = append(out, text)
			err = errors.Join(err, tx.DeleteNotice(n.ID))
		}
		return err
	})
	return out
}

func (b *bench) wantNotices(want ...string) {
	b.t.Helper()
	if got := b.notices(); !slices.Equal(got, want) {
		b.t.Errorf("holders are told %q, not %q", got, want)
	}
}

// Every order in every status, with and without an owner: the holder is told what has become of the token, once, and of nothing
// that was refused.
func TestNoticesOfOrders(t *testing.T) {
	told := map[string]string{
		"unassign": "unassigned alice", "disable": "disabled alice", "enable": "enabled alice", "expire": "expired alice",
		"compromise": "compromised alice", "delete": "unassigned alice",
	}
	past, soon := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	carried, n := map[string]int{}, 0
	b := newVaultBench(t)
	b.Notices = true
	for _, action := range []string{"edit", "assign", "unassign", "disable", "enable", "expire", "compromise", "delete"} {
		for _, status := range []vault.Status{vault.Pending, vault.Active, vault.Disabled, vault.Limbo, vault.Expired, vault.Compromised} {
			for _, owner := range []string{"alice", ""} {
				n++
				id := device.SlotToken(device.YubiKeyID(device.Serial(30000000+n)), 1)
				tok := vault.Token{ID: id, Status: status, Owner: owner, Digits: 6, Generation: 1}
				o := provision.Order{Action: provision.Action(action), Tokens: []device.TokenID{id}, Reason: "as the test wants"}
				by := officer
				switch {
				case status == vault.Compromised:
					tok.Owner, tok.Loss = "", vault.Loss{Kind: vault.Lost, Time: past, Owner: owner}
				case action == "assign":
					o.User = "alice"
				case action == "compromise":
					o.Loss = vault.Stolen
				case action == "edit":
					o.Expires = &soon
				case action == "expire":
					tok.Expires, by = past, provision.Desk
				}
				b.put(tok)
				_, _, err := b.Do(t.Context(), by, o)
				var want []string
				switch {
				case err != nil:
				case action == "assign":
					want = []string{"invitation alice"}
				case action == "edit" && status == vault.Expired && owner != "":
					want = []string{"enabled alice"}
				case tok.Owner != "" && told[action] != "":
					want = []string{told[action]}
				}
				if err == nil {
					carried[action]++
				}
				if got := b.notices(); !slices.Equal(got, want) {
					t.Errorf("%s of a token that is %s and belongs to %q (%v): %q, not %q", action, status, owner, err, got, want)
				}
			}
		}
	}
	for _, action := range []string{"edit", "assign", "unassign", "disable", "enable", "expire", "compromise", "delete"} {
		if carried[action] == 0 {
			t.Errorf("%s was never carried out", action)
		}
	}
}

// A desk that sends none writes none: they would wait for ever.
func TestNoNotices(t *testing.T) {
	b := withTokens(t, "alice")
	if _, _, err := b.act("disable", others[0], ""); err != nil {
		t.Fatal(err)
	}
	b.wantNotices()
}

// What waits for a second officer has not happened, and is told once that officer agrees.
func TestNoticesOfApprovals(t *testing.T) {
	b := withTokens(t, "alice", "bob")
	b.Notices, b.Policy = true, provision.Policy{LastToken: true}
	a := b.waits(officer, provision.Order{Action: provision.ActDisable, Tokens: others[:2], Reason: "on leave"})
	b.wantNotices()
	if _, _, err := b.Approve(t.Context(), second, a.ID); err != nil {
		t.Fatal(err)
	}
	b.wantNotices("disabled alice", "disabled bob")
}

// Work of several steps tells of each fact with the step that makes it.
func TestNoticesOfWork(t *testing.T) {
	b := newBench(t)
	b.Notices = true
	b.touch = false // somebody goes away: it stops at the verification
	b.TouchTimeout = 50 * time.Millisecond
	if err := b.enroll(t.Context(), enrollment(slot2, "alice")); err == nil {
		t.Fatal("verified without a touch")
	}
	b.wantNotices()
	if err := b.Undo(t.Context(), officer, slot2, b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantNotices()
	b.touch, b.TouchTimeout = true, 0
	b.enrolled(slot2, "alice")
	b.wantNotices("invitation alice")
	b.touch, b.TouchTimeout = false, 50*time.Millisecond
	if err := b.reissue(t.Context(), slot2, "bob"); err == nil {
		t.Fatal("verified without a touch")
	}
	b.wantNotices("reissued alice > bob")
	b.touch, b.TouchTimeout = true, 0
	b.resolve(slot2)
	b.wantNotices("invitation bob")
	if _, err := b.Reseed(t.Context(), officer, slot2, "", b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantNotices()
	if _, err := b.Wipe(t.Context(), officer, slot2, "scrapped", b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantNotices("unassigned bob")
	b.enrolled(slot1, "")
	b.wantNotices()
}

func TestNoticeKinds(t *testing.T) {
	kinds := provision.NoticeKinds()
	slices.Sort(kinds)
	if len(slices.Compact(slices.Clone(kinds))) != len(kinds) || len(kinds) != 7 {
		t.Error(kinds)
	}
}
