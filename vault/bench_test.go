package vault_test

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

var (
	manyTokens = flag.Int("many", 1_000_000, "how many tokens the large vault of BenchmarkVault holds")
	someTokens = flag.Int("some", 100_000, "how many tokens the vault holds whose opening BenchmarkVault measures")
)

const (
	bulk       = 5000 // tokens in a transaction
	pageSize   = 50
	poolSize   = 200 // tokens of an owner who has many
	batchSize  = 500
	rounds     = 9
	firstYubi  = 10_000_000
	pagedAtAll = 200_000
)

// benchToken is the i-th token of a large inventory: most are active and a person's, who has two; some are pools, some are stock.
func benchToken(i int) vault.Token {
	serial := device.Serial(firstYubi + i)
	t := vault.Token{
		ID: device.SlotToken(device.YubiKeyID(serial), 2), Serial: serial, Firmware: device.Version{Major: 5, Minor: 4, Build: 3},
		Status: vault.Active, Owner: fmt.Sprintf("user%06d", i/2), Digits: 6, Generation: 1, Batch: fmt.Sprintf("delivery-%04d", i/batchSize),
	}
	switch i % 20 {
	case 3:
		t.Owner = ""
	case 7:
		t.Owner = fmt.Sprintf("pool%04d", i/20/poolSize)
	case 11:
		t.Status = vault.Pending
	case 13:
		t.Status = vault.Disabled
	case 17:
		t.Description = fmt.Sprintf("spare, in safe-%d", i%300)
	}
	return t
}

