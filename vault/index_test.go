package vault_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

func entries(t *testing.T, v *vault.Vault) (n int) {
	t.Helper()
	view(t, v, func(tx *vault.Tx) (err error) { n, err = tx.IndexEntries(); return err })
	return n
}

func TestIndexIsWrittenWhereItDiffers(t *testing.T) {
	v := vaulttest.New(t)
	tok := vault.Token{ID: alice, Serial: 1001, Status: vault.Active, Owner: "Alice", Batch: "b", Tenant: "t", Description: "Spare, spare; KEY!", Stale: true}
	for _, step := range []struct {
		change  func()
		entries int
	}{
		{func() {}, 7}, // status, owner, batch, tenant, two words, stale; the serial is in the name
		{func() { tok.Counter++ }, 7},
		{func() { tok.Owner = "ALICE" }, 7},
		{func() { tok.Serial = 5 }, 8},
		{func() { tok.Owner, tok.Stale = "", false }, 6},
		{func() { tok.Description = "- ... " }, 4},
		{func() { tok.Serial, tok.Batch, tok.Tenant = 0, "", "" }, 1},
	} {
		step.change()
		update(t, v, func(tx *vault.Tx) error { return tx.PutToken(tok) })
		if n := entries(t, v); n != step.entries {
			t.Errorf("%+v has %d entries, want %d", tok, n, step.entries)
		}
	}
	update(t, v, func(tx *vault.Tx) error { return tx.DeleteToken(alice) })
	if n := entries(t, v); n != 0 {
		t.Errorf("a token that is gone left %d entries", n)
	}
}

func TestTextsAreBounded(t *testing.T) {
	v := vaulttest.New(t)
	long := func(n int) string { return strings.Repeat("ä", n/2) }
	update(t, v, func(tx *vault.Tx) error {
		return tx.PutToken(vault.Token{ID: alice, Status: vault.Active, Owner: long(256), Batch: long(64), Tenant: long(64), Description: long(1024)})
	})
	for text, spoil := range map[string]func(*vault.Token){
		"its owner has 258 bytes, and may have 256":         func(t *vault.Token) { t.Owner = long(258) },
		"its batch has 66 bytes, and may have 64":           func(t *vault.Token) { t.Batch = long(66) },
		"its tenant has 66 bytes, and may have 64":          func(t *vault.Token) { t.Tenant = long(66) },
		"its description has 1026 bytes, and may have 1024": func(t *vault.Token) { t.Description = long(1026) },
		"its owner contains control characters":             func(t *vault.Token) { t.Owner = "a\x00b" },
		"its batch contains control characters":             func(t *vault.Token) { t.Batch = "\u0085" },
		"its tenant contains control characters":            func(t *vault.Token) { t.Tenant = "\xff" },
		"its description contains control characters":       func(t *vault.Token) { t.Description = "two\nlines" },
	} {
		refused(t, v, text, func(tx *vault.Tx) error {
			tok, err := tx.Token(alice)
			spoil(&tok)
			return errors.Join(err, tx.PutToken(tok))
		})
	}
}

// A vault of format 1 had no bounds: what it says stays as it is, and is found.
func TestTextsFromBefore(t *testing.T) {
	v := vaulttest.New(t)
	tok := vault.Token{ID: alice, Status: vault.Pending, Owner: "Al\x00ice\n" + strings.Repeat("x", 300)}
	update(t, v, func(tx *vault.Tx) error { return tx.PutUnchecked(tok) })
	tok.Status = vault.Active
	update(t, v, func(tx *vault.Tx) error { return tx.PutToken(tok) })
	view(t, v, func(tx *vault.Tx) error {
		for _, f := range []vault.Filter{{Owner: tok.Owner}, {Text: "alice"}} {
			if page, _, err := tx.Tokens(f); len(page) != 1 || page[0].Owner != tok.Owner {
				t.Errorf("%+v: %+v, %v", f, page, err)
			}
		}
		return nil
	})
}

