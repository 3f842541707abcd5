package vault_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/vaulttest"
)

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func TestHandovers(t *testing.T) {
	v := vaulttest.New(t)
	give := func(h vault.Handover) vault.Handover {
		t.Helper()
		update(t, v, func(tx *vault.Tx) error {
			return errors.Join(tx.Audit(vault.Done(officer.Officer, "before", h.Token, "")), tx.Audit(vault.Done(officer.Officer, "give", h.Token, h.To)), tx.PutHandover(&h))
		})
		return h
	}
	first := give(vault.Handover{Kind: vault.Issued, Token: alice, To: "Alice", Generation: 1})
	if first.ID != 1 || time.Since(first.Time) > time.Minute {
		t.Errorf("%+v", first)
	}
	view(t, v, func(tx *vault.Tx) error {
		acts, err := tx.History(alice, 0, 1)
		if len(acts) != 1 || acts[0].Action != "give" || acts[0].Seq != first.Act {
			t.Errorf("the handover refers to entry %d, and the act is %+v", first.Act, acts)
		}
		return err
	})
	give(vault.Handover{Kind: vault.Reissued, Token: alice, From: "alice", To: "bob", Generation: 2})
	give(vault.Handover{Kind: vault.Replaced, Token: bob, Old: alice, From: "bob", To: "bob", OldStatus: vault.Compromised})
	want := func(what string, got []vault.Handover, err error, ids ...uint64) {
		t.Helper()
		var have []uint64
		for _, h := range got {
			have = append(have, h.ID)
		}
		if err != nil || !slices.Equal(have, ids) {
			t.Errorf("%s: %v, %v; want %v", what, have, err, ids)
		}
	}
	check := func(v *vault.Vault) {
		t.Helper()
		view(t, v, func(tx *vault.Tx) error {
			of := func(got []vault.Handover, err error) ([]vault.Handover, error) { return got, err }
			got, err := of(tx.HandoversOf(alice, 0, 0))
			want("of the old token", got, err, 3, 2, 1)
			got, err = of(tx.HandoversOf(alice, 3, 1))
			want("its page", got, err, 2)
			got, err = of(tx.HandoversOf(bob, 0, 0))
			want("of the new token", got, err, 3)
			got, err = of(tx.HandoversOfUser("ALICE", 0, 0))
			want("of alice", got, err, 2, 1)
			got, err = of(tx.HandoversOfUser("bob", 0, 0))
			want("of bob", got, err, 3, 2)
			var all []vault.Handover
			err = tx.Handovers(1, func(h vault.Handover) (bool, error) { all = append(all, h); return true, nil })
			want("all after the first", all, err, 2, 3)
			return nil
		})
	}
	check(v)
	if err := errors.Join(v.Rotate(officer, nil), v.Check()); err != nil {
		t.Fatal(err)
	}
	check(v)
	if next := give(vault.Handover{Kind: vault.Assigned, Token: bob, To: "carol"}); next.ID != 4 {
		t.Errorf("after a rotation: %+v", next)
	}
	for what, bad := range map[string]vault.Handover{
		"to nobody":           {Kind: vault.Issued, Token: alice},
		"no kind":             {Kind: "lent", Token: alice, To: "bob"},
		"do not go together":  {Kind: vault.Replaced, Token: alice, To: "bob"},
		"is not a token":      {Kind: vault.Issued, To: "bob"},
		"stays":               {ID: 1, Kind: vault.Issued, Token: alice, To: "bob"},
		"at most 256 bytes":   {Kind: vault.Issued, Token: alice, To: strings.Repeat("b", 257)},
		`"yk-1" is not a tok`: {Kind: vault.Replaced, Token: alice, Old: "yk-1", To: "bob"},
	} {
		refused(t, v, what, func(tx *vault.Tx) error {
			return errors.Join(tx.Audit(vault.Done(officer.Officer, "give", alice, "bob")), tx.PutHandover(&bad))
		})
	}
	refused(t, v, "nothing tells of it", func(tx *vault.Tx) error {
		return tx.PutHandover(&vault.Handover{Kind: vault.Issued, Token: alice, To: "bob"})
	})
}

