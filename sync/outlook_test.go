package syncer_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/vaulttest"
)

func (f *office) show(seq uint64) syncer.Outlook {
	f.Helper()
	out, err := f.o.Show(seq)
	if err != nil {
		f.Fatal(err)
	}
	return out
}

// wantOutlook checks a change's state and, in order, its holds: "earlier 3".
func (f *office) wantOutlook(seq uint64, state syncer.State, holds ...string) {
	f.Helper()
	out := f.show(seq)
	var got []string
	for _, h := range out.Holds {
		got = append(got, strings.TrimSuffix(fmt.Sprintf("%s %d", h.Kind, h.Seq), " 0"))
	}
	if out.Change.Seq != seq || out.State != state || !slices.Equal(got, holds) {
		f.Errorf("change %d is %s, held by %q, want %s, %q", seq, out.State, got, state, holds)
	}
}

func TestOutlook(t *testing.T) {
	f := open(t, syncer.Backoff{Min: time.Hour, Max: time.Hour})
	f.enroll(tokenA, 1, 0)
	f.enroll(tokenB, 1, 0)
	put := f.enqueue(vault.Put, tokenA, "", 1, 0) // 1
	given := f.assign(tokenA, "nobody")           // 2
	f.enqueue(vault.Put, tokenB, "", 1, 0)        // 3
	f.wantOutlook(put, syncer.Ready)
	f.wantOutlook(given, syncer.Held, "earlier 1")
	f.deliver()
	f.wantOutlook(given, syncer.Parked, "parked")
	if h := f.show(given).Holds[0]; h.By != (audit.Officer{}) || !strings.Contains(h.Reason, "nobody") || !strings.Contains(h.String(), "the desk parked it") {
		t.Errorf("%+v: %s", h, h)
	}
	if err := f.o.Park(officer, given, "HR asks who that is"); err != nil {
		t.Fatal(err)
	}
	if h := f.show(given).Holds[0]; h.By != officer || h.String() != "olga parked it: HR asks who that is" {
		t.Errorf("%+v: %s", h, h)
	}

	f.gate.Judge(func(op uint8) synctest.Verdict {
		if op == ldap.ApplicationModifyRequest || op == ldap.ApplicationAddRequest {
			return synctest.Busy
		}
		return synctest.Pass
	})
	cut := f.unassign(tokenA)                           // 4
	again := f.assign(tokenA, "alice")                  // 5
	moved := f.enqueue(vault.Advance, tokenB, "", 1, 5) // 6
	var leaves vault.Change
	f.update(func(tx *vault.Tx) (err error) { // alice has had another token, it is said
		leaves, err = tx.Enqueue(vault.Change{Kind: vault.Disable, Token: tokenA, User: "Alice", Generation: 1, Digits: 6})
		return err
	})
	toAlice := f.assign(tokenB, "alice") // 8
	before := time.Now()
	f.deliver()
	f.wantLeft(cut, again, moved, leaves.Seq, toAlice) // what the typo asked for is dropped
	for _, seq := range []uint64{cut, moved, leaves.Seq} {
		f.wantOutlook(seq, syncer.Paused, "pause")
	}
	f.wantOutlook(again, syncer.Held, "earlier 4")
	f.wantOutlook(toAlice, syncer.Held, "earlier 6", "cut-off 7")
	h := f.show(cut).Holds[0]
	if wait := h.Until.Sub(before); wait < 30*time.Minute || wait > time.Hour+time.Minute || !strings.Contains(h.Reason, "busy") || !strings.Contains(h.String(), "busy") {
		t.Errorf("%+v: %s", h, h)
	}
	f.unassign(tokenB)
	if out := f.show(toAlice); !strings.Contains(out.Obsolete, "no longer") {
		t.Errorf("nothing says that it will be dropped: %+v", out)
	}
	if _, err := f.o.Show(99); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
}

