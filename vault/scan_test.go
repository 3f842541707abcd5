package vault_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// seedOf is the i-th seed of a test: of all lengths that a key may have, and more.
func seedOf(i int) string { return fmt.Sprintf("%08d", i) + strings.Repeat("x", i%300) }

// gathered is all that EachSeed gives, rendered, by its seed.
func gathered(t *testing.T, v *vault.Vault, workers int) (map[string]string, error) {
	t.Helper()
	var mu sync.Mutex
	out := map[string]string{}
	err := v.EachSeed(t.Context(), workers, func(worker int, e vault.SeedEntry) error {
		mu.Lock()
		defer mu.Unlock()
		seed := string(e.Seed)
		e.Seed = nil
		if _, twice := out[seed]; twice || worker < 0 || worker >= workers {
			t.Errorf("worker %d: %+v, twice: %v", worker, e, twice)
		}
		out[seed] = fmt.Sprintf("%+v", e)
		return nil
	})
	return out, err
}

func TestEachSeed(t *testing.T) {
	v := vaulttest.New(t)
	want := map[string]string{}
	update(t, v, func(tx *vault.Tx) error {
		var problems []error
		for i := range 700 { // more than two chunks
			tok := vault.Token{ID: device.SlotToken(device.YubiKeyID(device.Serial(1001+i*i)), 1+i%2), Status: vault.Active, Digits: 6 + i%3,
				Counter: uint64(i) << 40, Generation: 1 + i%2, Owner: "user " + string(rune('a'+i%26))}
			switch i % 5 {
			case 1:
				tok.Tenant, tok.Description = "north", `say "}," and \`
			case 2:
				tok.Owner = `o"hara\`
			case 3:
				tok.Tenant, tok.Owner = "süd", ""
			case 4:
				tok.Status, tok.Generation, tok.Counter = vault.Pending, 0, 16
			}
			for g := 1; g <= 2; g++ {
				seed := seedOf(2*i + g)
				e := vault.SeedEntry{Token: tok.ID, Tenant: tok.Tenant, Owner: tok.Owner, Digits: tok.Digits, Generation: g, Current: g == tok.Generation}
				if e.Current || tok.Generation == 0 {
					e.Counter = tok.Counter
				}
				want[seed] = fmt.Sprintf("%+v", e)
				problems = append(problems, tx.SetSeed(tok.ID, g, secret.New([]byte(seed))))
			}
			problems = append(problems, tx.PutToken(tok), tx.SetAccessCode(tok.ID, secret.New([]byte("code of "+tok.ID))))
		}
		// A token whose codes are sent has no seed.
		return errors.Join(append(problems, tx.PutToken(vault.Token{ID: "mail-7", Status: vault.Active, Owner: "eve", Address: "eve@example.org"}))...)
	})
	for _, workers := range []int{1, 2, 5} {
		got, err := gathered(t, v, workers)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, want) {
			t.Errorf("%d workers: %d seeds, want %d", workers, len(got), len(want))
			for seed, e := range want {
				if got[seed] != e {
					t.Fatalf("got  %s\nwant %s", got[seed], e)
				}
			}
		}
	}
	if err := v.Check(); err != nil {
		t.Error(err)
	}
}

func TestEachSeedOfAnEmptyVault(t *testing.T) {
	if got, err := gathered(t, vaulttest.New(t), 2); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}

// What ends a search ends all its goroutines, and leaves the vault usable.
func TestEachSeedEnds(t *testing.T) {
	path := filled(t, 1000)
	v := reopen(t, path)
	boom := errors.New("enough")
	err := v.EachSeed(t.Context(), 2, func(int, vault.SeedEntry) error { return boom })
	if !errors.Is(err, boom) {
		t.Errorf("an error of the caller: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = v.EachSeed(ctx, 2, func(int, vault.SeedEntry) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who went away: %v", err)
	}
	if _, err := gathered(t, v, 2); err != nil {
		t.Error(err)
	}
	// A lock does not wait for the end of the search.
	begun, locked := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	calls := 0
	err = v.EachSeed(t.Context(), 1, func(int, vault.SeedEntry) error {
		calls++
		once.Do(func() {
			go func() { close(begun); locked <- v.Lock() }()
			<-begun
		})
		for calls == 1 && !v.Ending() {
			runtime.Gosched()
		}
		return nil
	})
	wantState(t, err, vault.StateLocked, "is being locked")
	if err := <-locked; err != nil || calls >= 1000 {
		t.Errorf("%v after %d seeds", err, calls)
	}
	err = v.EachSeed(t.Context(), 2, func(int, vault.SeedEntry) error { return nil })
	wantState(t, err, vault.StateLocked, "is locked")
}

