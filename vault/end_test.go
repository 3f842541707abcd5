package vault_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// edit changes a token.
func edit(id device.TokenID, fn func(*vault.Token)) func(*vault.Tx) error {
	return func(tx *vault.Tx) error {
		tok, err := tx.Token(id)
		fn(&tok)
		return errors.Join(err, tx.PutToken(tok))
	}
}

func TestCompromisedTokensStaySo(t *testing.T) {
	v := vaulttest.New(t)
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	loss := vault.Loss{Kind: vault.Stolen, Words: "on a train", Time: time.Now(), Owner: "alice"}
	compromise := func(l vault.Loss) func(*vault.Tx) error {
		return edit(alice, func(tok *vault.Token) { tok.Status, tok.Owner, tok.Loss = vault.Compromised, "", l })
	}
	change := func(fn func(*vault.Loss)) vault.Loss { l := loss; fn(&l); return l }
	refused(t, v, "no kind of loss \"\"", compromise(vault.Loss{}))
	refused(t, v, "no kind of loss \"mislaid\"", compromise(change(func(l *vault.Loss) { l.Kind = "mislaid" })))
	refused(t, v, "takes words", compromise(vault.Loss{Kind: vault.Other, Time: time.Now()}))
	refused(t, v, "201 bytes", compromise(change(func(l *vault.Loss) { l.Words = strings.Repeat("x", 201) })))
	refused(t, v, "control characters", compromise(change(func(l *vault.Loss) { l.Words = "a\nb" })))
	refused(t, v, "no time", compromise(change(func(l *vault.Loss) { l.Time = time.Time{} })))
	refused(t, v, "would belong to bob", edit(alice, func(tok *vault.Token) { tok.Status, tok.Owner, tok.Loss = vault.Compromised, "bob", loss }))
	refused(t, v, "says that it is lost or erased", edit(alice, func(tok *vault.Token) { tok.Loss = loss }))
	refused(t, v, "says that it is lost or erased", edit(alice, func(tok *vault.Token) { tok.Wiped = time.Now() }))
	update(t, v, compromise(loss))
	if got := token(t, v, alice); got.Loss.Kind != vault.Stolen || !got.Loss.Time.Equal(loss.Time) || got.Loss.Owner != "alice" {
		t.Errorf("%+v", got)
	}
	for _, status := range []vault.Status{vault.Pending, vault.Active, vault.Disabled, vault.Limbo, vault.Expired} {
		refused(t, v, "it is compromised, and stays so", edit(alice, func(tok *vault.Token) { tok.Status, tok.Loss = status, vault.Loss{} }))
	}
	refused(t, v, "it is compromised, and stays so", edit(alice, func(tok *vault.Token) { tok.Loss.Words = "in a bus" }))
	refused(t, v, "would belong to bob", edit(alice, func(tok *vault.Token) { tok.Owner = "bob" }))
	update(t, v, edit(alice, func(tok *vault.Token) { tok.Description, tok.Wiped = "the blue one", time.Now() }))
	view(t, v, func(tx *vault.Tx) error {
		if n := tx.Counts().Status[vault.Compromised]; n != 1 {
			t.Errorf("%d are compromised", n)
		}
		return nil
	})
}

