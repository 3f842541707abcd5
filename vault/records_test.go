package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// refused runs fn in a transaction of its own that must fail with text.
func refused(t *testing.T, v *vault.Vault, text string, fn func(*vault.Tx) error) {
	t.Helper()
	if err := v.Update(fn); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want an error with %q", err, text)
	}
}

func token(t *testing.T, v *vault.Vault, id device.TokenID) (tok vault.Token) {
	t.Helper()
	view(t, v, func(tx *vault.Tx) (err error) { tok, err = tx.Token(id); return err })
	return tok
}

func TestPutToken(t *testing.T) {
	v := vaulttest.New(t)
	before := time.Now()
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	first := token(t, v, alice)
	if first.Created.Before(before) || !first.Updated.Equal(first.Created) || first.Owner != "user of "+string(alice) {
		t.Errorf("stored %+v", first)
	}
	change := func(fn func(*vault.Token)) func(*vault.Tx) error {
		return func(tx *vault.Tx) error {
			tok, err := tx.Token(alice)
			fn(&tok)
			return errors.Join(err, tx.PutToken(tok))
		}
	}
	update(t, v, change(func(tok *vault.Token) { tok.Counter, tok.Emulated = 7, true }))
	update(t, v, change(func(tok *vault.Token) { tok.Emulated, tok.Created = false, time.Time{} }))
	now := token(t, v, alice)
	if !now.Emulated {
		t.Error("the token is no longer emulated")
	}
	if !now.Created.Equal(first.Created) || !now.Updated.After(first.Updated) {
		t.Errorf("created %v, was %v; updated %v", now.Created, first.Created, now.Updated)
	}
	refused(t, v, "from 7 back to 6", change(func(tok *vault.Token) { tok.Counter = 6 }))
	refused(t, v, "seed 2 of yk-1001/otp2 is missing", change(func(tok *vault.Token) { tok.Generation = 2 }))
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.SetSeed(alice, 2, secret.Random(20)),
			change(func(tok *vault.Token) { tok.Generation, tok.Counter = 2, 0 })(tx))
	})
	refused(t, v, "from 2 back to 1", change(func(tok *vault.Token) { tok.Generation, tok.Counter = 1, 100 }))
	refused(t, v, "no status", change(func(tok *vault.Token) { tok.Status = "" }))
	refused(t, v, "no generation", change(func(tok *vault.Token) { tok.Generation = -1 }))
	refused(t, v, "is not a token", func(tx *vault.Tx) error { return tx.PutToken(vault.Token{ID: "x", Status: vault.Active}) })
}

