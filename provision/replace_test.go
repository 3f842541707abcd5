package provision_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/provision"
	"tokendesk/vault"
)

// moves gives a token to another tenant.
func (b *bench) moves(id device.TokenID, tenant string) {
	b.t.Helper()
	b.update(func(tx *vault.Tx) error {
		tok, err := tx.Token(id)
		tok.Tenant = tenant
		return errors.Join(err, tx.PutToken(tok))
	})
}

// The lost token dies in the first transaction; the new one comes after the cut-off, and both know of each other.
func TestReplacementOfALostToken(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot1, "alice")
	b.deliver()
	b.CheckUser = func(context.Context, string) (string, error) {
		return "", &provision.RefusedError{Reason: "alice has one already"} // and it makes room
	}
	b.Confirm = func(_ context.Context, seq uint64) error {
		if tok := b.token(slot1); tok.Status != vault.Compromised || tok.Loss.Kind != vault.Lost || tok.Loss.Owner != "alice" || tok.Loss.Words != "on the train" {
			t.Errorf("while the cut-off is waited for: %+v", tok)
		}
		if tok := b.token(slot2); tok.Status != vault.Pending || tok.Owner != "" || tok.Generation != 0 {
			t.Errorf("while the cut-off is waited for: %+v", tok)
		}
		if b.configured(slot2) {
			t.Error("it is programmed before that")
		}
		return nil
	}
	b.moves(slot1, "branch")
	o := lost()
	o.Old.Words = "on the train"
	changes, err := b.Reissue(t.Context(), officer, o, b.tell)
	if err != nil || len(changes) != 4 {
		t.Fatalf("%+v, %v", changes, err)
	}
	b.wantOutbox("unassign/1:alice disable/1:alice put/1 assign/1:alice")
	b.wantFollows(slot2, slot1)
	b.wantOnly(slot2, "alice")
	old, fresh := b.token(slot1), b.token(slot2)
	if old.ReplacedBy != slot2 || fresh.Replaces != slot1 || fresh.Tenant != "branch" || old.ReseedDue || fresh.ReplacedBy != "" {
		t.Errorf("%+v\n%+v", old, fresh)
	}
	want := vault.Handover{
		Kind: vault.Replaced, Token: slot2, Generation: 1, From: "alice", To: "alice", Old: slot1, OldSerial: serial, OldStatus: vault.Compromised,
		Emulated: true, Offline: true, Proof: vault.Proof{Codes: 2, Generation: 1},
	}
	b.wantHandover(slot2, want)
	b.wantHandover(slot1, want)
	if last := b.history(slot1)[0]; last.Action != "compromise" || last.Reason != "user alice; reason: lost: on the train" {
		t.Errorf("%+v", last)
	}
}

// What was taken from a leaver and is not here is to be reseeded; a token of the stock that comes in its place is, at once.
func TestReplacementOutOfStock(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot1, "alice")
	b.enrolled(slot2, "")
	b.deliver()
	b.AtHand = func(device.ID) bool { return true } // the other slot's key
	asked := ""
	b.CheckUser = func(_ context.Context, user string) (string, error) { asked = user; return "Bob", nil }
	o := provision.Reissue{Token: slot1, With: slot2, User: "bob", Reason: "she posts it"}
	if err := b.reissued(t.Context(), o); err != nil || asked != "bob" {
		t.Fatalf("%v, asked about %q", err, asked)
	}
	b.wantOutbox("unassign/1:alice put/2 assign/2:Bob")
	b.wantFollows(slot2, slot1)
	b.wantOnly(slot2, "Bob")
	if old := b.token(slot1); !old.ReseedDue || old.Status != vault.Active || old.Owner != "" || old.ReplacedBy != slot2 {
		t.Errorf("%+v", old)
	}
	b.wantHandover(slot2, vault.Handover{
		Kind: vault.Replaced, Generation: 2, From: "alice", To: "Bob", Old: slot1, OldSerial: serial, OldStatus: vault.Active, Reason: "she posts it",
		Emulated: true, Offline: true, Proof: vault.Proof{Codes: 2, Generation: 2, OldGeneration: 1, OldFrom: 2, OldWindow: 1000},
	})
	// A key that is given to somebody anew is nobody's replacement any more.
	if err := b.reissue(t.Context(), slot1, "carol"); err != nil {
		t.Fatal(err)
	}
	if tok := b.token(slot1); tok.ReplacedBy != "" || tok.ReseedDue {
		t.Errorf("%+v", tok)
	}
}

// What was compromised before needs no other end; its last owner gets the replacement.
func TestReplacementOfWhatIsCompromised(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot1, "alice")
	b.deliver()
	o := order(provision.ActCompromise, slot1)
	o.Loss = vault.Stolen
	if _, _, err := b.Do(t.Context(), officer, o); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, b.reissued(t.Context(), lost()), "is compromised (stolen) already", "leave out what becomes of it")
	if err := b.reissued(t.Context(), provision.Reissue{Token: slot1, With: slot2, Settings: provision.Settings{Enter: true}}); err != nil {
		t.Fatal(err)
	}
	b.wantOutbox("unassign/1:alice disable/1:alice put/1 assign/1:alice")
	b.wantFollows(slot2, slot1)
	b.wantOnly(slot2, "alice")
	if loss := b.token(slot1).Loss; loss.Kind != vault.Stolen {
		t.Errorf("%+v", loss)
	}
}