func TestLongDescriptions(t *testing.T) {
	v := vaulttest.New(t)
	var many strings.Builder
	for i := range 100 {
		fmt.Fprintf(&many, "w%d ", i)
	}
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutToken(vault.Token{ID: alice, Status: vault.Active, Description: many.String()}),
			tx.PutToken(vault.Token{ID: bob, Status: vault.Active, Description: strings.Repeat("x", 31) + "ü" + "tail"}))
	})
	view(t, v, func(tx *vault.Tx) error {
		for text, want := range map[string]int{
			"w63": 1, "w64": 0, strings.Repeat("x", 31): 1, strings.Repeat("x", 31) + "üta": 1, strings.Repeat("X", 32): 0, "tail": 0,
		} {
			if page, _, err := tx.Tokens(vault.Filter{Text: text}); len(page) != want || err != nil {
				t.Errorf("%q: %d tokens, %v", text, len(page), err)
			}
		}
		return nil
	})
	if n := entries(t, v); n != 2+64+1 {
		t.Errorf("%d entries", n)
	}
}

func TestCounts(t *testing.T) {
	v := vaulttest.New(t)
	counts := func(want string) {
		t.Helper()
		view(t, v, func(tx *vault.Tx) error {
			c := tx.Counts()
			if got := fmt.Sprint(c.Tokens, c.Status, c.Stock, c.Stale, c.Jobs, c.Waiting, c.CutOffs, c.Parked); got != want {
				t.Errorf("counts %s, want %s", got, want)
			}
			return nil
		})
	}
	counts("0 map[] 0 0 0 0 0 0")
	job := vault.Job{Kind: "enroll", Token: alice}
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(put(tx, alice, []byte("s")), tx.PutToken(vault.Token{ID: bob, Status: vault.Active, Stale: true}), tx.PutJob(&job))
	})
	counts("2 map[active:2] 1 1 1 0 0 0")
	var cut vault.Change
	update(t, v, func(tx *vault.Tx) (err error) {
		_, err1 := tx.Enqueue(vault.Change{Kind: vault.Assign, Token: alice})
		cut, err = tx.Enqueue(vault.Change{Kind: vault.Disable, Token: alice})
		return errors.Join(err, err1, tx.PutToken(vault.Token{ID: bob, Status: vault.Disabled}), tx.PutJob(&job))
	})
	counts("2 map[active:1 disabled:1] 0 0 1 2 1 0")
	cut.Parked = true
	update(t, v, func(tx *vault.Tx) error { return errors.Join(tx.PutChange(cut), tx.DeleteJob(job.ID)) })
	counts("2 map[active:1 disabled:1] 0 0 0 2 1 1")
	if err := v.Update(func(tx *vault.Tx) error { return errors.Join(tx.DeleteToken(bob), errors.New("not after all")) }); err == nil {
		t.Error("the transaction was committed")
	}
	if err := errors.Join(v.Lock(), v.Unlock(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	counts("2 map[active:1 disabled:1] 0 0 0 2 1 1")
	update(t, v, func(tx *vault.Tx) error { return errors.Join(tx.DeleteChange(cut.Seq), tx.DeleteToken(bob)) })
	counts("1 map[active:1] 0 0 0 1 0 0")
}

// Jobs and changes are found by their token, however they come and go.
func TestChangesOf(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	v := vaulttest.New(t)
	ids := []device.TokenID{alice, bob, numbered(1), numbered(10), numbered(100)}
	update(t, v, func(tx *vault.Tx) error {
		var err error
		for _, id := range ids {
			err = errors.Join(err, tx.PutToken(vault.Token{ID: id, Status: vault.Active}))
		}
		return err
	})
	var want []vault.Change
	for range 40 {
		update(t, v, func(tx *vault.Tx) error {
			for range 5 {
				if r.IntN(3) == 0 && len(want) > 0 {
					i := r.IntN(len(want))
					if err := tx.DeleteChange(want[i].Seq); err != nil {
						return err
					}
					want = slices.Delete(want, i, i+1)
					continue
				}
				c, err := tx.Enqueue(vault.Change{Kind: vault.Assign, Token: pick(r, ids)})
				if err != nil {
					return err
				}
				want = append(want, c)
			}
			return nil
		})
	}
	same := func(what string, got []vault.Change, err error, of func(vault.Change) bool) {
		t.Helper()
		var seqs, wanted []uint64
		for _, c := range got {
			seqs = append(seqs, c.Seq)
		}
		for _, c := range want {
			if of(c) {
				wanted = append(wanted, c.Seq)
			}
		}
		if err != nil || !slices.Equal(seqs, wanted) {
			t.Errorf("%s: %v, %v, want %v", what, seqs, err, wanted)
		}
	}
	view(t, v, func(tx *vault.Tx) error {
		for _, id := range append(ids, "yk-9/otp1") {
			got, err := tx.ChangesOf(id)
			same(string(id), got, err, func(c vault.Change) bool { return c.Token == id })
		}
		all, err := tx.ChangesFrom(0, 0)
		same("all", all, err, func(vault.Change) bool { return true })
		middle, last := want[len(want)/2].Seq, want[len(want)/2+10].Seq
		some, err := tx.ChangesFrom(middle, 10)
		same("some", some, err, func(c vault.Change) bool { return c.Seq > middle && c.Seq <= last })
		one, err := tx.ChangeAt(middle)
		if err != nil || one.Seq != middle {
			t.Errorf("change %d: %+v, %v", middle, one, err)
		}
		if _, err := tx.ChangeAt(10_000); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("no change: %v", err)
		}
		return nil
	})
}

