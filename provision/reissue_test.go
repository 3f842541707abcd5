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

func TestReissueCutsOffBeforeAnythingElse(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	old, err := b.seed(slot2, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Wipe()
	var steps []string
	confirmed := false
	b.Confirm = func(_ context.Context, seq uint64) error {
		b.wantOutbox("unassign/1:alice")
		b.view(func(tx *vault.Tx) error {
			c, err := tx.ChangesFrom(0, 0)
			if err == nil && c[0].Seq != seq {
				t.Errorf("change %d is waited for, the cut-off is %d", seq, c[0].Seq)
			}
			return err
		})
		if tok := b.token(slot2); tok.Owner != "" || tok.Status != vault.Active {
			t.Errorf("while the cut-off is waited for: %+v", tok)
		}
		b.wantOnDevice(slot2) // still the old seed
		confirmed = true
		return nil
	}
	b.Checkpoint = func(_, step string) {
		steps = append(steps, step)
		status := b.token(slot2).Status
		if limbo := step == "seal" || step == "program"; limbo != (status == vault.Limbo) {
			t.Errorf("%s after %s", status, step)
		}
	}
	changes, err := b.Reissue(t.Context(), officer, provision.Reissue{Token: slot2, User: "bob"}, b.tell)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(steps, " "); got != strings.Join(provision.Steps()["reissue"], " ") || !confirmed {
		t.Errorf("steps %s; confirmed: %v", got, confirmed)
	}
	if len(changes) != 3 || changes[0].Kind != vault.Unassign || changes[1].Kind != vault.Put || changes[2].Kind != vault.Assign {
		t.Errorf("%+v", changes)
	}
	b.wantOutbox("unassign/1:alice put/2 assign/2:bob")
	tok := b.token(slot2)
	if tok.Status != vault.Active || tok.Owner != "bob" || tok.Generation != 2 || tok.Counter != 2 {
		t.Errorf("%+v", tok)
	}
	if _, err := b.seed(slot2, 1); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("the old seed: %v", err)
	}
	fresh, err := b.seed(slot2, 2)
	if err != nil || fresh.Equal(old) {
		t.Errorf("the new seed: %v", err)
	}
	fresh.Wipe()
	b.wantOnDevice(slot2)
}

func TestUnconfirmedCutOffStopsTheReissue(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	down := errors.New("the directory does not answer")
	b.Confirm = func(context.Context, uint64) error { return down }
	err := b.reissue(t.Context(), slot2, "bob")
	b.wantUnfinished(err, slot2, "confirm", down)
	if !strings.Contains(err.Error(), "cut-off of alice is not confirmed") {
		t.Errorf("%v", err)
	}
	if tok := b.token(slot2); tok.Owner != "" || tok.Generation != 1 {
		t.Errorf("%+v", tok)
	}
	if _, err := b.seed(slot2, 2); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("a new seed: %v", err)
	}
	b.wantOnDevice(slot2)
	_, err = b.Resolve(t.Context(), officer, slot2, nil, b.tell)
	b.wantUnfinished(err, slot2, "confirm", down)

	var waited uint64
	b.Confirm = func(_ context.Context, seq uint64) error { waited = seq; return nil }
	b.resolve(slot2)
	if waited == 0 {
		t.Error("resolve did not wait for the cut-off")
	}
	b.wantOutbox("unassign/1:alice put/2 assign/2:bob")
	b.wantOnDevice(slot2)
}

// Whoever was cut off before the key came back counts like the owner: the old seed stays until it is confirmed.
func TestReissueOfStockWaitsForAnEarlierCutOff(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	_, changes, err := b.act("unassign", slot2, "")
	if err != nil {
		t.Fatal(err)
	}
	var waited uint64
	b.Confirm = func(_ context.Context, seq uint64) error { waited = seq; return nil }
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	if waited != changes[0].Seq {
		t.Errorf("change %d was waited for, the cut-off is %d", waited, changes[0].Seq)
	}
	b.wantOutbox("unassign/1:alice put/2 assign/2:bob")
}

func TestReissueOfStock(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "")
	b.deliver()
	b.Confirm = func(context.Context, uint64) error { return errors.New("there is nothing to wait for") }
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	b.wantOutbox("put/2 assign/2:bob")
	b.wantOnDevice(slot2)
}

