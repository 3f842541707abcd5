package syncer_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

var resynced = flag.Int("resynced", 10_000, "how many lines BenchmarkResyncBatch compares with bare commits")

const batchRounds = 15

// commitOf is in which transaction of a batch a line is: the first one has 250, the second 500, and all others 1000.
func commitOf(line int) int {
	switch {
	case line < 250:
		return 0
	case line < 750:
		return 1
	}
	return 2 + (line-750)/1000
}

// BenchmarkResyncBatch compares a batch, from the lines to the results, with a loop that puts the very same keys and values of the very
// same sizes into a copy of the file in as many transactions, and nothing else: no search, no reading, no keys, no JSON. They take turns.
func BenchmarkResyncBatch(b *testing.B) {
	d := newBenchDesk(b, *resynced)
	o := syncer.NewOutbox(d.v, nil, slog.New(slog.DiscardHandler), syncer.Backoff{})
	var ratios, desk, bare []float64
	for b.Loop() {
		for range batchRounds {
			lines := drift(b, d.v, *resynced)
			before := copyFile(b, d.v.Path())
			runtime.GC()
			start := time.Now()
			results, err := o.ResyncBatch(b.Context(), officer, lines, nil, nil)
			mine := time.Since(start)
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range results {
				if r.Err != nil {
					b.Fatal(r.Err)
				}
			}
			commits := putsOf(b, before, copyFile(b, d.v.Path()), lines)
			emptyOutbox(b, d)
			runtime.GC()
			its := replayCommits(b, before, commits)
			desk, bare, ratios = append(desk, mine.Seconds()), append(bare, its.Seconds()), append(ratios, mine.Seconds()/its.Seconds())
		}
	}
	for _, list := range [][]float64{ratios, desk, bare} {
		slices.Sort(list)
	}
	fmt.Printf("ratio resync_batch_10k_vs_commits %.2f\n", ratios[len(ratios)/2])
	fmt.Printf("figure resync_batch_10k_ms %.0f\n", desk[len(desk)/2]*1000)
	fmt.Printf("figure resync_batch_10k_commits_ms %.0f\n", bare[len(bare)/2]*1000)
}

// drift says what the tokens of a bench desk show after somebody has touched each up to 998 times, in no order.
func drift(b *testing.B, v *vault.Vault, n int) (lines []syncer.BatchLine) {
	b.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range n {
		id := numbered(i)
		var t vault.Token
		var seed secret.Secret
		if err := v.View(func(tx *vault.Tx) (err error) {
			if t, err = tx.Token(id); err == nil {
				seed, err = tx.Seed(id, 1)
			}
			return err
		}); err != nil {
			b.Fatal(err)
		}
		at := t.Counter + rng.Uint64N(syncer.ResyncWindow-1)
		lines = append(lines, syncer.BatchLine{Line: i + 1, Token: id, Codes: []string{hotpscan.Code(seed, 6, at), hotpscan.Code(seed, 6, at+1)}})
		seed.Wipe()
	}
	rng.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	return lines
}

func copyFile(b *testing.B, path string) string {
	b.Helper()
	from, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	to, err := os.CreateTemp(filepath.Dir(path), "copy")
	if err != nil {
		b.Fatal(err)
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		b.Fatal(err)
	}
	if err := to.Sync(); err != nil { // what was not written yet is not to be in anybody's time
		b.Fatal(err)
	}
	return to.Name()
}

// emptyOutbox takes everything out of the outbox, as if it were delivered.
func emptyOutbox(b *testing.B, d *benchDesk) {
	b.Helper()
	for d.left(b) > 0 {
		d.update(b, func(tx *vault.Tx) error {
			changes, err := tx.ChangesFrom(0, 5000)
			for _, c := range changes {
				err = errors.Join(err, tx.DeleteChange(c.Seq))
			}
			return err
		})
	}
}

type put struct {
	bucket   string
	key, val []byte
	turn     int // puts of a transaction are made in this order
}

