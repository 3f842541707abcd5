package syncer_test

import (
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

var (
	identified     = flag.Int("identified", 100_000, "how many tokens BenchmarkIdentify searches")
	identifyRounds = flag.Int("identify-rounds", 3, "how often it does")
)

// BenchmarkIdentify searches all tokens of a large vault, from the sealed file to the answer, for codes that none of them gives, so that
// every ring is gone through: with the best kernel of this processor and with the standard library, in turns, on all cores.
func BenchmarkIdentify(b *testing.B) {
	v := vault.At(filepath.Join(b.TempDir(), "vault"), vaulttest.NewChip().Open)
	if err := errors.Join(v.Init(vaulttest.Setup(secret.Secret{})), v.Unlock(secret.Secret{})); err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	const perCommit = 5000
	for from := 0; from < *identified; from += perCommit {
		err := v.Update(func(tx *vault.Tx) error {
			for i := from; i < min(*identified, from+perCommit); i++ {
				serial := device.Serial(10_000_000 + i)
				seed := secret.Random(20)
				err := errors.Join(tx.SetSeed(stranger(i), 1, seed), tx.PutToken(vault.Token{ID: stranger(i), Serial: serial, Firmware: device.Version{Major: 5, Minor: 4, Build: 3},
					Status: vault.Active, Owner: fmt.Sprintf("user%06d", i), Digits: 6, Generation: 1, Counter: uint64(i % 5000), Batch: fmt.Sprintf("delivery-%04d", i/500)}))
				seed.Wipe()
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	search := func() time.Duration {
		runtime.GC()
		start := time.Now()
		f, err := syncer.Identify(b.Context(), v, []string{"000000", "000001", "000002"}, 1000, nil)
		took := time.Since(start)
		if err != nil || len(f.Matches) > 0 || f.Searched != *identified || f.Window != 1000 {
			b.Fatalf("%+v, %v", f, err)
		}
		return took
	}
	var best, base, ratios []float64
	for b.Loop() {
		for range *identifyRounds {
			fast := search()
			restore, err := hotpscan.Force("base")
			if err != nil {
				b.Fatal(err)
			}
			slow := search()
			restore()
			best, base, ratios = append(best, fast.Seconds()), append(base, slow.Seconds()), append(ratios, slow.Seconds()/fast.Seconds())
		}
	}
	for _, list := range [][]float64{best, base, ratios} {
		slices.Sort(list)
	}
	fmt.Printf("ratio identify_100k_w1000_vs_base %.2f\n", ratios[len(ratios)/2])
	fmt.Printf("figure identify_100k_w1000_ms_%s %.0f\n", hotpscan.Kernel(), best[len(best)/2]*1000)
	fmt.Printf("figure identify_100k_w1000_ms_base %.0f\n", base[len(base)/2]*1000)
}