func TestReissueRefusals(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	b.CheckUser = func(_ context.Context, user string) (string, error) {
		if user == "nobody" {
			return "", &provision.RefusedError{Reason: "no such user"}
		}
		return strings.ToLower(user), nil
	}
	wantRefused(t, b.reissue(t.Context(), slot2, ""), "name the new owner")
	wantRefused(t, b.reissue(t.Context(), slot2, "alice"), "belongs to alice already", "tokendesk resync "+string(slot2))
	wantRefused(t, b.reissue(t.Context(), slot2, "ALICE"), "already", "tokendesk resync "+string(slot2))
	wantRefused(t, b.reissue(t.Context(), slot2, "nobody"), "no such user")
	if err := b.reissue(t.Context(), slot1, "bob"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("an unknown token: %v", err)
	}
	b.beforeProgram = func(device.HOTPToken) { b.key.Remove() }
	b.wantUnfinished(b.enroll(t.Context(), enrollment(slot1, "carol")), slot1, "program", device.ErrGone)
	b.beforeProgram = nil
	wantRefused(t, b.reissue(t.Context(), slot1, "bob"), "unfinished enroll", "tokendesk resolve "+string(slot1))

	err := b.reissue(t.Context(), slot2, "bob")
	if !errors.Is(err, device.ErrGone) || !strings.Contains(err.Error(), "to cut alice off now") || !strings.Contains(err.Error(), "--without-device") {
		t.Errorf("without the key: %v", err)
	}
	if b.outbox() != "" || b.token(slot2).Owner != "alice" {
		t.Error("a refused reissue changed something")
	}
}

func TestReissueOfAnUnverifiedTokenIsRefused(t *testing.T) {
	b := newBench(t)
	b.update(func(tx *vault.Tx) error {
		return tx.PutToken(vault.Token{ID: slot2, Serial: serial, Status: vault.Pending, Digits: 6})
	})
	wantRefused(t, b.reissue(t.Context(), slot2, "bob"), "is pending; only an active token can be reissued")
}

func TestUndeliveredPutOfTheOldSeedDoesNotHoldUpTheNewOne(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	if _, _, err := b.act("disable", slot2, ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.act("enable", slot2, ""); err != nil {
		t.Fatal(err)
	}
	b.wantOutbox("put/1 assign/1:alice disable/1:alice enable/1:alice")
	if err := b.reissue(t.Context(), slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	b.wantOutbox("assign/1:alice disable/1:alice unassign/1:alice put/2 assign/2:bob") // cut-offs stay
	b.wantOnDevice(slot2)
}

func TestKeyThatKeepsItsOldSeedIsNoticed(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	old, err := b.seed(slot2, 1)
	if err != nil {
		t.Fatal(err)
	}
	b.beforeCode = func(s device.HOTPToken) {
		b.beforeCode = nil
		code := b.accessCode(slot2)
		defer code.Wipe()
		err := s.Program(t.Context(), device.HOTPConfig{Seed: old, Digits: 6, StartCounter: 16, Enter: true, CurrentAccessCode: code, NewAccessCode: code})
		if err != nil {
			t.Error(err)
		}
	}
	err = b.reissue(t.Context(), slot2, "bob")
	b.wantUnfinished(err, slot2, "verify", nil)
	if !strings.Contains(err.Error(), "old seed") {
		t.Errorf("%v", err)
	}
	b.touches()
	b.resolve(slot2)
	b.wantOnDevice(slot2)
	if b.touches() != 2 {
		t.Error("resolve asked for more than two touches")
	}
}

func TestReissueOfADisabledTokenIsRefused(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	if _, _, err := b.act("disable", slot2, ""); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, b.reissue(t.Context(), slot2, "bob"), "is disabled", "tokendesk enable "+string(slot2))
}

// The wrong successor was named while the directory was away: the reissue can be called off, the cut-off stands.
func TestReissueIsCalledOffBeforeItSeals(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	b.Confirm = func(context.Context, uint64) error { return errors.New("away") }
	err := b.reissue(t.Context(), slot2, "bbo")
	if err == nil || !strings.Contains(err.Error(), "resolve --undo") {
		t.Fatalf("the way out is not named: %v", err)
	}
	if err := b.Undo(t.Context(), officer, slot2, b.tell); err != nil {
		t.Fatal(err)
	}
	if tok := b.token(slot2); tok.Status != vault.Active || tok.Owner != "" || tok.Generation != 1 {
		t.Errorf("%+v", tok)
	}
	b.wantOutbox("unassign/1:alice")
	b.Confirm = nil
	if err := b.reissue(t.Context(), slot2, "Bob"); err != nil {
		t.Fatal(err)
	}
	b.wantOutbox("unassign/1:alice put/2 assign/2:Bob")
}

// The holder has put something of their own into the slot since the key was pulled: it is not the desk's to overwrite.
func TestResolveLeavesWhatCameInTheMeantime(t *testing.T) {
	b := newBench(t)
	b.fault(emulator.FaultUnplugAtChunk, 4)
	b.wantUnfinished(b.enroll(t.Context(), enrollment(slot2, "alice")), slot2, "program", device.ErrGone)
	b.key.Insert()
	b.occupy(slot2, "abcdef", true)
	before := b.typed(slot2)
	_, err := b.Resolve(t.Context(), officer, slot2, nil, b.tell)
	if err == nil || !strings.Contains(err.Error(), "was empty when the enroll began") {
		t.Fatalf("%v", err)
	}
	if after := b.typed(slot2); len(after) != len(before) {
		t.Errorf("the slot typed %q and now %q", before, after)
	}
}
