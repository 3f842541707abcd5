package provision_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// unconfirmed begins to replace alice's token by slot 2, and stops because the central service is away.
func unconfirmed(t *testing.T, b *bench) (old device.TokenID) {
	t.Helper()
	old = device.SlotToken(device.YubiKeyID(serial+1), 1)
	b.put(vault.Token{ID: old, Status: vault.Active, Owner: "alice", Digits: 6, Generation: 1})
	b.Confirm = func(context.Context, uint64) error { return errors.New("it is away") }
	_, err := b.Reissue(t.Context(), officer, provision.Reissue{Token: old, With: slot2, User: "bob", Settings: provision.Settings{Overwrite: true}}, b.tell)
	var stopped *provision.UnfinishedError
	if !errors.As(err, &stopped) || stopped.Step != "confirm" {
		t.Fatalf("%v", err)
	}
	return old
}

// A replacement that is called off before it has touched the key leaves the code that may protect its slot.
func TestCallingOffKeepsTheAccessCode(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "")
	code := func() (text string) {
		b.view(func(tx *vault.Tx) error {
			s, err := tx.AccessCode(slot2)
			text = string(s.Reveal())
			s.Wipe()
			return err
		})
		return text
	}
	before := code()
	if _, _, err := b.Do(t.Context(), officer, provision.Order{Action: provision.ActDelete, Tokens: []device.TokenID{slot2}}); err != nil {
		t.Fatal(err)
	}
	unconfirmed(t, b)
	if err := b.Undo(t.Context(), officer, slot2, b.tell); err != nil {
		t.Fatal(err)
	}
	if code() != before {
		t.Error("another code is kept than the slot has")
	}
	again := enrollment(slot2, "")
	again.Overwrite = true
	if err := b.enroll(t.Context(), again); err != nil { // with that code
		t.Fatal(err)
	}
}

// A cut-off that officers have given up is no confirmed one: the work goes on only if somebody says so, and the handover tells.
func TestGivenUpCutOffIsNotConfirmed(t *testing.T) {
	b := newBench(t)
	old := unconfirmed(t, b)
	b.update(func(tx *vault.Tx) error {
		changes, err := tx.ChangesOf(old)
		if err != nil || len(changes) != 1 || changes[0].Kind != vault.Unassign {
			t.Fatalf("%+v, %v", changes, err)
		}
		act := vault.Done(officer, "discard unassign", old, "alice")
		act.Reason += "; change 1; approved by omar (uid 1001); reason: by mistake"
		return errors.Join(err, tx.DeleteChange(changes[0].Seq), tx.Audit(act))
	})
	b.Confirm = func(context.Context, uint64) error { return nil } // as for every change that is gone
	if _, err := b.Resolve(t.Context(), officer, slot2, nil, b.tell); err == nil || !strings.Contains(err.Error(), "officers have given it up") {
		t.Fatalf("resolved: %v", err)
	}
	if _, err := b.ResolveOffline(t.Context(), officer, slot2, "she is cut off there by hand", b.tell); err != nil {
		t.Fatal(err)
	}
	b.view(func(tx *vault.Tx) error {
		given, err := tx.HandoversOf(slot2, 0, 1)
		if len(given) != 1 || !given[0].Offline || given[0].From != "alice" {
			t.Errorf("%+v", given)
		}
		acts, aerr := tx.History(slot2, 0, 0)
		for _, a := range acts {
			if strings.Contains(a.Action, "confirmed by") {
				t.Errorf("%+v", a)
			}
		}
		return errors.Join(err, aerr)
	})
}