func TestLeavers(t *testing.T) {
	v := vaulttest.New(t)
	deadline := time.Now().Add(time.Hour)
	l := vault.Leaver{User: "Alice", Successor: "bob", Deadline: deadline, By: officer.Officer, Items: []vault.LeaverItem{{Token: alice, State: vault.Open}}}
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutLeaver(l), tx.PutLeaver(vault.Leaver{User: "carol", Deadline: deadline}))
	})
	l.User, l.Items[0].State, l.Settled = "alice", vault.WrittenOff, time.Now()
	update(t, v, func(tx *vault.Tx) error { return tx.PutLeaver(l) })
	view(t, v, func(tx *vault.Tx) error {
		all, err := tx.Leavers()
		if len(all) != 2 || all[0].User != "alice" || all[1].User != "carol" || tx.Counts().Leavers != 1 {
			t.Errorf("%+v, %d counted", all, tx.Counts().Leavers)
		}
		one, ok, oerr := tx.Leaver("ALICE")
		if !ok || one.Items[0].State != vault.WrittenOff || !one.Deadline.Equal(deadline) || one.Created.IsZero() {
			t.Errorf("%+v", one)
		}
		_, ok, nerr := tx.Leaver("")
		if ok {
			t.Error("there is a leaver without a name")
		}
		return errors.Join(err, oerr, nerr)
	})
	for what, bad := range map[string]vault.Leaver{
		"no name":        {User: "\x01", Deadline: deadline},
		"no deadline":    {User: "bob"},
		"no state":       {User: "bob", Deadline: deadline, Items: []vault.LeaverItem{{Token: alice}}},
		"is not a token": {User: "bob", Deadline: deadline, Items: []vault.LeaverItem{{State: vault.Open}}},
		"its words":      {User: "bob", Deadline: deadline, Words: "a\nb"},
		"its successor":  {User: "bob", Deadline: deadline, Successor: strings.Repeat("b", 257)},
	} {
		refused(t, v, what, func(tx *vault.Tx) error { return tx.PutLeaver(bad) })
	}
	update(t, v, func(tx *vault.Tx) error { return tx.DeleteLeaver("CAROL") })
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.DeleteLeaver("carol") })
}

func TestNotices(t *testing.T) {
	v := vaulttest.New(t)
	n := vault.Notice{Kind: "disabled", User: "alice", Token: alice}
	for range 2 {
		next := n
		update(t, v, func(tx *vault.Tx) error { return tx.PutNotice(&next) })
	}
	update(t, v, func(tx *vault.Tx) error {
		one, err := tx.Notice(2)
		one.Parked, one.Problem = true, "550 no such mailbox"
		return errors.Join(err, tx.PutNotice(&one))
	})
	view(t, v, func(tx *vault.Tx) error {
		page, err := tx.Notices(0, 1)
		rest, rerr := tx.Notices(1, 0)
		if len(page) != 1 || len(rest) != 1 || !rest[0].Parked || tx.Counts().Notices != 2 || tx.Counts().NoticesParked != 1 {
			t.Errorf("%+v %+v %+v", page, rest, tx.Counts())
		}
		return errors.Join(err, rerr)
	})
	update(t, v, func(tx *vault.Tx) error { return errors.Join(tx.DeleteNotice(2), tx.DeleteNotice(1)) })
	if err := errors.Join(v.Check(), v.Rotate(officer, nil), v.Check()); err != nil {
		t.Fatal(err)
	}
	update(t, v, func(tx *vault.Tx) error {
		next := n
		err := tx.PutNotice(&next)
		if next.ID != 3 { // numbers are never used again
			t.Errorf("%+v", next)
		}
		return err
	})
	for what, bad := range map[string]vault.Notice{
		"no kind":        {User: "alice", Token: alice},
		"0 bytes":        {Kind: "disabled", Token: alice},
		"is not a token": {Kind: "disabled", User: "alice"},
		"not found":      {ID: 9, Kind: "disabled", User: "alice", Token: alice},
	} {
		refused(t, v, what, func(tx *vault.Tx) error { return tx.PutNotice(&bad) })
	}
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.DeleteNotice(9) })
}
