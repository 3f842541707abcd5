package syncer_test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

var (
	drained = flag.Int("drained", 10_000, "how many changes BenchmarkDrain compares with bare LDAP operations")
	waiting = flag.Int("waiting", 100_000, "with how many changes that wait BenchmarkDrain measures memory")
)

const (
	perToken = 4  // changes: put, assign, two moves of the counter
	chunks   = 20 // in which desk and bare loop take turns
)

func BenchmarkDrain(b *testing.B) {
	b.Run("Bare", benchBare)
	b.Run("Memory", benchMemory)
}

// benchBare compares the outbox with a loop that does the very same operations over one connection, one after the other,
// and nothing else: no vault, no reading of answers. What these are is recorded first. Each has a directory of its own, and they
// take turns, so that what else the machine does is the same for both.
func benchBare(b *testing.B) {
	tokens := *drained / perToken
	d := newBenchDesk(b, tokens)
	recorded, replayed, own := startCrowded(b, tokens), startCrowded(b, tokens), startCrowded(b, tokens)
	r := record1(b, recorded, d)
	bare := dialBare(b, replayed)
	d.outbox = syncer.NewOutbox(d.v, d.connect(b, own, own.URL), slog.New(slog.DiscardHandler), syncer.Backoff{})
	var ratios []float64
	var desk, loop time.Duration
	for b.Loop() {
		for i := range chunks {
			part := d.changes[i*len(d.changes)/chunks : (i+1)*len(d.changes)/chunks]
			d.enqueue(b, part)
			start := time.Now()
			if _, err := d.outbox.Pass(b.Context()); err != nil {
				b.Fatal(err)
			}
			mine := time.Since(start)
			if left := d.left(b); left > 0 {
				b.Fatalf("%d changes are left", left)
			}
			start = time.Now()
			for _, c := range part {
				if err := bare.replay(r[c.Seq]); err != nil {
					b.Fatalf("%s of %s: %v", c.Kind, c.Token, err)
				}
			}
			its := time.Since(start)
			desk, loop = desk+mine, loop+its
			ratios = append(ratios, its.Seconds()/mine.Seconds())
		}
	}
	operations := 0
	for _, list := range r {
		operations += len(list)
	}
	slices.Sort(ratios)
	fmt.Printf("ratio outbox_drain_vs_bare_ldap %.2f\n", ratios[len(ratios)/2])
	fmt.Printf("figure outbox_drain_per_s %.0f\n", float64(len(d.changes))/desk.Seconds())
	fmt.Printf("figure outbox_bare_ldap_per_s %.0f\n", float64(len(d.changes))/loop.Seconds())
	fmt.Printf("figure outbox_ops_per_change %.2f\n", float64(operations)/float64(len(r)))
}

// benchDesk is a vault with tokens that all have an owner, and the changes that tell of them.
type benchDesk struct {
	v       *vault.Vault
	changes []vault.Change
	outbox  *syncer.Outbox
}