func TestTokensFilter(t *testing.T) {
	v := vaulttest.New(t)
	all := []vault.Token{
		{ID: "yk-1/otp1", Status: vault.Active, Owner: "alice"},
		{ID: "yk-1/otp2", Status: vault.Disabled, Owner: "Bob"},
		{ID: "yk-10/otp1", Status: vault.Active, Serial: 77, Batch: "May", Stale: true},
		{ID: "yk-2/otp2", Status: vault.Pending, Owner: "alice", Tenant: "North", Description: "Spare (green)"},
	}
	update(t, v, func(tx *vault.Tx) error {
		for _, i := range []int{2, 0, 3, 1} {
			if err := tx.PutToken(all[i]); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range []struct {
		filter vault.Filter
		want   string
		next   device.TokenID
	}{
		{vault.Filter{}, "yk-1/otp1 yk-1/otp2 yk-10/otp1 yk-2/otp2", ""},
		{vault.Filter{Device: "yk-1"}, "yk-1/otp1 yk-1/otp2", ""},
		{vault.Filter{Device: "yk-3"}, "", ""},
		{vault.Filter{Owner: "alice"}, "yk-1/otp1 yk-2/otp2", ""},
		{vault.Filter{Owner: "ALICE"}, "yk-1/otp1 yk-2/otp2", ""},
		{vault.Filter{Owner: "bob"}, "yk-1/otp2", ""},
		{vault.Filter{Owner: "alic"}, "", ""},
		{vault.Filter{Text: "aLIC"}, "yk-1/otp1 yk-2/otp2", ""},
		{vault.Filter{Status: vault.Active}, "yk-1/otp1 yk-10/otp1", ""},
		{vault.Filter{Text: "BOB"}, "yk-1/otp2", ""},
		{vault.Filter{Text: "yk-1"}, "yk-1/otp1 yk-1/otp2 yk-10/otp1", ""},
		{vault.Filter{Limit: 2}, "yk-1/otp1 yk-1/otp2", "yk-1/otp2"},
		{vault.Filter{Limit: 2, After: "yk-1/otp2"}, "yk-10/otp1 yk-2/otp2", ""},
		{vault.Filter{Device: "yk-1", After: "yk-1/otp1"}, "yk-1/otp2", ""},
		{vault.Filter{Device: "yk-1", After: "yk-2/otp1"}, "", ""},
		{vault.Filter{Device: "yk-2", After: "yk-1/otp1"}, "yk-2/otp2", ""},
		{vault.Filter{Owner: "alice", Limit: 1, After: "yk-1/otp1"}, "yk-2/otp2", ""},
		{vault.Filter{Owner: "alice", Limit: 1}, "yk-1/otp1", "yk-1/otp1"},
		{vault.Filter{Serial: 1}, "yk-1/otp1 yk-1/otp2", ""},
		{vault.Filter{Serial: 77}, "yk-10/otp1", ""},
		{vault.Filter{Serial: 7}, "", ""},
		{vault.Filter{Batch: "may"}, "yk-10/otp1", ""},
		{vault.Filter{Tenant: "NORTH"}, "yk-2/otp2", ""},
		{vault.Filter{Stale: true}, "yk-10/otp1", ""},
		{vault.Filter{Stale: true, Status: vault.Pending}, "", ""},
		{vault.Filter{Text: "gre"}, "yk-2/otp2", ""},
		{vault.Filter{Text: "reen"}, "", ""},
		{vault.Filter{Text: "7"}, "yk-10/otp1", ""},
		{vault.Filter{Text: "1"}, "yk-1/otp1 yk-1/otp2 yk-10/otp1", ""},
		{vault.Filter{Text: "a", Status: vault.Pending}, "yk-2/otp2", ""},
	} {
		view(t, v, func(tx *vault.Tx) error {
			list, next, err := tx.Tokens(c.filter)
			var got []string
			for _, tok := range list {
				got = append(got, string(tok.ID))
			}
			if g := strings.Join(got, " "); g != c.want || next != c.next {
				t.Errorf("%+v: %q and %q, want %q and %q", c.filter, g, next, c.want, c.next)
			}
			return err
		})
	}
}

func TestSeeds(t *testing.T) {
	v := vaulttest.New(t)
	one, two := secret.Random(20), secret.Random(20)
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutToken(vault.Token{ID: alice, Status: vault.Pending}),
			tx.SetSeed(alice, 2, two), tx.SetSeed(alice, 1, one), tx.SetSeed(alice, 1, one))
	})
	refused(t, v, "another one is there", func(tx *vault.Tx) error { return tx.SetSeed(alice, 1, two) })
	refused(t, v, "start at 1", func(tx *vault.Tx) error { return tx.SetSeed(alice, 0, two) })
	refused(t, v, "empty", func(tx *vault.Tx) error { return tx.SetSeed(alice, 3, secret.Secret{}) })
	refused(t, v, "does not exist", func(tx *vault.Tx) error { return tx.SetSeed(bob, 1, secret.Random(20)) })
	refused(t, v, "been here before, as that of yk-1001/otp2 (generation 2)", func(tx *vault.Tx) error { return tx.SetSeed(bob, 1, two) })
	view(t, v, func(tx *vault.Tx) error {
		s, err := tx.Seed(alice, 1)
		if err != nil || !s.Equal(one) {
			t.Errorf("seed 1: %v", err)
		}
		s.Wipe()
		if s, err = tx.Seed(alice, 1); err != nil || !s.Equal(one) {
			t.Errorf("seed 1 after its copy was wiped: %v", err)
		}
		if g, err := tx.Generations(alice); err != nil || !slices.Equal(g, []int{1, 2}) {
			t.Errorf("generations %v, %v", g, err)
		}
		for _, g := range []int{-1, 0, 3, 1<<32 + 1} {
			if _, err := tx.Seed(alice, g); !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("seed %d: %v", g, err)
			}
		}
		return nil
	})
	update(t, v, func(tx *vault.Tx) error { return errors.Join(tx.DeleteSeed(alice, 1), tx.DeleteSeed(alice, 9)) })
	view(t, v, func(tx *vault.Tx) error {
		if _, err := tx.Seed(alice, 1); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the deleted seed: %v", err)
		}
		return nil
	})
}

