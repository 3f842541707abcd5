package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// strangers makes a vault of n tokens with seeds of a test's own choice.
func strangers(t testing.TB, n int, token func(i int, tok *vault.Token)) *vault.Vault {
	t.Helper()
	v := vaulttest.New(t)
	err := v.Update(func(tx *vault.Tx) error {
		for i := range n {
			tok := vault.Token{ID: stranger(i), Status: vault.Active, Digits: 6, Generation: 1, Owner: fmt.Sprintf("user%d", i)}
			if token != nil {
				token(i, &tok)
			}
			seed := strangerSeed(i)
			if err := errors.Join(tx.SetSeed(tok.ID, 1, seed), tx.PutToken(tok)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func stranger(i int) device.TokenID {
	return device.SlotToken(device.YubiKeyID(device.Serial(10_000_000+i)), 2)
}

func strangerSeed(i int) secret.Secret {
	return secret.New([]byte(fmt.Sprintf("this is a seed  %04d", i)))
}

// codesOf are n codes of a stranger from a counter on.
func codesOf(i, digits int, counter uint64, n int) (codes []string) {
	for k := range n {
		codes = append(codes, hotpscan.Code(strangerSeed(i), digits, counter+uint64(k)))
	}
	return codes
}

func identify(t *testing.T, v *vault.Vault, codes []string, widest int) (f syncer.Found, rings []int) {
	t.Helper()
	f, err := syncer.Identify(t.Context(), v, codes, widest, func(f syncer.Found) { rings = append(rings, f.Window) })
	if err != nil {
		t.Fatal(err)
	}
	return f, rings
}

func TestIdentify(t *testing.T) {
	const n = 300
	v := strangers(t, n, func(i int, tok *vault.Token) {
		tok.Counter = uint64(1000 * i)
		switch i {
		case 7:
			tok.Status, tok.Loss = vault.Compromised, vault.Loss{Kind: vault.Lost, Time: newClock().now(), Owner: "eve"}
			tok.Owner = ""
		case 8:
			tok.Status, tok.Tenant = vault.Disabled, "north"
		case 9:
			tok.Digits = 8
		case 10:
			tok.Counter = math.MaxUint64 - 5
		}
	})
	for name, c := range map[string]struct {
		i, digits int
		ahead     uint64
		codes     int
		widest    int
		rings     []int
		found     bool
	}{
		"in step":                 {5, 6, 0, 2, 10000, []int{16}, true},
		"last of the first ring":  {5, 6, 15, 2, 10000, []int{16}, true},
		"first of the second":     {5, 6, 16, 2, 10000, []int{16, 100}, true},
		"last of the second":      {5, 6, 99, 3, 10000, []int{16, 100}, true},
		"third":                   {299, 6, 999, 2, 10000, []int{16, 100, 1000}, true},
		"fourth":                  {0, 6, 9999, 2, 10000, []int{16, 100, 1000, 10000}, true},
		"too far":                 {0, 6, 10000, 2, 10000, []int{16, 100, 1000, 10000}, false},
		"within another's window": {0, 6, 99, 2, 100, []int{16, 100}, true},
		"beyond that":             {0, 6, 100, 2, 100, []int{16, 100}, false},
		"in a narrow one":         {0, 6, 49, 2, 50, []int{16, 50}, true},
		"a compromised token":     {7, 6, 3, 2, 10000, []int{16}, true},
		"a disabled one":          {8, 6, 3, 2, 10000, []int{16}, true},
		"of 8 digits":             {9, 8, 3, 2, 10000, []int{16}, true},
		"with the wrong digits":   {9, 6, 3, 2, 10000, []int{16, 100, 1000, 10000}, false},
		"at the end of counters":  {10, 6, 3, 3, 10000, []int{16}, true},
		"nowhere to look":         {5, 6, 0, 2, 0, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			base := uint64(1000 * c.i)
			if c.i == 10 {
				base = math.MaxUint64 - 5
			}
			f, rings := identify(t, v, codesOf(c.i, c.digits, base+c.ahead, c.codes), c.widest)
			if !slices.Equal(rings, c.rings) {
				t.Errorf("rings %v, want %v", rings, c.rings)
			}
			if c.rings == nil {
				return
			}
			searched, last := n-1, c.rings[len(c.rings)-1]
			if c.digits == 8 {
				searched = 1
			}
			chance := float64(searched) * float64(last) * math.Pow10(-c.digits*c.codes)
			if f.Searched != searched || f.Window != last || f.Codes != c.codes || math.Abs(f.Chance/chance-1) > 1e-9 {
				t.Errorf("%+v", f)
			}
			if !c.found {
				if len(f.Matches) > 0 || f.Certain() {
					t.Errorf("%+v", f)
				}
				return
			}
			if len(f.Matches) != 1 || f.Certain() != (chance <= syncer.MaxChance) {
				t.Fatalf("%+v", f)
			}
			m := f.Matches[0]
			if m.Token != stranger(c.i) || m.Counter != base+c.ahead || m.Ahead != c.ahead || m.Generation != 1 || !m.Current {
				t.Errorf("%+v", m)
			}
			if c.i == 8 && m.Tenant != "north" || c.i == 5 && m.Owner != "user5" {
				t.Errorf("%+v", m)
			}
		})
	}
}

// Two tokens give the same two codes: a ring is finished before the first of them is taken for the only one. The third code tells.
func TestIdentifyTwins(t *testing.T) {
	at := map[int]uint64{104: 1963, 135: 1817}
	v := strangers(t, 200, func(i int, tok *vault.Token) {
		if n, ok := at[i]; ok {
			tok.Counter = n - 10
		}
	})
	f, _ := identify(t, v, codesOf(104, 6, at[104], 2), 10000)
	if len(f.Matches) != 2 || f.Certain() || f.Matches[0].Token != stranger(104) || f.Matches[1].Token != stranger(135) || f.Window != 16 {
		t.Errorf("%+v", f)
	}
	for i, n := range at {
		f, _ := identify(t, v, codesOf(i, 6, n, 3), 10000)
		if !f.Certain() || f.Matches[0].Token != stranger(i) || f.Matches[0].Counter != n {
			t.Errorf("%d: %+v", i, f)
		}
	}
}

// The seed of unfinished work is a token's as well.
func TestIdentifyUnfinishedWork(t *testing.T) {
	v := strangers(t, 2, func(i int, tok *vault.Token) { tok.Counter = 500 })
	err := v.Update(func(tx *vault.Tx) error {
		return errors.Join(tx.SetSeed(stranger(0), 2, strangerSeed(50)), // it gets a new one
			tx.SetSeed(stranger(9), 1, strangerSeed(9)), // and this one its first
			tx.PutToken(vault.Token{ID: stranger(9), Status: vault.Pending, Digits: 6, Counter: 32768}))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		seed, token int
		counter     uint64
		want        syncer.Match
	}{
		{50, 0, 3, syncer.Match{Token: stranger(0), Owner: "user0", Generation: 2, Counter: 3, Ahead: 3}},
		{0, 0, 500, syncer.Match{Token: stranger(0), Owner: "user0", Generation: 1, Current: true, Counter: 500}},
		{9, 9, 32770, syncer.Match{Token: stranger(9), Generation: 1, Counter: 32770, Ahead: 2}},
	} {
		f, _ := identify(t, v, codesOf(c.seed, 6, c.counter, 2), 10000)
		if !f.Certain() || f.Matches[0] != c.want || f.Searched != 4 {
			t.Errorf("got %+v, want %+v", f, c.want)
		}
	}
}

func TestIdentifyRefuses(t *testing.T) {
	v := strangers(t, 1, nil)
	for name, codes := range map[string][]string{
		"none": nil, "one": {"123456"}, "four": {"123456", "123457", "123458", "123459"}, "no digits": {"123456", "12345a"},
		"two lengths": {"123456", "1234567"}, "too short": {"12345", "12346"},
		"twice the same": {"123456", "123456"}, "the same again": {"123456", "123457", "123457"}, "first and last": {"123456", "123457", "123456"},
	} {
		_, err := syncer.Identify(t.Context(), v, codes, 10000, func(syncer.Found) { t.Errorf("%s: it was searched for", name) })
		bad := (*syncer.CodesError)(nil)
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", name, err)
		}
		for _, c := range codes {
			if bad != nil && strings.Contains(bad.Error(), c) {
				t.Errorf("%s: %v repeats a code", name, bad)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := syncer.Identify(ctx, v, []string{"123456", "123457"}, 10000, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who went away: %v", err)
	}
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	state := (*vault.StateError)(nil)
	if _, err := syncer.Identify(t.Context(), v, []string{"123456", "123457"}, 10000, nil); !errors.As(err, &state) || state.State != vault.StateLocked {
		t.Errorf("a locked vault: %v", err)
	}
}