func TestExpiring(t *testing.T) {
	v := vaulttest.New(t)
	now := time.Now()
	ids := []device.TokenID{"yk-3/otp1", "yk-1/otp1", "yk-2/otp1", "yk-4/otp1", "yk-5/otp1"}
	update(t, v, func(tx *vault.Tx) error {
		for i, id := range ids {
			if err := errors.Join(put(tx, id, []byte("seed of "+id)), edit(id, func(tok *vault.Token) { tok.Expires = now.Add(time.Duration(i) * time.Hour) })(tx)); err != nil {
				return err
			}
		}
		return errors.Join(put(tx, alice, []byte("s")), // never
			edit(ids[3], func(tok *vault.Token) { tok.Status = vault.Disabled })(tx))
	})
	want := func(until time.Time, limit int, want ...device.TokenID) {
		t.Helper()
		view(t, v, func(tx *vault.Tx) error {
			got, err := tx.Expiring(until, limit)
			if !slices.Equal(got, want) {
				t.Errorf("until %v: %v, want %v", until.Sub(now), got, want)
			}
			return err
		})
	}
	want(now.Add(-1), 0)
	want(now, 0, ids[0])
	want(now.Add(3*time.Hour), 0, ids[:3]...) // the disabled one is refused anyway
	want(now.Add(3*time.Hour), 2, ids[:2]...)
	want(now.AddDate(500, 0, 0), 0, ids[0], ids[1], ids[2], ids[4])
	update(t, v, edit(ids[3], func(tok *vault.Token) { tok.Status = vault.Active }))
	want(time.Time{}, 0)
	update(t, v, edit(ids[0], func(tok *vault.Token) { tok.Status = vault.Expired }))
	update(t, v, edit(ids[1], func(tok *vault.Token) { tok.Expires = time.Time{} }))
	update(t, v, edit(ids[2], func(tok *vault.Token) { tok.Expires = now.Add(9 * time.Hour) }))
	update(t, v, func(tx *vault.Tx) error { return tx.Bury(vault.Tombstone{ID: ids[4]}) })
	want(now.AddDate(1, 0, 0), 0, ids[3], ids[2])
	for _, year := range []int{1600, 1969, 2262, 9999} {
		refused(t, v, "years from 1970 to 2261", edit(ids[0], func(tok *vault.Token) { tok.Expires = time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC) }))
	}
	before := token(t, v, ids[2])
	update(t, v, edit(ids[2], func(tok *vault.Token) { tok.Expires = tok.Expires.Local() }))
	if after := token(t, v, ids[2]); after != before {
		t.Errorf("the same moment in another zone is a change: %+v, was %+v", after, before)
	}
}

func TestTombstones(t *testing.T) {
	v := vaulttest.New(t)
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(put(tx, alice, []byte("s")), tx.SetSeed(alice, 2, secret.Random(20)), put(tx, bob, []byte("t")))
	})
	for _, k := range []vault.ChangeKind{vault.Put, vault.Assign, vault.Enable, vault.Advance, vault.Disable, vault.Unassign} {
		update(t, v, func(tx *vault.Tx) error {
			_, err := tx.Enqueue(vault.Change{Kind: k, Token: alice, Generation: 1, User: "alice"})
			return err
		})
	}
	bury := func(tx *vault.Tx) error {
		return tx.Bury(vault.Tombstone{ID: alice, Owner: "alice", Status: vault.Active, Officer: "olga", Reason: "scrapped"})
	}
	update(t, v, func(tx *vault.Tx) error { return tx.PutJob(&vault.Job{Kind: "reseed", Token: alice}) })
	refused(t, v, "job 1 (reseed) is for token", bury)
	update(t, v, func(tx *vault.Tx) error {
		_, err := tx.Enqueue(vault.Change{Kind: vault.Remove, Token: alice, Generation: 1, User: "alice"})
		return errors.Join(err, tx.DeleteJob(1), bury(tx))
	})
	view(t, v, func(tx *vault.Tx) error {
		if _, err := tx.Token(alice); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%v", err)
		}
		seeds, err := tx.Generations(alice)
		if len(seeds) != 0 {
			t.Errorf("seeds %v", seeds)
		}
		grave, ok, gerr := tx.Tombstone(alice)
		if !ok || grave.Generation != 2 || grave.Owner != "alice" || grave.Status != vault.Active || grave.Officer != "olga" || grave.Reason != "scrapped" || time.Since(grave.Time) > time.Minute {
			t.Errorf("%+v", grave)
		}
		if _, ok, err := tx.Tombstone(bob); ok || err != nil {
			t.Errorf("bob has a tombstone: %v", err)
		}
		changes, cerr := tx.ChangesOf(alice)
		var kinds []vault.ChangeKind
		for _, c := range changes {
			kinds = append(kinds, c.Kind)
		}
		if !slices.Equal(kinds, []vault.ChangeKind{vault.Disable, vault.Unassign, vault.Remove}) {
			t.Errorf("changes %v", kinds)
		}
		code, aerr := tx.AccessCode(alice) // its slot may still be protected
		code.Wipe()
		return errors.Join(err, gerr, cerr, aerr)
	})
	if err := v.Check(); err != nil {
		t.Error(err)
	}
	refused(t, v, "which does not exist", func(tx *vault.Tx) error {
		_, err := tx.Enqueue(vault.Change{Kind: vault.Assign, Token: alice, Generation: 1, User: "alice"})
		return err
	})
	update(t, v, func(tx *vault.Tx) error { // cut-offs can be written back, and confirmed
		c, err := tx.ChangeAt(5)
		c.Attempts++
		return errors.Join(err, tx.PutChange(c), tx.DeleteChange(6))
	})
	refused(t, v, "generation 2 of yk-1001/otp2 is that of a token that was deleted; begin with 3", func(tx *vault.Tx) error {
		return tx.SetSeed(alice, 2, secret.Random(20))
	})
	refused(t, v, "begin with 3", func(tx *vault.Tx) error {
		return tx.PutToken(vault.Token{ID: alice, Status: vault.Active, Generation: 1})
	})
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutToken(vault.Token{ID: alice, Status: vault.Pending, Digits: 6}), tx.SetSeed(alice, 3, secret.Random(20)))
	})
	update(t, v, func(tx *vault.Tx) error { // an undo
		return errors.Join(tx.DeleteToken(alice), tx.RaiseTombstone(alice, 3), tx.RaiseTombstone(alice, 1), tx.RaiseTombstone(bob, 7), tx.DeleteAccessCode(alice))
	})
	view(t, v, func(tx *vault.Tx) error {
		grave, ok, err := tx.Tombstone(alice)
		if !ok || grave.Generation != 3 || grave.Reason != "scrapped" {
			t.Errorf("%+v", grave)
		}
		_, ok, berr := tx.Tombstone(bob)
		if ok {
			t.Error("bob has a tombstone")
		}
		return errors.Join(err, berr)
	})
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.Bury(vault.Tombstone{ID: alice}) })
}