func TestReplacementRefusals(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot1, "")
	b.occupy(slot2, "", true)
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: slot1, With: slot2}), "belongs to nobody", "--to USER")
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: slot1, With: slot2, User: "bob"}), "slot 2 of yk-10000001 already holds something", "--overwrite")
	err := b.reissued(t.Context(), provision.Reissue{Token: slot1, With: others[0], User: "bob"})
	if !errors.Is(err, device.ErrGone) {
		t.Errorf("of a device that is not here: %v", err)
	}
	o := provision.Reissue{Token: slot1, With: slot2, User: "bob", Settings: provision.Settings{Overwrite: true, Enter: true}}
	if err := b.reissued(t.Context(), o); err != nil { // stock replaces stock
		t.Fatal(err)
	}
	b.wantOnly(slot2, "bob")
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: slot1, With: slot2, User: "carol"}), "belongs to bob", "choose one of the stock")
	fob := device.TokenID("fob-123")
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: slot1, With: fob, User: "carol"}), "cannot be programmed")
	if err := b.reissued(t.Context(), provision.Reissue{Token: others[0], With: slot1, User: "carol"}); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("of an unknown token: %v", err)
	}
	b.moves(slot1, "branch")
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: slot2, With: slot1}), "are of different tenants")
	b.moves(slot1, "")
	b.Policy.LastToken = true
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: slot2, With: slot1}), "this takes a second officer", "tokendesk unassign "+string(slot2))
	if tok := b.token(slot2); tok.Owner != "bob" || !b.Unclaimed() {
		t.Errorf("%+v", tok)
	}
	// A loss waits for nobody.
	if err := b.reissued(t.Context(), provision.Reissue{Token: slot2, With: slot1, Old: provision.OldEnd{Loss: vault.Stolen}}); err != nil {
		t.Error(err)
	}
}

// A replacement is given up: what became of the old token stands, and of a new one nothing is left.
func TestReplacementIsGivenUp(t *testing.T) {
	away := errors.New("away")
	for name, c := range map[string]struct {
		stock, write bool // a token of the stock comes in its place; it is given up after it was written to
	}{"new": {}, "new, written": {write: true}, "stock": {stock: true}, "stock, written": {stock: true, write: true}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.enrolled(slot1, "alice")
			if c.stock {
				b.enrolled(slot2, "")
			}
			b.deliver()
			if c.write {
				b.fault(emulator.FaultUnplugAfterWrite, 0)
				b.wantUnfinished(b.reissued(t.Context(), lost()), slot2, "program", device.ErrGone)
				b.key.Insert()
			} else {
				b.Confirm = func(context.Context, uint64) error { return away }
				b.wantUnfinished(b.reissued(t.Context(), lost()), slot2, "confirm", away)
			}
			err := b.Undo(t.Context(), officer, slot2, b.tell)
			if c.stock && c.write {
				wantRefused(t, err, "this replace cannot be undone any more", "tokendesk resolve "+string(slot2))
				b.resolve(slot2)
				b.wantOnly(slot2, "alice")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if old := b.token(slot1); old.Status != vault.Compromised || old.ReplacedBy != "" {
				t.Errorf("%+v", old)
			}
			if _, found := b.job(slot2); found || b.exists(slot2) != c.stock || b.configured(slot2) != c.stock {
				t.Errorf("in the journal %v, in the vault %v, in the slot %v", found, b.exists(slot2), b.configured(slot2))
			}
			b.wantOutbox("unassign/1:alice disable/1:alice")
			b.Confirm = nil
			o := lost()
			o.Old = provision.OldEnd{}
			if err := b.reissued(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			b.wantOnly(slot2, "alice")
		})
	}
}

// The old token is deleted while the replacement waits.
func TestReplacementOutlivesWhatItReplaces(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot1, "alice")
	b.deliver()
	b.fault(emulator.FaultUnplugAtChunk, 2)
	b.wantUnfinished(b.reissued(t.Context(), lost()), slot2, "program", device.ErrGone)
	if _, _, err := b.act("delete", slot1, ""); err != nil {
		t.Fatal(err)
	}
	b.key.Insert()
	b.resolve(slot2)
	b.wantOnly(slot2, "alice")
	if h := b.handovers(slot1)[0]; h.OldStatus != vault.Compromised || h.Old != slot1 || h.Token != slot2 {
		t.Errorf("%+v", h)
	}
	if tok := b.token(slot2); !strings.HasPrefix(string(tok.Replaces), "yk-") {
		t.Errorf("%+v", tok)
	}
}