func TestAccessCode(t *testing.T) {
	v := vaulttest.New(t)
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutToken(vault.Token{ID: alice, Status: vault.Pending}),
			tx.SetAccessCode(alice, secret.New([]byte("first!"))), tx.SetAccessCode(alice, secret.New([]byte("second"))))
	})
	refused(t, v, "does not exist", func(tx *vault.Tx) error { return tx.SetAccessCode(bob, secret.Random(6)) })
	view(t, v, func(tx *vault.Tx) error {
		if s, err := tx.AccessCode(alice); err != nil || string(s.Reveal()) != "second" {
			t.Errorf("the access code: %v", err)
		}
		if _, err := tx.AccessCode(bob); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("another's: %v", err)
		}
		return nil
	})
}

func TestDeleteToken(t *testing.T) {
	v := vaulttest.New(t)
	job := vault.Job{Kind: "enroll", Token: alice}
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(put(tx, alice, []byte("s")), put(tx, bob, []byte("t")), tx.SetSeed(alice, 2, secret.Random(20)), tx.PutJob(&job))
	})
	refused(t, v, "job 1 (enroll) is for token yk-1001/otp2", func(tx *vault.Tx) error { return tx.DeleteToken(alice) })
	update(t, v, func(tx *vault.Tx) error { return errors.Join(tx.DeleteToken(alice), tx.DeleteJob(job.ID)) })
	view(t, v, func(tx *vault.Tx) error {
		_, e1 := tx.Token(alice)
		_, e2 := tx.Seed(alice, 1)
		_, e3 := tx.Seed(alice, 2)
		_, e4 := tx.AccessCode(alice)
		for i, err := range []error{e1, e2, e3, e4} {
			if !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("%d: %v", i, err)
			}
		}
		_, err := tx.Seed(bob, 1)
		return err
	})
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.DeleteToken(alice) })
}

func TestJobs(t *testing.T) {
	v := vaulttest.New(t)
	a, b := vault.Job{Kind: "enroll", Token: alice, Params: []byte(`{"n":1}`)}, vault.Job{Kind: "reissue", Token: bob}
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(put(tx, alice, []byte("s")), put(tx, bob, []byte("t")), tx.PutJob(&a), tx.PutJob(&b))
	})
	if a.ID != 1 || b.ID != 2 || a.Created.IsZero() {
		t.Errorf("jobs %+v %+v", a, b)
	}
	a.Step = 3
	update(t, v, func(tx *vault.Tx) error { return tx.PutJob(&a) })
	view(t, v, func(tx *vault.Tx) error {
		jobs, err := tx.Jobs()
		if len(jobs) != 2 || jobs[0].Step != 3 || jobs[1].ID != 2 || !bytes.Equal(jobs[0].Params, a.Params) {
			t.Errorf("jobs %+v", jobs)
		}
		got, ok, ferr := tx.JobFor(bob)
		if !ok || got.Kind != "reissue" {
			t.Errorf("job %+v, %v", got, ok)
		}
		one, jerr := tx.Job(1)
		if one.Step != 3 {
			t.Errorf("job %+v", one)
		}
		return errors.Join(err, ferr, jerr)
	})
	refused(t, v, "job 1 (enroll) is not finished", func(tx *vault.Tx) error { return tx.PutJob(&vault.Job{Kind: "reissue", Token: alice}) })
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.DeleteJob(9) })
	refused(t, v, "no kind", func(tx *vault.Tx) error { return tx.PutJob(&vault.Job{Token: alice}) })
	refused(t, v, "not JSON", func(tx *vault.Tx) error {
		j := a
		j.Params = []byte("{")
		return tx.PutJob(&j)
	})
	refused(t, v, "does not exist", func(tx *vault.Tx) error { return tx.PutJob(&vault.Job{Kind: "enroll", Token: "yk-9/otp1"}) })
	update(t, v, func(tx *vault.Tx) error { return tx.DeleteJob(b.ID) })
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.PutJob(&b) })
	again := vault.Job{Kind: "reissue", Token: bob}
	update(t, v, func(tx *vault.Tx) error { return tx.PutJob(&again) })
	if again.ID != 3 {
		t.Errorf("a number was used again: %d", again.ID)
	}
}