func TestApprovals(t *testing.T) {
	v := vaulttest.New(t)
	expires := time.Now().Add(time.Hour)
	a := vault.Approval{Action: "delete", Object: "x", Request: []byte(`{}`), Digest: "d", Text: []string{"one"}, By: audit.Officer{UID: 7, Name: "olga"}, Reason: "r", Expires: expires}
	for range 2 {
		next := a
		update(t, v, func(tx *vault.Tx) error { return tx.PutApproval(&next) })
		if next.ID == 0 || time.Since(next.Created) > time.Minute {
			t.Errorf("%+v", next)
		}
	}
	for what, bad := range map[string]vault.Approval{
		"no action":           {Expires: expires},
		"is not JSON":         {Action: "a", Expires: expires, Request: []byte("{")},
		"never expire":        {Action: "a"},
		"approval 9: not fou": {ID: 9, Action: "a", Expires: expires},
	} {
		refused(t, v, what, func(tx *vault.Tx) error { return tx.PutApproval(&bad) })
	}
	view(t, v, func(tx *vault.Tx) error {
		all, err := tx.Approvals()
		if len(all) != 2 || all[0].ID != 1 || all[1].ID != 2 || tx.Counts().Approvals != 2 {
			t.Errorf("%+v", all)
		}
		one, oerr := tx.Approval(2)
		if one.By != a.By || string(one.Request) != "{}" || !one.Expires.Equal(expires) || one.Text[0] != "one" {
			t.Errorf("%+v", one)
		}
		return errors.Join(err, oerr)
	})
	update(t, v, func(tx *vault.Tx) error {
		one, err := tx.Approval(1)
		one.Reason = "another"
		return errors.Join(err, tx.PutApproval(&one), tx.DeleteApproval(2))
	})
	if err := v.Check(); err != nil {
		t.Error(err)
	}
	update(t, v, func(tx *vault.Tx) error {
		next := a
		err := tx.PutApproval(&next)
		if next.ID != 3 { // numbers are never used again
			t.Errorf("%+v", next)
		}
		return err
	})
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.DeleteApproval(2) })
	if err := errors.Join(v.Rotate(officer, nil), v.Check()); err != nil {
		t.Fatal(err)
	}
	update(t, v, func(tx *vault.Tx) error {
		next := a
		err := tx.PutApproval(&next)
		if next.ID != 4 {
			t.Errorf("after a rotation: %+v", next)
		}
		return err
	})
}

