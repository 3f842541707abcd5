package vault

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// What a transaction remembers of gaps changes no answer: a plain map gives the same ones.
func TestGaps(t *testing.T) {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "bolt"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for seed := range uint64(200) {
		err := db.Update(func(bolt *bbolt.Tx) error {
			name := fmt.Sprint(seed)
			if _, err := bolt.CreateBucket([]byte(name)); err != nil {
				return err
			}
			tx := &Tx{bolt: bolt, buckets: map[string]*entries{}}
			walkGaps(t, rand.New(rand.NewPCG(seed, 0)), func() *entries { return tx.entries(name) })
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func walkGaps(t *testing.T, r *rand.Rand, of func() *entries) {
	model := map[string]string{}
	key := func() []byte {
		k := make([]byte, r.IntN(4))
		for i := range k {
			k[i] = "\x00ab\xff"[r.IntN(4)]
		}
		return k
	}
	for step := range 300 {
		e, k := of(), key()
		switch r.IntN(4) {
		case 0:
			if len(k) == 0 {
				continue
			}
			val := fmt.Sprint(step)
			if err := e.Put(k, []byte(val)); err != nil {
				t.Fatal(err)
			}
			model[string(k)] = val
		case 1:
			if err := e.Delete(k); err != nil {
				t.Fatal(err)
			}
			delete(model, string(k))
		case 2:
			want, there := model[string(k)]
			if got := e.find(k); string(got) != want || (got != nil) != there {
				t.Fatalf("step %d: %q is %q, want %q", step, k, got, want)
			}
		case 3:
			prefix := k[:r.IntN(len(k)+1)]
			want, wanted := "", false
			for _, m := range slices.Sorted(maps.Keys(model)) {
				if m >= string(k) {
					want, wanted = m, bytes.HasPrefix([]byte(m), prefix)
					break
				}
			}
			switch got, val := e.first(prefix, k); {
			case (got != nil) != wanted, wanted && (string(got) != want || string(val) != model[want]):
				t.Fatalf("step %d: the first from %q on that begins with %q is %q = %q, want %q", step, k, prefix, got, val, want)
			}
		}
	}
}
