package synctest

import (
	"errors"
	"fmt"
	"testing"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// readingCases are about reading everything there is.
var readingCases = []conformanceCase{
	{"EmptyInventory", emptyInventory},
	{"Inventory", inventory},
	{"ReadingStops", readingStops},
	{"UnknownProvider", unknownProvider},
}

const (
	crowd    = 1100 // more than anybody reads at once
	few      = 10   // behind a Flaky: a reading of many never comes to its end
	pageSize = 1000 // no page is larger, however many tokens there are
)

// counters reads all of one provider's.
func (d *desk) counters(provider int) map[string]syncer.Reading {
	d.t.Helper()
	all := make(map[string]syncer.Reading)
	err := d.c.Counters(d.t.Context(), d.c.Providers()[provider], func(page []syncer.Reading) error {
		for _, r := range page {
			if _, twice := all[r.Central]; twice {
				return fmt.Errorf("%s comes twice", r.Central)
			}
			all[r.Central] = r
		}
		return fits(len(page))
	})
	if err != nil {
		d.t.Fatalf("counters of provider %d: %v", provider, err)
	}
	return all
}

func (d *desk) reading(provider int, central string) syncer.Reading {
	d.t.Helper()
	r, ok := d.counters(provider)[central]
	if !ok {
		d.t.Fatalf("%s is not among provider %d's", central, provider)
	}
	return r
}

func (d *desk) entries(provider int) map[string]syncer.Entry {
	d.t.Helper()
	all := make(map[string]syncer.Entry)
	err := d.c.Inventory(d.t.Context(), d.c.Providers()[provider], func(page []syncer.Entry) error {
		for _, e := range page {
			if _, twice := all[e.Central]; twice {
				return fmt.Errorf("%s comes twice", e.Central)
			}
			all[e.Central] = e
		}
		return fits(len(page))
	})
	if err != nil {
		d.t.Fatalf("inventory of provider %d: %v", provider, err)
	}
	return all
}

func fits(n int) error {
	if n > pageSize {
		return fmt.Errorf("a page of %d tokens", n)
	}
	return nil
}

func emptyInventory(t *testing.T, d *desk) {
	for provider := range d.service.Providers() {
		if c, e := d.counters(provider), d.entries(provider); len(c) != 0 || len(e) != 0 {
			t.Errorf("an empty service has %v and %v", c, e)
		}
	}
}

// inventory has tokens in every state among many of somebody else's.
func inventory(t *testing.T, d *desk) {
	others := crowd
	if d.behindFlaky() {
		others = few
	}
	foreign, err := d.service.Crowd(others)
	if err != nil {
		t.Fatal(err)
	}
	tokens := []*desk{d.another("yk-1/otp1"), d.another("yk-2/otp2"), d.another("yk-3/otp1"), d.another("yk-4/otp2"), d.another("yk-5/otp1")}
	stock, alices, disabled, reseeded, freed := tokens[0], tokens[1], tokens[2], tokens[3], tokens[4]
	stock.apply(vault.Put, "", 3)
	alices.apply(vault.Put, "", 0)
	alices.apply(vault.Assign, "alice", 0)
	alices.accepts("alice", 6)
	disabled.apply(vault.Put, "", 9)
	disabled.apply(vault.Assign, "bob", 9)
	disabled.apply(vault.Disable, "bob", 9)
	reseeded.apply(vault.Put, "", 70)
	reseeded.seed, reseeded.generation = secret.Random(20), 2
	reseeded.apply(vault.Put, "", 2)
	freed.apply(vault.Put, "", 0)
	freed.apply(vault.Assign, "carol", 0)
	freed.apply(vault.Unassign, "carol", 0)
	d.settle()
	for provider := range d.service.Providers() {
		counters, entries := d.counters(provider), d.entries(provider)
		if want := len(foreign) + len(tokens); len(counters) != want || len(entries) != want {
			t.Fatalf("provider %d shows %d counters and %d entries, want %d", provider, len(counters), len(entries), want)
		}
		for central, e := range entries {
			if e.Reading != counters[central] {
				t.Fatalf("provider %d: %+v, and %+v", provider, e.Reading, counters[central])
			}
		}
		for _, own := range tokens {
			own.agrees(provider, entries[own.token.Central()])
		}
		for i, central := range foreign {
			e, want := entries[central], int64(i)
			if d.c.Capabilities().Stores == syncer.LastCounter {
				want++
			}
			if e.Ours || e.Generation != 0 || int64(e.Counter) != want || e.Owner != "" {
				t.Fatalf("somebody else's token is %+v, want counter %d", e, want)
			}
		}
	}
}

// agrees compares an entry with what the service shows of the token together.
func (d *desk) agrees(provider int, e syncer.Entry) {
	d.t.Helper()
	seen := d.observe()
	if !e.Ours || e.Generation != d.generation {
		d.t.Errorf("%s is %+v, want it to be this desk's, generation %d", d.token, e, d.generation)
	}
	counter := uint64(d.next(provider)) // a login is known where it was
	got := syncer.Observation{Exists: true, Counter: e.Counter, Owner: e.Owner, Enabled: e.Enabled}
	want := syncer.Observation{Exists: true, Counter: counter, Owner: seen.Owner, Enabled: seen.Enabled}
	if got != want || seen.Counter < counter {
		d.t.Errorf("%s at provider %d is %+v, want %+v, and Observe shows %+v", d.token, provider, got, want, seen)
	}
}

var errEnough = errors.New("enough")

func readingStops(t *testing.T, d *desk) {
	d.apply(vault.Put, "", 0)
	other := d.another(device.TokenID("yk-2/otp1"))
	other.apply(vault.Put, "", 0)
	provider, pages := d.c.Providers()[0], 0
	err := d.c.Counters(t.Context(), provider, func([]syncer.Reading) error { pages++; return errEnough })
	if !errors.Is(err, errEnough) || pages != 1 {
		t.Errorf("counters went on: %v after %d pages", err, pages)
	}
	pages = 0
	err = d.c.Inventory(t.Context(), provider, func([]syncer.Entry) error { pages++; return errEnough })
	if !errors.Is(err, errEnough) || pages != 1 {
		t.Errorf("the inventory went on: %v after %d pages", err, pages)
	}
	d.expect(syncer.Observation{Exists: true}) // and all is well afterwards
}

func unknownProvider(t *testing.T, d *desk) {
	page := func(n int) error { t.Errorf("a provider that there is not shows %d tokens", n); return nil }
	if err := d.c.Counters(t.Context(), "nowhere", func(p []syncer.Reading) error { return page(len(p)) }); err == nil {
		t.Error("counters of a provider that there is not: no error")
	}
	if err := d.c.Inventory(t.Context(), "nowhere", func(p []syncer.Entry) error { return page(len(p)) }); err == nil {
		t.Error("inventory of a provider that there is not: no error")
	}
}