func TestOutbox(t *testing.T) {
	v := vaulttest.New(t)
	update(t, v, func(tx *vault.Tx) error { return put(tx, alice, []byte("s")) })
	for i, k := range []vault.ChangeKind{vault.Put, vault.Assign, vault.Disable} {
		update(t, v, func(tx *vault.Tx) error {
			c, err := tx.Enqueue(vault.Change{Kind: k, Token: alice, Generation: 1, User: "u"})
			if c.Seq != uint64(i+1) || c.Created.IsZero() {
				t.Errorf("enqueued %+v", c)
			}
			return err
		})
	}
	update(t, v, func(tx *vault.Tx) error {
		list, err := tx.ChangesFrom(0, 0)
		c := list[1]
		c.Attempts, c.Parked = 4, true
		return errors.Join(err, tx.PutChange(c), tx.DeleteChange(list[0].Seq))
	})
	view(t, v, func(tx *vault.Tx) error {
		list, err := tx.ChangesFrom(0, 0)
		if got := fmt.Sprintf("%d %s %d %v %s", len(list), list[0].Kind, list[0].Attempts, list[0].Parked, list[1].Kind); got != "2 assign 4 true disable" {
			t.Error(got)
		}
		return err
	})
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.DeleteChange(1) })
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.PutChange(vault.Change{Seq: 1, Kind: vault.Put, Token: alice}) })
	refused(t, v, "it is assign", func(tx *vault.Tx) error { return tx.PutChange(vault.Change{Seq: 2, Kind: vault.Put, Token: alice}) })
	refused(t, v, "no kind", func(tx *vault.Tx) error { _, err := tx.Enqueue(vault.Change{Token: alice}); return err })
	refused(t, v, "does not exist", func(tx *vault.Tx) error {
		_, err := tx.Enqueue(vault.Change{Kind: vault.Disable, Token: bob})
		return err
	})
	refused(t, v, "seed 2 of yk-1001/otp2 is missing", func(tx *vault.Tx) error {
		_, err := tx.Enqueue(vault.Change{Kind: vault.Put, Token: alice, Generation: 2})
		return err
	})
}

// Enough for trees of several levels and long lists of free pages, whose layout the vault verifies itself.
func TestManyRecords(t *testing.T) {
	v := vaulttest.New(t)
	id := func(i int) device.TokenID { return device.SlotToken(device.YubiKeyID(device.Serial(i)), 1) }
	const n = 3000
	for from := 0; from < n; from += 1000 {
		update(t, v, func(tx *vault.Tx) error {
			for i := from; i < from+1000; i++ {
				if err := tx.PutToken(vault.Token{ID: id(i), Status: vault.Pending, Owner: strings.Repeat("o", i%250)}); err != nil {
					return err
				}
				if err := tx.SetSeed(id(i), 1, secret.Random(20)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := v.Check(); err != nil {
		t.Fatal(err)
	}
	update(t, v, func(tx *vault.Tx) error {
		for i := range n - 10 {
			if err := tx.DeleteToken(id(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(v.Check(), v.Close()); err != nil {
		t.Fatal(err)
	}
	view(t, reopen(t, v.Path()), func(tx *vault.Tx) error {
		list, _, err := tx.Tokens(vault.Filter{})
		if len(list) != 10 {
			t.Errorf("%d tokens are left", len(list))
		}
		return err
	})
}