// What stands under a wrong name or number, or contradicts a token, is found.
func TestCheckOfTombstonesAndApprovals(t *testing.T) {
	later := time.Now().Add(time.Hour)
	for name, spoil := range map[string]func(*vault.Tx) error{
		"a tombstone of another":    func(tx *vault.Tx) error { return tx.PutTombstone(bob, vault.Tombstone{ID: gone}) },
		"a tombstone of the living": func(tx *vault.Tx) error { return tx.PutTombstone(alice, vault.Tombstone{ID: alice, Generation: 1}) },
		"an approval of another":    func(tx *vault.Tx) error { return tx.PutApprovalAt(1, vault.Approval{ID: 2, Expires: later}) },
		"an approval never given":   func(tx *vault.Tx) error { return tx.PutApprovalAt(2, vault.Approval{ID: 2, Expires: later}) },
		"a leaver of another name":  func(tx *vault.Tx) error { return tx.PutRecord("leavers", []byte("eve"), vault.Leaver{User: "alice"}) },
		"a notice never given":      func(tx *vault.Tx) error { return tx.PutRecord("notices", number(2), vault.Notice{ID: 2}) },
		"a handover never given":    func(tx *vault.Tx) error { return tx.PutRecord("handovers", number(2), vault.Handover{ID: 2, Act: 1}) },
		"attempts that are none":    func(tx *vault.Tx) error { return tx.PutRecord("attempts", []byte("a"), vault.Attempts{Last: later}) },
		"a handover of no act":      func(tx *vault.Tx) error { return tx.PutRecord("handovers", number(1), vault.Handover{ID: 1, Act: 99}) },
	} {
		t.Run(name, func(t *testing.T) {
			v := vaulttest.New(t)
			update(t, v, func(tx *vault.Tx) error {
				return errors.Join(put(tx, alice, []byte("s")), tx.PutApproval(&vault.Approval{Action: "a", Expires: later}), tx.DeleteApproval(1), custody(tx, alice, gone))
			})
			if err := v.Check(); err != nil {
				t.Fatal(err)
			}
			update(t, v, spoil)
			wantState(t, v.Check(), vault.StateCorrupt, "")
			if err := v.Close(); err != nil { // it would fail the check at the end
				t.Error(err)
			}
		})
	}
}