// Cut-offs are found by their user, whatever way the name is written, and both they and what is parked without looking at
// anything else.
func TestListsOfChanges(t *testing.T) {
	v := vaulttest.New(t)
	update(t, v, func(tx *vault.Tx) error { return errors.Join(put(tx, alice, []byte("s")), put(tx, bob, []byte("t"))) })
	before := entries(t, v)
	for _, c := range []vault.Change{
		{Kind: vault.Assign, Token: alice, User: "Kim"},
		{Kind: vault.Unassign, Token: alice, User: "kim"},
		{Kind: vault.Disable, Token: bob, User: "\u212aIM"}, // the Kelvin sign
		{Kind: vault.Disable, Token: bob},
		{Kind: vault.Advance, Token: bob, User: "kim"},
	} {
		update(t, v, func(tx *vault.Tx) error { _, err := tx.Enqueue(c); return err })
	}
	if n := entries(t, v) - before; n != 5+3+3 {
		t.Errorf("the changes have %d entries in the index", n)
	}
	expect := func(cutOffs, parked, first string) {
		t.Helper()
		view(t, v, func(tx *vault.Tx) error {
			seqs := func(list []vault.Change, err error) string {
				if err != nil {
					t.Error(err)
				}
				var out []uint64
				for _, c := range list {
					out = append(out, c.Seq)
				}
				return fmt.Sprint(out)
			}
			if got := seqs(tx.CutOffsFrom(0, 0)); got != cutOffs {
				t.Errorf("the cut-offs are %s, want %s", got, cutOffs)
			}
			if got := seqs(tx.ParkedFrom(0, 0)); got != parked {
				t.Errorf("parked are %s, want %s", got, parked)
			}
			kim, err1 := tx.CutOffOf("KIM")
			nobody, err2 := tx.CutOffOf("")
			other, err3 := tx.CutOffOf("ki")
			if got := fmt.Sprint(kim, nobody, other); got != first {
				t.Errorf("the users' first cut-offs are %s, want %s", got, first)
			}
			return errors.Join(err1, err2, err3)
		})
	}
	expect("[2 3 4]", "[]", "2 4 0")
	view(t, v, func(tx *vault.Tx) error {
		some, err := tx.CutOffsFrom(2, 1)
		if len(some) != 1 || some[0].Seq != 3 {
			t.Errorf("after 2: %+v", some)
		}
		for after, want := range []uint64{1, 2, 0} {
			seq, err := tx.NextOf(alice, uint64(after))
			if seq != want || err != nil {
				t.Errorf("alice's first change after %d is %d, want %d: %v", after, seq, want, err)
			}
		}
		return err
	})
	park := func(seq uint64, parked bool) {
		t.Helper()
		update(t, v, func(tx *vault.Tx) error {
			c, err := tx.ChangeAt(seq)
			c.Parked = parked
			return errors.Join(err, tx.PutChange(c))
		})
	}
	park(2, true)
	park(5, true)
	park(5, false)
	park(5, true)
	update(t, v, func(tx *vault.Tx) error { return tx.DeleteChange(2) })
	expect("[3 4]", "[5]", "3 4 0")
	if err := errors.Join(v.Lock(), v.Unlock(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{1, 3, 4, 5} {
		update(t, v, func(tx *vault.Tx) error { return tx.DeleteChange(seq) })
	}
	expect("[]", "[]", "0 0 0")
	if n := entries(t, v); n != before {
		t.Errorf("%d entries are left in the index, there were %d", n, before)
	}
}

// What strings.EqualFold takes for the same name is one.
func TestFold(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if other := unicode.SimpleFold(r); vault.Fold(string(r)) != vault.Fold(string(other)) {
			t.Errorf("%q and %q differ: %q, %q", r, other, vault.Fold(string(r)), vault.Fold(string(other)))
		}
	}
	if got := vault.Fold("Al\x00ice ÄÖ\n"); got != "alice äö" {
		t.Errorf("got %q", got)
	}
}

// An index that tells something else than the tokens is told, where it is met and by a check of everything.
func TestIndexThatIsWrong(t *testing.T) {
	owned := vault.Filter{Owner: "user of " + string(alice)}
	texts := vault.Filter{Text: "phantom"}
	var others []vault.Token
	for i := range 12 { // more than a query tries before it believes the index
		others = append(others, vault.Token{ID: numbered(i), Status: vault.Pending})
	}
	find := func(f vault.Filter) func(*vault.Tx) error {
		return func(tx *vault.Tx) error { _, _, err := tx.Tokens(f); return err }
	}
	for name, c := range map[string]struct {
		spoil func(tx *vault.Tx) error
		use   func(tx *vault.Tx) error
		check string
	}{
		"missing":   {func(tx *vault.Tx) error { return tx.DeleteIndexed('u', owned.Owner, alice) }, nil, "is missing"},
		"no token":  {func(tx *vault.Tx) error { return tx.PutIndexed('u', owned.Owner, "yk-1/otp1") }, find(owned), "the index has"},
		"not so":    {func(tx *vault.Tx) error { return tx.PutIndexed('u', owned.Owner, bob) }, find(owned), "the index has"},
		"no word":   {func(tx *vault.Tx) error { return tx.PutIndexed('w', "phantom", numbered(9)) }, find(texts), "the index has"},
		"no status": {func(tx *vault.Tx) error { return tx.PutIndexed('s', "limbo", bob) }, find(vault.Filter{Status: vault.Limbo}), "the index has"},
		"no job": {func(tx *vault.Tx) error { return tx.PutNumbered('j', string(bob), 7) },
			func(tx *vault.Tx) error { _, _, err := tx.JobFor(bob); return err }, "the index has"},
		"no change": {func(tx *vault.Tx) error { return tx.PutNumbered('c', string(bob), 7) },
			func(tx *vault.Tx) error { _, err := tx.ChangesOf(bob); return err }, "the index has"},
		"no cut-off": {func(tx *vault.Tx) error { return tx.PutNumbered('l', "cut-offs", 7) },
			func(tx *vault.Tx) error { _, err := tx.CutOffsFrom(0, 0); return err }, "the index has"},
		"not parked": {
			func(tx *vault.Tx) error {
				c, err := tx.Enqueue(vault.Change{Kind: vault.Assign, Token: bob})
				return errors.Join(err, tx.PutNumbered('l', "parked", c.Seq))
			},
			func(tx *vault.Tx) error { _, err := tx.ParkedFrom(0, 0); return err }, "the index has"},
		"miscounted": {func(tx *vault.Tx) error { tx.Miscount("stock", 1); return nil }, nil, "the ledger counts"},
	} {
		t.Run(name, func(t *testing.T) {
			v := vaulttest.New(t)
			update(t, v, func(tx *vault.Tx) error { return errors.Join(put(tx, alice, []byte("s")), put(tx, bob, []byte("t"))) })
			fill(t, v, others)
			update(t, v, c.spoil)
			if c.use != nil {
				wantState(t, v.View(c.use), vault.StateCorrupt, "index")
			}
			wantState(t, v.Check(), vault.StateCorrupt, c.check)
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
