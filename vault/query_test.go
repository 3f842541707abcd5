package vault_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/vaulttest"
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

var (
	someOwners   = []string{"", "", "alice", "Alice", "ALICE SMITH", "alina", "bob", "Bobby", "Ærøskøbing", "ÆRØ", "Ünal", "7up", "yk-fan", "straße", "a@example.org"}
	someStatuses = []vault.Status{vault.Active, vault.Active, vault.Active, vault.Pending, vault.Disabled, vault.Limbo}
	someLabels   = []string{"", "2024-05", "2024-06", "Berlin", "berlin", "zürich"}
	someWords    = []string{"spare", "Spare,", "(lab)", "lab-3", "ALINA", "12", "1st", "Straße", "keeps", "drifting", "ærø", strings.Repeat("long", 20), "-", "alice"}
)

// inventory is tokens in the order of their names. Many share their values, some owners are of one token only.
func inventory(r *rand.Rand, n int) []vault.Token {
	list := map[device.TokenID]vault.Token{}
	for len(list) < n {
		serial := device.Serial(r.IntN(10 * n))
		t := vault.Token{
			ID: device.SlotToken(device.YubiKeyID(serial), 1+r.IntN(2)), Status: pick(r, someStatuses), Owner: pick(r, someOwners),
			Batch: pick(r, someLabels), Tenant: pick(r, someLabels), Stale: r.IntN(9) == 0,
		}
		if r.IntN(5) == 0 { // a device that is one token itself
			t.ID = device.TokenID(pick(r, []device.Family{device.Fob, device.Mail, device.Phone})) + device.TokenID("-"+serial.String())
		}
		switch r.IntN(4) {
		case 0:
			t.Serial = serial
		case 1:
			t.Serial = device.Serial(r.IntN(1000))
		}
		if r.IntN(3) == 0 {
			t.Owner = fmt.Sprintf("user%05d", r.IntN(10*n))
		}
		for range r.IntN(4) {
			t.Description += " " + pick(r, someWords)
		}
		list[t.ID] = t
	}
	var out []vault.Token
	for _, t := range list {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b vault.Token) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func fill(t testing.TB, v *vault.Vault, tokens []vault.Token) {
	t.Helper()
	for part := range slices.Chunk(tokens, 1000) {
		update(t, v, func(tx *vault.Tx) error {
			for _, i := range rand.Perm(len(part)) {
				if err := tx.PutToken(part[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// selects says, without any index, whether a token is to be found.
func selects(f vault.Filter, t vault.Token) bool {
	same := func(a, b string) bool { return a == "" || strings.EqualFold(a, b) }
	serial, _ := t.ID.Device().Serial()
	return t.ID > f.After && (f.Device == "" || t.ID.Device() == f.Device) && (f.Serial == 0 || f.Serial == t.Serial || f.Serial == serial) &&
		(f.Status == "" || f.Status == t.Status) && (!f.Stale || t.Stale) &&
		same(f.Owner, t.Owner) && same(f.Batch, t.Batch) && same(f.Tenant, t.Tenant) && saysText(f.Text, t)
}

func saysText(text string, t vault.Token) bool {
	_, number, _ := strings.Cut(string(t.ID), "-")
	said := []string{string(t.ID), number, t.Owner}
	if t.Serial != 0 {
		said = append(said, t.Serial.String())
	}
	for _, w := range strings.Fields(t.Description) {
		if w = strings.Trim(w, "(),-"); w != "" {
			said = append(said, w)
		}
	}
	return slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(strings.ToLower(s), strings.ToLower(text)) })
}

// someFilter mostly selects something.
func someFilter(r *rand.Rand, all []vault.Token) vault.Filter {
	var f vault.Filter
	t := pick(r, all)
	part := func(s string) string {
		letters := []rune(s)
		s = string(letters[:r.IntN(len(letters)+1)])
		if r.IntN(2) == 0 {
			return strings.ToUpper(s)
		}
		return s
	}
	for range 1 + r.IntN(3) {
		switch r.IntN(9) {
		case 0:
			f.Owner = pick(r, []string{t.Owner, strings.ToUpper(t.Owner), "nobody"})
		case 1:
			f.Status = t.Status
		case 2:
			f.Batch = t.Batch
		case 3:
			f.Tenant = strings.ToLower(t.Tenant)
		case 4:
			f.Stale = true
		case 5:
			if r.IntN(3) == 0 {
				f.Device = t.ID.Device()
			}
		case 6:
			if f.Serial = t.Serial; r.IntN(2) == 0 {
				f.Serial, _ = t.ID.Device().Serial()
			}
		case 7:
			f.Text = part(pick(r, append(strings.Fields(t.Description), t.Owner, string(t.ID), strings.TrimPrefix(string(t.ID), "yk-"), t.Serial.String())))
		case 8:
			f.Text = pick(r, []string{"y", "u", "user0", "1", "12", "a", "al", "zz", "ß", "yk-", "yk-1"})
		}
	}
	f.Limit = pick(r, []int{0, 5, 17, 50, 1000})
	if r.IntN(3) == 0 {
		f.After = pick(r, all).ID
	}
	return f
}

// paged goes through all pages of a filter. With full, no page but the last may be short.
func paged(tx *vault.Tx, f vault.Filter, full bool) ([]vault.Token, error) {
	var out []vault.Token
	for range 100_000 {
		page, next, err := tx.Tokens(f)
		if err != nil {
			return nil, err
		}
		switch out = append(out, page...); {
		case f.Limit > 0 && len(page) > f.Limit:
			return nil, fmt.Errorf("a page of %d tokens", len(page))
		case next == "":
			return out, nil
		case next <= f.After:
			return nil, fmt.Errorf("after %q comes %q", f.After, next)
		case full && (f.Limit == 0 || len(page) < f.Limit):
			return nil, fmt.Errorf("a page of %d tokens, and more come", len(page))
		}
		f.After = next
	}
	return nil, errors.New("the pages have no end")
}

func idsOf(tokens []vault.Token) (out []device.TokenID) {
	for _, t := range tokens {
		out = append(out, t.ID)
	}
	return out
}

func naive(f vault.Filter, all []vault.Token) (out []device.TokenID) {
	for _, t := range all {
		if selects(f, t) {
			out = append(out, t.ID)
		}
	}
	return out
}

// Whatever is asked, the pages hold what a scan of everything finds, in every way of finding it.
func TestTokensAgainstScan(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	v := vaulttest.New(t)
	all := inventory(r, 3000)
	fill(t, v, all)
	for _, bound := range []struct{ entries, streams int }{{10_000, 64}, {10_000, 4}, {10_000, 0}, {400, 4}, {60, 0}} {
		t.Run(fmt.Sprintf("%d_entries_%d_streams", bound.entries, bound.streams), func(t *testing.T) {
			defer vault.Bound(bound.entries, bound.streams)()
			view(t, v, func(tx *vault.Tx) error {
				found := 0
				for range 60 {
					f := someFilter(r, all)
					got, err := paged(tx, f, bound.entries == 10_000)
					if want := naive(f, all); err != nil || !slices.Equal(idsOf(got), want) {
						return fmt.Errorf("seed %d: %+v: %d tokens, want %d: %w", seed, f, len(got), len(want), cmp.Or(err, errors.New("others")))
					}
					found += len(got)
				}
				if found < 500 {
					t.Errorf("only %d tokens were found in all", found)
				}
				return nil
			})
		})
	}
}

// The index follows every change, also within one transaction, and the counts with it.
func TestTokensWhileTheyChange(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	v := vaulttest.New(t)
	all := inventory(r, 200)
	fill(t, v, all)
	for range 60 {
		update(t, v, func(tx *vault.Tx) error {
			for range 1 + r.IntN(40) {
				fresh := inventory(r, 1)[0]
				i := r.IntN(len(all))
				switch old := all[i]; r.IntN(5) {
				case 0:
					if err := tx.DeleteToken(old.ID); err != nil {
						return err
					}
					all = slices.Delete(all, i, i+1)
					continue
				case 1, 2:
					i = len(all)
					if slices.ContainsFunc(all, func(t vault.Token) bool { return t.ID == fresh.ID }) {
						continue
					}
					all = append(all, fresh)
				default:
					fresh.ID = old.ID
					all[i] = fresh
				}
				if err := tx.PutToken(all[i]); err != nil {
					return err
				}
			}
			slices.SortFunc(all, func(a, b vault.Token) int { return cmp.Compare(a.ID, b.ID) })
			f := someFilter(r, all)
			got, err := paged(tx, f, true)
			if want := naive(f, all); err == nil && !slices.Equal(idsOf(got), want) {
				err = fmt.Errorf("seed %d: %+v: %v, want %v", seed, f, idsOf(got), want)
			}
			return err
		})
		if err := v.Check(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	view(t, v, func(tx *vault.Tx) error {
		if got := tx.Counts(); !slices.Equal([]int{got.Tokens, got.Stock, got.Stale}, recount(all)) {
			t.Errorf("seed %d: counts %+v, want %v", seed, got, recount(all))
		}
		return nil
	})
}

func recount(all []vault.Token) []int {
	n := []int{len(all), 0, 0}
	for _, t := range all {
		if t.Status == vault.Active && t.Owner == "" {
			n[1]++
		}
		if t.Stale {
			n[2]++
		}
	}
	return n
}

func TestAllTokens(t *testing.T) {
	v := vaulttest.New(t)
	all := inventory(rand.New(rand.NewPCG(1, 2)), 300)
	fill(t, v, all)
	view(t, v, func(tx *vault.Tx) error {
		for _, f := range []vault.Filter{{}, {Limit: 7}, {Status: vault.Active, Limit: 10}} {
			var got []vault.Token
			for tok, err := range tx.AllTokens(f) {
				if err != nil {
					return err
				}
				got = append(got, tok)
			}
			if want := naive(f, all); !slices.Equal(idsOf(got), want) {
				t.Errorf("%+v: %d tokens, want %d", f, len(got), len(want))
			}
		}
		for range tx.AllTokens(vault.Filter{}) {
			break // which must not panic
		}
		return nil
	})
}

// A page is found without looking at everything: the bound holds whatever is asked.
func TestTokensLookAtLittle(t *testing.T) {
	v := vaulttest.New(t)
	var all []vault.Token
	for i := range 2000 {
		all = append(all, vault.Token{ID: numbered(i), Status: vault.Active, Owner: fmt.Sprintf("user%d", i), Description: "x"})
	}
	all[1999].Description, all[1999].Status = "needle", vault.Limbo
	fill(t, v, all)
	defer vault.Bound(100, 4)()
	view(t, v, func(tx *vault.Tx) error {
		for _, f := range []vault.Filter{
			{Text: "needle"}, {Status: vault.Limbo}, {Owner: "USER1999"}, {Device: all[1999].ID.Device()}, {Status: vault.Limbo, Text: "u"},
			{Status: vault.Active, Text: "x", Limit: 10}, {Status: vault.Active, Text: "u", Limit: 10}, {Limit: 10},
		} {
			page, next, err := tx.Tokens(f)
			if err != nil || len(page) != max(1, f.Limit) || (next != "") != (f.Limit > 0) {
				t.Errorf("%+v: %d tokens, next %q, %v", f, len(page), next, err)
			}
		}
		page, next, err := tx.Tokens(vault.Filter{})
		if len(page) != 100 || next != page[99].ID {
			t.Errorf("without a limit: %d tokens, next %q", len(page), next)
		}
		return err
	})
}

func FuzzTokens(f *testing.F) {
	f.Add("", "", "", "", "", "", uint32(0), "", byte(0), false)
	f.Add("yk-12", "alice", "2024-05", "zürich", "Al", "yk-2/otp1", uint32(12), "active", byte(50), true)
	f.Add("yk-12/otp1", "\x00", "\xff", "\u2028", strings.Repeat("long", 20), "zz", uint32(1), "nonsense", byte(1), false)
	v := vaulttest.New(f)
	all := inventory(rand.New(rand.NewPCG(3, 4)), 500)
	fill(f, v, all)
	f.Fuzz(func(t *testing.T, dev, owner, batch, tenant, text, after string, serial uint32, status string, limit byte, stale bool) {
		filter := vault.Filter{Device: device.ID(dev), Owner: owner, Batch: batch, Tenant: tenant, Text: text, After: device.TokenID(after),
			Serial: device.Serial(serial), Status: vault.Status(status), Limit: int(limit), Stale: stale}
		view(t, v, func(tx *vault.Tx) error {
			got, err := paged(tx, filter, true)
			if err != nil {
				return err
			}
			if strings.ContainsFunc(owner+batch+tenant+text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' }) || len(text) > 32 {
				return nil // nothing that is stored has these; longer words are found by their beginning
			}
			if want := naive(filter, all); !slices.Equal(idsOf(got), want) {
				t.Errorf("%+v: %v, want %v", filter, idsOf(got), want)
			}
			return nil
		})
	})
}