func TestHistory(t *testing.T) {
	v := vaulttest.New(t)
	act := func(object string) {
		update(t, v, func(tx *vault.Tx) error {
			return tx.Audit(audit.Act{Officer: officer.Officer, Action: "a", Object: object, Outcome: "done"})
		})
	}
	for i := range 20 { // its own are the entries 2, 5, 8 …: the first is that the vault was made
		act([]string{string(alice), "yk-1001/otp1", "change 3"}[i%3])
	}
	want := func(id device.TokenID, before uint64, limit int, want ...uint64) {
		t.Helper()
		view(t, v, func(tx *vault.Tx) error {
			entries, err := tx.History(id, before, limit)
			var got []uint64
			for _, e := range entries {
				if got = append(got, e.Seq); e.Object != string(id) {
					t.Errorf("%+v", e)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("history of %s before %d: %v, want %v", id, before, got, want)
			}
			return err
		})
	}
	want(alice, 0, 3, 20, 17, 14)
	want(alice, 14, 3, 11, 8, 5)
	want(alice, 5, 3, 2)
	want(alice, 2, 3)
	want(alice, 0, 0, 20, 17, 14, 11, 8, 5, 2)
	want("yk-1001/otp1", 0, 2, 21, 18)
	want(bob, 0, 0)
	want("yk-9999999/otp2", 0, 0) // beyond the last
	want("change 3", 0, 0)
}

// A vault of an earlier version has no tombstones, no approvals and no history: it gets them when it is opened, and when it is restored.
func TestVaultOfAnEarlierVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v := created(t, path)
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(put(tx, alice, []byte("s")), tx.Audit(vault.Done(officer.Officer, "enroll", alice, "")))
	})
	update(t, v, func(tx *vault.Tx) error { return tx.DeleteNumbered('h', string(alice), 2) })
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	raw(t, path, func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket([]byte("tombstones")), tx.DeleteBucket([]byte("approvals")), tx.DeleteBucket([]byte("attempts")))
	})
	works := func(v *vault.Vault) {
		t.Helper()
		if err := v.Check(); err != nil {
			t.Error(err)
		}
		view(t, v, func(tx *vault.Tx) error {
			entries, err := tx.History(alice, 0, 0)
			if len(entries) != 1 || entries[0].Action != "enroll" {
				t.Errorf("%+v", entries)
			}
			return err
		})
		update(t, v, func(tx *vault.Tx) error {
			return errors.Join(tx.PutAttempts("a", vault.Attempts{Failures: 1, Last: time.Now()}), tx.Bury(vault.Tombstone{ID: alice}), tx.PutApproval(&vault.Approval{Action: "a", Expires: time.Now().Add(time.Hour)}))
		})
	}
	identity, _ := vaulttest.Identity()
	restored, _ := another(t)
	if err := errors.Join(restored.Restore(path, identity, vault.Setup{PIN: pin("1")}), restored.Unlock(pin("1"))); err != nil {
		t.Fatal(err)
	}
	works(restored)
	works(reopen(t, path))
}

// The index entries of acts and ends are held against what they lead to.
func TestAstrayEntriesOfActsAndEnds(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*vault.Tx) error
		read  func(*vault.Tx) error
	}{
		"an act too many": {
			func(tx *vault.Tx) error { return tx.PutNumbered('h', string(bob), 2) },
			func(tx *vault.Tx) error { _, err := tx.History(bob, 0, 0); return err },
		},
		"an act that is none": {
			func(tx *vault.Tx) error { return tx.PutNumbered('h', string(alice), 99) },
			func(tx *vault.Tx) error { _, err := tx.History(alice, 0, 0); return err },
		},
		"a handover of another": {
			func(tx *vault.Tx) error {
				return errors.Join(custody(tx, alice, gone), tx.PutNumbered('g', string(bob), 1))
			},
			func(tx *vault.Tx) error { _, err := tx.HandoversOf(bob, 0, 0); return err },
		},
		"a handover that is none": {
			func(tx *vault.Tx) error { return tx.PutNumbered('p', "alice", 9) },
			func(tx *vault.Tx) error { _, err := tx.HandoversOfUser("Alice", 0, 0); return err },
		},
		"no number": {
			func(tx *vault.Tx) error { return tx.PutIndexed('h', string(alice), "x") },
			func(tx *vault.Tx) error { _, err := tx.History(alice, 0, 0); return err },
		},
		"no token": {
			func(tx *vault.Tx) error { return tx.PutIndexed('e', "1234567", "") },
			func(tx *vault.Tx) error { _, err := tx.Expiring(vault.LastMoment, 0); return err },
		},
		"a token that never expires": {
			func(tx *vault.Tx) error { return tx.PutIndexed('e', "1234567", alice) },
			func(tx *vault.Tx) error { _, err := tx.Expiring(vault.LastMoment, 0); return err },
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := vaulttest.New(t)
			update(t, v, func(tx *vault.Tx) error {
				return errors.Join(put(tx, alice, []byte("s")), tx.Audit(vault.Done(officer.Officer, "enroll", alice, "")))
			})
			update(t, v, c.spoil)
			wantState(t, v.View(c.read), vault.StateCorrupt, "behind the vault's back")
			wantState(t, v.Check(), vault.StateCorrupt, "")
			if err := v.Close(); err != nil { // it would fail the check at the end
				t.Error(err)
			}
		})
	}
}