func newBenchDesk(b *testing.B, tokens int) *benchDesk {
	b.Helper()
	d := &benchDesk{v: vaulttest.New(b)}
	for from := 0; from < tokens; from += 500 {
		d.update(b, func(tx *vault.Tx) error {
			for i := from; i < min(tokens, from+500); i++ {
				id, seed := numbered(i), secret.Random(20)
				err := errors.Join(tx.SetSeed(id, 1, seed), tx.PutToken(vault.Token{ID: id, Status: vault.Active, Owner: crowdUser(i), Digits: 6, Generation: 1, Counter: 40}))
				seed.Wipe()
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for from := 0; from < tokens; from += 100 { // the changes of one token stand apart, as they do in life
		for _, c := range []vault.Change{{Kind: vault.Put}, {Kind: vault.Assign}, {Kind: vault.Advance, Counter: 20}, {Kind: vault.Advance, Counter: 40}} {
			for i := from; i < min(tokens, from+100); i++ {
				c.Seq, c.Token, c.User, c.Generation, c.Digits = uint64(len(d.changes)+1), numbered(i), crowdUser(i), 1, 6
				d.changes = append(d.changes, c)
			}
		}
	}
	return d
}

func crowdUser(i int) string { return fmt.Sprintf("user%06d", i) }

func (d *benchDesk) update(b *testing.B, fn func(*vault.Tx) error) {
	b.Helper()
	if err := d.v.Update(fn); err != nil {
		b.Fatal(err)
	}
}

func (d *benchDesk) enqueue(b *testing.B, changes []vault.Change) {
	b.Helper()
	d.update(b, func(tx *vault.Tx) error {
		for _, c := range changes {
			if got, err := tx.Enqueue(c); err != nil || got.Seq != c.Seq {
				return fmt.Errorf("change %d is %d: %w", c.Seq, got.Seq, err)
			}
		}
		return nil
	})
}

func (d *benchDesk) left(b *testing.B) (n int) {
	b.Helper()
	if err := d.v.View(func(tx *vault.Tx) error { n = tx.Counts().Waiting; return nil }); err != nil {
		b.Fatal(err)
	}
	return n
}

func (d *benchDesk) connect(b *testing.B, s *synctest.Slapd, url string) *openldap.Connector {
	b.Helper()
	c, err := openldap.New(openldap.Config{URLs: []string{url}, BindDN: s.BindDN, Password: secret.New([]byte(s.Password)),
		PeopleBase: synctest.PeopleBase, TokensBase: synctest.TokensBase, Params: map[int]string{6: synctest.Params6}, Desk: d.v.ID()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// startCrowded runs a directory with many users.
func startCrowded(b *testing.B, users int) *synctest.Slapd {
	b.Helper()
	s, err := synctest.StartSlapd(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Stop)
	err = s.AsAdmin(func(c *ldap.Conn) error {
		for i := range users {
			a := ldap.NewAddRequest("uid="+crowdUser(i)+","+synctest.PeopleBase, nil)
			a.Attribute("objectClass", []string{"inetOrgPerson"})
			a.Attribute("cn", []string{crowdUser(i)})
			a.Attribute("sn", []string{crowdUser(i)})
			if err := c.Add(a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// benchMemory drains many changes of few tokens and prints by how much the process has grown at its largest. The pages of the
// vault's file that bbolt has mapped are the kernel's, which takes them back when it needs them; they are printed apart.
func benchMemory(b *testing.B) {
	const tokens = 2000
	d := newBenchDesk(b, tokens)
	s := startCrowded(b, tokens)
	d.outbox = syncer.NewOutbox(d.v, d.connect(b, s, s.URL), slog.New(slog.NewJSONHandler(io.Discard, nil)), syncer.Backoff{})
	most := *waiting
	changes := d.changes
	d.changes = nil
	for counter, seq := uint64(41), uint64(len(changes)); len(changes) < most; counter++ {
		for i := 0; i < tokens && len(changes) < most; i++ {
			seq++
			changes = append(changes, vault.Change{Seq: seq, Kind: vault.Advance, Token: numbered(i), User: crowdUser(i), Generation: 1, Counter: counter, Digits: 6})
		}
	}
	for from := 0; from < most; from += 5000 {
		d.enqueue(b, changes[from:min(most, from+5000)])
	}
	changes = nil
	for b.Loop() {
		ownBefore, mappedBefore := residentNow(b, true)
		stop, peaks := make(chan struct{}), make(chan [2]float64, 1)
		go func() { peaks <- watchMemory(b, stop) }()
		start := time.Now()
		if _, err := d.outbox.Pass(b.Context()); err != nil {
			b.Error(err)
		}
		took := time.Since(start)
		close(stop)
		peak := <-peaks
		if left := d.left(b); left > 0 {
			b.Fatalf("%d changes are left", left)
		}
		fmt.Printf("figure outbox_drain_100k_rss_growth_mib %.1f\n", peak[0]-ownBefore)
		fmt.Printf("figure outbox_drain_100k_mapped_growth_mib %.1f\n", peak[1]-mappedBefore)
		fmt.Printf("figure outbox_drain_100k_per_s %.0f\n", float64(most)/took.Seconds())
	}
}

// watchMemory samples memory until stop, and returns the largest of its own and of what is mapped.
func watchMemory(b *testing.B, stop <-chan struct{}) (peak [2]float64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		own, mapped := residentNow(b, false)
		peak[0], peak[1] = max(peak[0], own), max(peak[1], mapped)
		select {
		case <-stop:
			return peak
		case <-tick.C:
		}
	}
}

// residentNow is the process's own resident memory and that of files it has mapped, in MiB.
func residentNow(b *testing.B, tidy bool) (own, mapped float64) {
	if tidy {
		debug.FreeOSMemory()
	}
	f, err := os.Open("/proc/self/status")
	if err != nil {
		b.Error(err)
		return 0, 0
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