// grow makes a vault of n tokens with seeds and access codes.
func grow(b *testing.B, path string, n int) (v *vault.Vault, took time.Duration) {
	b.Helper()
	v = vault.At(path, vaulttest.NewChip().Open)
	if err := errors.Join(v.Init(vaulttest.Setup(secret.Secret{})), v.Unlock(secret.Secret{})); err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	for from := 0; from < n; from += bulk {
		update(b, v, func(tx *vault.Tx) error {
			for i := from; i < min(n, from+bulk); i++ {
				t, seed, code := benchToken(i), secret.Random(20), secret.Random(6)
				err := errors.Join(tx.SetSeed(t.ID, 1, seed), tx.SetAccessCode(t.ID, code), tx.PutToken(t))
				seed.Wipe()
				code.Wipe()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return v, time.Since(start)
}

func median[T int | float64 | time.Duration](list []T) T {
	slices.Sort(list)
	return list[len(list)/2]
}

func BenchmarkVault(b *testing.B) {
	b.Run("Open", benchOpen)
	b.Run("Large", benchLarge)
}

// benchOpen compares opening a vault, which verifies everything in it, with reading a bare file that holds as many entries
// of the same sizes, sealed, in the plainest way.
func benchOpen(b *testing.B) {
	dir := b.TempDir()
	v, took := grow(b, filepath.Join(dir, "vault"), *someTokens)
	fmt.Printf("figure vault_bulk_insert_per_s %.0f\n", float64(*someTokens)/took.Seconds())
	if err := v.Lock(); err != nil {
		b.Fatal(err)
	}
	aead, bare := bareCopy(b, v.Path())
	var ratios, opens []float64
	for b.Loop() {
		for range rounds {
			runtime.GC()
			start := time.Now()
			bareScan(b, bare, aead)
			scan := time.Since(start)
			runtime.GC()
			start = time.Now()
			if err := v.Unlock(secret.Secret{}); err != nil {
				b.Fatal(err)
			}
			open := time.Since(start)
			if err := v.Lock(); err != nil {
				b.Fatal(err)
			}
			ratios, opens = append(ratios, open.Seconds()/scan.Seconds()), append(opens, open.Seconds())
		}
	}
	fmt.Printf("ratio vault_open_100k_vs_bare_scan %.2f\n", median(ratios))
	fmt.Printf("figure vault_open_100k_ms %.0f\n", median(opens)*1000)
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
}

// bareCopy writes a file with the keys of a vault and, under them, as many bytes as it has, sealed where there are any.
func bareCopy(b *testing.B, path string) (cipher.AEAD, string) {
	b.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	from, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	to, err := bbolt.Open(path+".bare", 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer to.Close()
	err = from.View(func(old *bbolt.Tx) error {
		return old.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			if string(name) == "meta" {
				return nil
			}
			return to.Update(func(tx *bbolt.Tx) error {
				out, err := tx.CreateBucket(name)
				if err != nil {
					return err
				}
				return bucket.ForEach(func(k, v []byte) error {
					if len(v) == 0 {
						return out.Put(k, nil)
					}
					nonce := make([]byte, aead.NonceSize())
					rand.Read(nonce)
					plain := make([]byte, len(v)-aead.NonceSize()-aead.Overhead())
					return out.Put(k, aead.Seal(nonce, nonce, plain, nil))
				})
			})
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	return aead, path + ".bare"
}

func bareScan(b *testing.B, path string, aead cipher.AEAD) {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	var buf []byte
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
			c := bucket.Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				if len(v) == 0 {
					continue
				}
				n := aead.NonceSize()
				if buf, err = aead.Open(buf[:0], v[:n], v[n:], nil); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		b.Fatal(err)
	}
}

// benchLarge measures pages of a large vault against reading the same tokens by their names, and what memory that takes.
func benchLarge(b *testing.B) {
	n := *manyTokens
	v, took := grow(b, filepath.Join(b.TempDir(), "vault"), n)
	fmt.Printf("figure vault_million_insert_per_s %.0f\n", float64(n)/took.Seconds())
	start := time.Now()
	if err := errors.Join(v.Lock(), v.Unlock(secret.Secret{})); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("figure vault_million_open_ms %.0f\n", time.Since(start).Seconds()*1000)
	for b.Loop() {
		benchPages(b, v, n)
		benchResident(b, v, n)
	}
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchPages(b *testing.B, v *vault.Vault, n int) {
	middle := benchToken(n / 2).ID
	var all []float64
	worst := 0.0
	for name, filters := range map[string][]vault.Filter{
		"none":   {{}, {After: middle}},
		"status": {{Status: vault.Active}, {Status: vault.Active, After: middle}, {Status: vault.Pending, After: middle}, {Status: vault.Disabled}},
		"owner":  {{Owner: "pool0000"}, {Owner: "POOL0001"}},
		"batch":  {{Batch: "delivery-0003"}, {Batch: "delivery-0002", Status: vault.Active}},
		"text": {
			{Text: "user0001"}, {Text: "user00"}, {Text: "user"}, {Text: "pool0001"}, {Text: "pool"}, {Text: "100001"}, {Text: "yk-100003"},
			{Text: "safe-17"}, {Text: "spare", After: middle}, {Text: "user0001", Status: vault.Active},
		},
	} {
		var kind []float64
		for _, f := range filters {
			f.Limit = pageSize
			ratio := benchPage(b, v, f)
			kind = append(kind, ratio)
			b.Logf("%s %+v: %.2f", name, f, ratio)
			worst = max(worst, ratio)
		}
		all = append(all, kind...)
		fmt.Printf("figure vault_page50_by_%s_vs_50_gets %.2f\n", name, median(kind))
	}
	fmt.Printf("ratio vault_page50_of_1m_vs_50_gets %.2f\n", median(all))
	fmt.Printf("figure vault_page50_worst_vs_50_gets %.2f\n", worst)
}

// benchPage is the median time of a page over that of reading its tokens one by one.
func benchPage(b *testing.B, v *vault.Vault, f vault.Filter) float64 {
	var ratios []float64
	for range 5 * rounds {
		view(b, v, func(tx *vault.Tx) error {
			start := time.Now()
			page, _, err := tx.Tokens(f)
			query := time.Since(start)
			if err != nil || len(page) != f.Limit {
				b.Fatalf("%+v: a page of %d tokens, %v", f, len(page), err)
			}
			start = time.Now()
			for i := range page {
				if _, err := tx.Token(page[i].ID); err != nil {
					return err
				}
			}
			ratios = append(ratios, query.Seconds()/time.Since(start).Seconds())
			return nil
		})
	}
	return median(ratios)
}

// benchResident prints the process's own memory before and after paging through many tokens. The pages of the file that
// bbolt has mapped are the kernel's, which takes them back when it needs them; they are printed apart.
func benchResident(b *testing.B, v *vault.Vault, n int) {
	own, mapped := resident(b)
	f := vault.Filter{Limit: pageSize}
	for seen := 0; seen < min(n, pagedAtAll); {
		view(b, v, func(tx *vault.Tx) error {
			page, next, err := tx.Tokens(f)
			seen, f.After = seen+len(page), next
			return err
		})
	}
	after, mappedAfter := resident(b)
	fmt.Printf("figure vault_million_resident_mib %.1f\n", own)
	fmt.Printf("figure vault_million_resident_after_paging_mib %.1f\n", after)
	fmt.Printf("figure vault_million_mapped_mib %.1f\n", mapped)
	fmt.Printf("figure vault_million_mapped_after_paging_mib %.1f\n", mappedAfter)
}

func resident(b *testing.B) (own, mapped float64) {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib float64
		switch name, rest, _ := strings.Cut(lines.Text(), ":"); name {
		case "RssAnon":
			fmt.Sscan(rest, &kib)
			own = kib / 1024
		case "RssFile":
			fmt.Sscan(rest, &kib)
			mapped = kib / 1024
		}
	}
	return own, mapped
}