// turns is in which order a batch puts what: all tokens; for each line the change, and the index's entry of that; for each line the
// act, and the index's entry of that; at last the ledger.
var turns = map[string]int{"tokens": 0, "outbox": 1 << 28, "index c": 1<<28 + 1, "audit": 1 << 30, "index h": 1<<30 + 1, "meta": 1 << 40}

// putsOf is what the transactions of a batch have put: what a file holds after it that it did not hold before, by transaction. Tokens
// belong to that of their line, and are put in the order of their names; everything else has a number. The later file is removed.
func putsOf(b *testing.B, before, after string, lines []syncer.BatchLine) [][]put {
	b.Helper()
	defer os.Remove(after)
	line := map[string]int{}
	for i, l := range lines {
		line[string(l.Token)] = i
	}
	commits := make([][]put, commitOf(len(lines)-1)+1)
	tokens, firstOf := make([]int, len(commits)), make([]int, len(commits)) // so many of a transaction, and its first line
	for i := range lines {
		if i > 0 && commitOf(i) > commitOf(i-1) {
			firstOf[commitOf(i)] = i
		}
	}
	old, now := openBare(b, before), openBare(b, after)
	defer old.Close()
	defer now.Close()
	err := old.View(func(was *bbolt.Tx) error {
		return now.View(func(is *bbolt.Tx) error {
			return is.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
				numbered := map[byte][]put{} // of the index, each kind has its own
				had := was.Bucket(name)
				err := bucket.ForEach(func(k, v []byte) error {
					if e := had.Get(k); e != nil && bytes.Equal(e, v) {
						return nil
					}
					p := put{string(name), bytes.Clone(k), bytes.Clone(v), turns[string(name)]}
					switch i, ok := line[string(k)]; {
					case ok:
						p.turn += 3 * (firstOf[commitOf(i)] + tokens[commitOf(i)])
						tokens[commitOf(i)]++
						commits[commitOf(i)] = append(commits[commitOf(i)], p)
					case string(name) == "meta": // the ledger, which each writes
						for c := range commits {
							commits[c] = append(commits[c], p)
						}
					default:
						numbered[k[0]] = append(numbered[k[0]], p)
					}
					return nil
				})
				for _, list := range numbered {
					slices.SortFunc(list, func(p, q put) int { return bytes.Compare(tail(p.key), tail(q.key)) })
					if len(list) != len(lines) {
						return fmt.Errorf("%s has %d new entries", name, len(list))
					}
					for i, p := range list {
						if p.bucket == "index" {
							p.turn = turns["index "+string(p.key[:1])]
						}
						p.turn += 3 * i
						commits[commitOf(i)] = append(commits[commitOf(i)], p)
					}
				}
				return err
			})
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range commits {
		slices.SortFunc(c, func(p, q put) int { return p.turn - q.turn })
	}
	return commits
}

// tail is the number that a key ends with.
func tail(key []byte) []byte {
	if len(key) < 8 {
		return binary.BigEndian.AppendUint64(nil, 0)
	}
	return key[len(key)-8:]
}

func openBare(b *testing.B, path string) *bbolt.DB {
	b.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 4096, FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		b.Fatal(err)
	}
	return db
}

// replayCommits puts everything into a file, which it removes.
func replayCommits(b *testing.B, path string, commits [][]put) time.Duration {
	b.Helper()
	db := openBare(b, path)
	defer os.Remove(path)
	defer db.Close()
	start := time.Now()
	for _, c := range commits {
		err := db.Update(func(tx *bbolt.Tx) error {
			buckets := map[string]*bbolt.Bucket{}
			for _, p := range c {
				bucket := buckets[p.bucket]
				if bucket == nil {
					bucket = tx.Bucket([]byte(p.bucket))
					bucket.FillPercent = 0.9
					buckets[p.bucket] = bucket
				}
				if err := bucket.Put(p.key, p.val); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start)
}