// While the service itself does not answer, that is said of all changes, whether they were tried or not.
func TestOutlookOfAnOutage(t *testing.T) {
	f := open(t, syncer.Backoff{Min: time.Hour, Max: time.Hour})
	var seqs []uint64
	for i := range 6 {
		id := numbered(i)
		f.enroll(id, 1, 0)
		seqs = append(seqs, f.enqueue(vault.Put, id, "", 1, 0))
	}
	f.slapd.Stop()
	f.deliver()
	f.wantOutlook(seqs[0], syncer.Paused, "pause", "outage")
	f.wantOutlook(seqs[5], syncer.Ready, "outage")
	if h := f.show(seqs[5]).Holds[0]; h.Reason == "" || h.Until.IsZero() || !strings.Contains(h.String(), "the central service is asked again at") {
		t.Errorf("%+v: %s", h, h)
	}
	tried := 0
	for _, c := range f.changes() {
		tried += c.Attempts
	}
	if tried != 3 {
		t.Errorf("%d attempts to find out that nobody answers", tried)
	}
	if err := f.slapd.Start(); err != nil {
		t.Fatal(err)
	}
	f.deliver()
	f.wantLeft()

	g := &office{T: t, v: vaulttest.New(t), log: &record{}}
	g.o = syncer.NewOutbox(g.v, nil, slog.New(g.log.handler()), quick)
	g.enroll(tokenA, 1, 0)
	g.wantOutlook(g.enqueue(vault.Put, tokenA, "", 1, 0), syncer.Ready, "no-service")
}

func TestList(t *testing.T) {
	defer syncer.ListFewer(3)()
	f := &office{T: t, v: vaulttest.New(t), log: &record{}}
	f.o = syncer.NewOutbox(f.v, nil, slog.New(f.log.handler()), quick)
	for i := range 4 {
		id := numbered(i)
		f.enroll(id, 1, 0)
		f.enqueue(vault.Put, id, "", 1, 0)
		f.assign(id, fmt.Sprintf("user%d", i))
		f.disable(id)
	}
	if err := f.o.Park(officer, 2, "later"); err != nil {
		t.Fatal(err)
	}
	list := func(filter syncer.Filter) (seqs []uint64) {
		t.Helper()
		for range 20 {
			page, next, err := f.o.List(filter)
			if err != nil {
				t.Fatal(err)
			}
			if filter.Limit > 0 && len(page) > filter.Limit {
				t.Errorf("%+v: a page of %d", filter, len(page))
			}
			for _, out := range page {
				seqs = append(seqs, out.Change.Seq)
			}
			if next == 0 {
				return seqs
			}
			if next <= filter.After {
				t.Fatalf("%+v: the next page begins after %d", filter, next)
			}
			filter.After = next
		}
		t.Fatalf("%+v has no end", filter)
		return nil
	}
	for _, c := range []struct {
		filter syncer.Filter
		want   []uint64
	}{
		{syncer.Filter{}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{syncer.Filter{Limit: 2}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{syncer.Filter{Limit: 12}, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{syncer.Filter{CutOffs: true, Limit: 3}, []uint64{3, 6, 9, 12}},
		{syncer.Filter{Token: numbered(2)}, []uint64{7, 8, 9}},
		{syncer.Filter{Token: numbered(2), CutOffs: true}, []uint64{9}},
		{syncer.Filter{Token: "yk-9/otp1"}, nil},
		{syncer.Filter{User: "USER1"}, []uint64{5, 6}},
		{syncer.Filter{User: "user3", CutOffs: true}, []uint64{12}},
		{syncer.Filter{State: syncer.Parked}, []uint64{2}},
		{syncer.Filter{State: syncer.Parked, CutOffs: true}, nil},
		{syncer.Filter{State: syncer.Held}, []uint64{5, 8, 11}},
		{syncer.Filter{State: syncer.Ready, Limit: 1}, []uint64{1, 3, 4, 6, 7, 9, 10, 12}},
		{syncer.Filter{State: syncer.Paused}, nil},
		{syncer.Filter{State: syncer.Waiting, Token: numbered(0)}, []uint64{1, 3}},
		{syncer.Filter{After: 10}, []uint64{11, 12}},
	} {
		if got := list(c.filter); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %d, want %d", c.filter, got, c.want)
		}
	}
}