// A change that the counter did not follow is not searched, and the next search has it follow.
func TestEachSeedAfterACommitWithoutCounter(t *testing.T) {
	chip := vaulttest.NewChip()
	v := vault.At(filepath.Join(t.TempDir(), "vault"), chip.Open)
	if err := errors.Join(v.Init(vaulttest.Setup(secret.Secret{})), v.Unlock(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	vaulttest.CheckAtEnd(t, v)
	chip.Fail = func(call string) (error, bool) { return map[string]error{"increment": errGone}[call], false }
	if err := v.Update(func(tx *vault.Tx) error { return put(tx, alice, []byte("seed")) }); !errors.Is(err, vault.ErrUnanchored) {
		t.Fatal(err)
	}
	if got, err := gathered(t, v, 1); !errors.Is(err, vault.ErrUnanchored) || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	chip.Fail = nil
	if got, err := gathered(t, v, 1); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

// What was changed behind the vault's back while it is open is noticed, and no seed of it is used.
func TestEachSeedOfAChangedFile(t *testing.T) {
	for name, spoil := range map[string]func(tx *bbolt.Tx) error{
		"another's seed": func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("seeds"))
			_, of1001 := b.Cursor().First()
			k, _ := b.Cursor().Seek([]byte("yk-1002/otp2"))
			return b.Put(k, append([]byte(nil), of1001...))
		},
		"another's record": func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("tokens"))
			_, of1001 := b.Cursor().First()
			return b.Put([]byte("yk-1002/otp2"), append([]byte(nil), of1001...))
		},
		"a seed of nobody": func(tx *bbolt.Tx) error { return tx.Bucket([]byte("tokens")).Delete([]byte("yk-1002/otp2")) },
		"no seed's key":    func(tx *bbolt.Tx) error { return tx.Bucket([]byte("seeds")).Put([]byte("yk"), []byte("value")) },
	} {
		t.Run(name, func(t *testing.T) {
			v := reopen(t, filled(t, 3))
			if err := v.Raw(spoil); err != nil {
				t.Fatal(err)
			}
			_, err := gathered(t, v, 1)
			wantState(t, err, vault.StateCorrupt, "changed behind the vault's back")
			if err := v.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func FuzzReadSearched(f *testing.F) {
	f.Add("alice", "north", `plain words`, 6, uint64(7), 1)
	f.Add(`a"b\`, "\u2028", `}],"counter":9,`, 8, uint64(1)<<63, 1<<31-1)
	f.Add("", "<&>", `\`, -1, uint64(0), 0)
	f.Fuzz(func(t *testing.T, owner, tenant, words string, digits int, counter uint64, generation int) {
		tok := vault.Token{ID: alice, Owner: owner, Tenant: tenant, Description: words, Digits: digits, Counter: counter, Generation: generation}
		if err := vault.CompareSearched(tok); err != nil {
			t.Error(err)
		}
	})
}

// FuzzPlainSearched gives the parser what no vault holds: it may refuse it, but not read it in another way than others do.
func FuzzPlainSearched(f *testing.F) {
	for _, s := range []string{`{"owner":"a","counter":7,"x":{"y":[1,"}\\\""]},"tenant":"b"}`, `{}`, `{"a`, `{"a":`, `{"a":"`, `{"a":"\`, `{"counter":1,}`, `{"digits":007}`, "{\"owner\":\"\x84\"}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		if err := vault.ComparePlain(record); err != nil {
			t.Error(err)
		}
	})
}
