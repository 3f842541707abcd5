package provision_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/provision"
	"tokendesk/vault"
)

func TestOrdersThatCannotBeMeant(t *testing.T) {
	b := withTokens(t, "alice", "")
	b.Runner.CheckUser = func(_ context.Context, user string) (string, error) { return user, nil }
	words, long, past, far, never := "blue", strings.Repeat("x", 2000), time.Now().Add(-time.Hour), time.Now().AddDate(400, 0, 0), time.Time{}
	many := make([]device.TokenID, 1001)
	for i := range many {
		many[i] = device.SlotToken(device.YubiKeyID(device.Serial(i+1)), 1)
	}
	for want, o := range map[string]provision.Order{
		"no token is named":                  {Action: provision.ActDisable},
		"1001 tokens are too many":           {Action: provision.ActDisable, Tokens: many},
		"is not a token":                     {Action: provision.ActDisable, Tokens: []device.TokenID{"x"}},
		"\"reseed\" is not something":        {Action: provision.ActReseed, Tokens: others[:1]},
		"\"\" is not something":              {Tokens: others[:1]},
		"there is nothing to change":         {Action: provision.ActEdit, Tokens: others[:1]},
		"are what edit changes, not disable": {Action: provision.ActDisable, Tokens: others[:1], Description: &words},
		"what edit changes, not assign":      {Action: provision.ActAssign, Tokens: others[1:2], User: "bob", Expires: &never},
		"disable takes no user":              {Action: provision.ActDisable, Tokens: others[:1], User: "bob"},
		"name the user":                      {Action: provision.ActAssign, Tokens: others[1:2]},
		"one token at a time":                {Action: provision.ActAssign, Tokens: others[:2], User: "bob"},
		"delete takes no kind of loss":       {Action: provision.ActDelete, Tokens: others[:1], Loss: vault.Lost},
		"\"\" is none":                       {Action: provision.ActCompromise, Tokens: others[:1]},
		"\"mislaid\" is none":                {Action: provision.ActCompromise, Tokens: others[:1], Loss: "mislaid"},
		"takes words":                        {Action: provision.ActCompromise, Tokens: others[:1], Loss: vault.Other},
		"the reason has 2000 bytes":          {Action: provision.ActDisable, Tokens: others[:1], Reason: long},
		"the reason contains control":        {Action: provision.ActDisable, Tokens: others[:1], Reason: "a\x1b[2J"},
		"the description has 2000 bytes":     {Action: provision.ActEdit, Tokens: others[:1], Description: &long},
		"lies in the past":                   {Action: provision.ActEdit, Tokens: others[:1], Expires: &past},
		"is too far away":                    {Action: provision.ActEdit, Tokens: others[:1], Expires: &far},
		"a token expires by itself":          {Action: provision.ActExpire, Tokens: others[:1]},
	} {
		_, _, err := b.Do(t.Context(), officer, o)
		wantRefused(t, err, want)
		if o.Action != provision.ActExpire {
			_, err = b.Prepare(t.Context(), o)
			wantRefused(t, err, want)
		}
	}
	_, _, err := b.Do(t.Context(), officer, order(provision.ActDisable, others[0], others[2]))
	if !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("one of two is unknown: %v", err)
	}
	if tok := b.token(others[0]); tok.Status != vault.Active || b.outbox() != "" {
		t.Errorf("%+v", tok)
	}
}

// All of an order or nothing, each token once, whatever the order of their names.
func TestOrderOfSeveralTokens(t *testing.T) {
	b := withTokens(t, "alice", "bob", "")
	o := order(provision.ActDisable, others[2], others[0], others[2])
	intent, err := b.Prepare(t.Context(), o)
	if err == nil || intent.Digest != "" {
		t.Errorf("without a reason: %+v, %v", intent, err)
	}
	o.Reason = "on leave"
	one, err := b.Prepare(t.Context(), o)
	other, oerr := b.Prepare(t.Context(), provision.Order{Action: provision.ActDisable, Tokens: []device.TokenID{others[0], others[2]}, Reason: "on leave"})
	if err != nil || oerr != nil || one.Digest != other.Digest || len(one.Digest) != 64 || len(one.Effects) != 2 || one.Effects[0].Token != others[0] {
		t.Errorf("%+v, %v\n%+v, %v", one, err, other, oerr)
	}
	if b.outbox() != "" {
		t.Error("preparing has changed something")
	}
	tokens, changes, err := b.Do(t.Context(), officer, o)
	if err != nil || len(tokens) != 2 || len(changes) != 2 {
		t.Fatalf("%+v, %+v, %v", tokens, changes, err)
	}
	b.wantOutbox("disable/1:alice disable/1")
	o.Tokens = others[:2]
	_, _, err = b.Do(t.Context(), officer, o)
	wantRefused(t, err, string(others[0])+" is disabled")
	if b.token(others[1]).Status != vault.Active {
		t.Error("half of a refused order was carried out")
	}
	release, err := b.Claim(others[1])
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = b.Do(t.Context(), officer, provision.Order{Action: provision.ActDelete, Tokens: others[:3], Reason: "scrapped"})
	wantRefused(t, err, "another officer's work on "+string(others[1]))
	if release(); !b.Unclaimed() {
		t.Error("a refused order keeps its claims")
	}
}

// Officers who want the same at once: one of them does it, and the others are told why not.
func TestOneTokenAtOnce(t *testing.T) {
	b := withTokens(t, "alice", "alice")
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			_, _, errs[i] = b.Do(context.Background(), officer, provision.Order{Action: provision.ActDisable, Tokens: others[i%2 : i%2+1]})
		})
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantRefused(t, err) // as another is at it, or has done it, or it is the last one now
	}
	if won != 1 || b.outbox() != "disable/1:alice" || !b.Unclaimed() {
		t.Errorf("%d have won, outbox %q", won, b.outbox())
	}
}

func TestEdit(t *testing.T) {
	b := withTokens(t, "alice")
	words, at := "the blue one", time.Now().Add(time.Hour).Round(time.Second)
	edit := func(o provision.Order) vault.Token {
		t.Helper()
		o.Action, o.Tokens, o.Reason = provision.ActEdit, others[:1], "her last day"
		if _, _, err := b.Do(t.Context(), officer, o); err != nil {
			t.Fatal(err)
		}
		return b.token(others[0])
	}
	if tok := edit(provision.Order{Description: &words, Expires: &at}); tok.Description != words || !tok.Expires.Equal(at) || tok.Owner != "alice" {
		t.Errorf("%+v", tok)
	}
	b.wantOutbox("")
	never := time.Time{}
	if tok := edit(provision.Order{Expires: &never}); tok.Description != words || !tok.Expires.IsZero() {
		t.Errorf("%+v", tok)
	}
	none := ""
	if tok := edit(provision.Order{Description: &none}); tok.Description != "" {
		t.Errorf("%+v", tok)
	}
}

// due makes the time of tokens over.
func (b *bench) due(ids ...device.TokenID) {
	b.t.Helper()
	for _, id := range ids {
		b.update(func(tx *vault.Tx) error {
			tok, err := tx.Token(id)
			tok.Expires = time.Now().Add(-time.Second)
			return errors.Join(err, tx.PutToken(tok))
		})
	}
}

func TestExpiry(t *testing.T) {
	b := withTokens(t, "alice", "bob", "", "carol")
	if n, err := b.ExpireDue(t.Context()); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	b.Policy.LastToken = true // which holds up nothing of this
	b.due(others[:3]...)
	b.update(func(tx *vault.Tx) error { return tx.PutJob(&vault.Job{Kind: "reissue", Token: others[1]}) })
	if n, err := b.ExpireDue(t.Context()); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	b.wantOutbox("disable/1:alice disable/1")
	if tok := b.token(others[0]); tok.Status != vault.Expired || tok.Owner != "alice" {
		t.Errorf("%+v", tok)
	}
	if tok := b.token(others[1]); tok.Status != vault.Active { // somebody works on it
		t.Errorf("%+v", tok)
	}
	if act := b.history(others[0])[0]; act.Officer != provision.Desk || act.Action != "expire" || act.Reason != "user alice; reason: its time is over" {
		t.Errorf("%+v", act)
	}
	if n, err := b.ExpireDue(t.Context()); n != 0 || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
	b.deliver()
	words, later := "still blue", time.Now().Add(time.Hour)
	o := order(provision.ActEdit, others[0])
	o.Description = &words
	if _, _, err := b.Do(t.Context(), officer, o); err != nil || b.token(others[0]).Status != vault.Expired || b.outbox() != "" {
		t.Errorf("%v: %+v, outbox %q", err, b.token(others[0]), b.outbox())
	}
	o.Expires = &later
	if _, _, err := b.Do(t.Context(), officer, o); err != nil || b.token(others[0]).Status != vault.Active {
		t.Errorf("%v: %+v", err, b.token(others[0]))
	}
	b.wantOutbox("enable/1:alice")
}

// Nobody enables a disabled token past its end, and it does not expire over it: more time leaves it disabled.
func TestExpiryOfADisabledToken(t *testing.T) {
	b := withTokens(t, "alice")
	if _, _, err := b.Do(t.Context(), officer, provision.Order{Action: provision.ActDisable, Tokens: others[:1], Reason: "on leave"}); err != nil {
		t.Fatal(err)
	}
	b.due(others[0])
	if n, err := b.ExpireDue(t.Context()); n != 0 || err != nil || b.token(others[0]).Status != vault.Disabled {
		t.Errorf("%d, %v: %+v", n, err, b.token(others[0]))
	}
	_, _, err := b.Do(t.Context(), officer, order(provision.ActEnable, others[0]))
	wantRefused(t, err, "ended on", "tokendesk edit "+string(others[0])+" --expires DATE")
	later := time.Now().Add(time.Hour)
	o := order(provision.ActEdit, others[0])
	o.Expires = &later
	if _, _, err := b.Do(t.Context(), officer, o); err != nil || b.token(others[0]).Status != vault.Disabled {
		t.Errorf("%v: %+v", err, b.token(others[0]))
	}
	if _, _, err := b.Do(t.Context(), officer, order(provision.ActEnable, others[0])); err != nil || b.token(others[0]).Status != vault.Active {
		t.Errorf("%v: %+v", err, b.token(others[0]))
	}
}

// A name that comes back goes on counting its seeds: the central service tells them apart by that.
func TestEnrollAfterDelete(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	if _, _, err := b.act("delete", slot2, ""); err != nil {
		t.Fatal(err)
	}
	b.wantOutbox("remove/1:alice")
	e := enrollment(slot2, "bob")
	wantRefused(t, b.enroll(t.Context(), e), "already holds something", "--overwrite")
	e.Overwrite = true // which only works with the access code of the deleted token
	if err := b.enroll(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	b.wantOutbox("remove/1:alice put/2 assign/2:bob")
	b.wantOnly(slot2, "bob")

	if _, err := b.Wipe(t.Context(), officer, slot2, "scrapped", b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantBuried(slot2, vault.Tombstone{Generation: 2, Owner: "bob", Status: vault.Active, Officer: officer.Name, Reason: "scrapped"})
	b.fault(emulator.FaultUnplugAfterWrite, 0)
	b.wantUnfinished(b.enroll(t.Context(), enrollment(slot2, "carol")), slot2, "program", device.ErrGone)
	b.key.Insert()
	if err := b.Undo(t.Context(), officer, slot2, b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantBuried(slot2, vault.Tombstone{Generation: 3, Owner: "bob", Status: vault.Active, Officer: officer.Name, Reason: "scrapped"})
	b.enrolled(slot2, "dave")
	if tok := b.token(slot2); tok.Generation != 4 {
		t.Errorf("%+v", tok)
	}
	b.wantOnDevice(slot2)
}

// What is stuck can always be ended, with or without the key.
func TestUnfinishedWorkIsEnded(t *testing.T) {
	for name, c := range map[string]struct {
		begin  func(b *bench) error
		owner  string
		step   string
		grave  int
		seeds  int // that a compromise leaves
		outbox string
	}{
		"enroll":  {func(b *bench) error { return b.enroll(b.t.Context(), enrollment(slot2, "alice")) }, "", "program", 1, 1, ""},
		"reseed":  {func(b *bench) error { _, err := b.Reseed(b.t.Context(), officer, slot2, "", b.tell); return err }, "alice", "program", 2, 2, ""},
		"reissue": {func(b *bench) error { return b.reissue(b.t.Context(), slot2, "bob") }, "", "program", 2, 2, "unassign/1:alice "},
		"wipe": {func(b *bench) error {
			_, err := b.Wipe(b.t.Context(), officer, slot2, "scrapped", b.tell)
			return err
		}, "", "erase", 1, 1, "unassign/1:alice "},
	} {
		stuck := func(t *testing.T) *bench {
			b := newBench(t)
			if name != "enroll" {
				b.enrolled(slot2, "alice")
				b.deliver()
			}
			b.fault(emulator.FaultUnplugAfterWrite, 0)
			b.wantUnfinished(c.begin(b), slot2, c.step, device.ErrGone)
			if tok := b.token(slot2); tok.Owner != c.owner {
				t.Errorf("%+v", tok)
			}
			return b
		}
		about := func(b *bench) string {
			if t := b.token(slot2); t.Owner != "" {
				return ":" + t.Owner
			}
			return ""
		}
		t.Run(name+"/delete", func(t *testing.T) {
			b := stuck(t)
			want := c.outbox + "remove/" + string('0'+byte(b.token(slot2).Generation)) + about(b)
			if _, _, err := b.act("delete", slot2, ""); err != nil {
				t.Fatal(err)
			}
			if _, found := b.job(slot2); found || b.exists(slot2) {
				t.Error("something is left")
			}
			b.view(func(tx *vault.Tx) error {
				grave, ok, err := tx.Tombstone(slot2)
				if !ok || grave.Generation != c.grave {
					t.Errorf("%+v", grave)
				}
				return err
			})
			b.wantOutbox(want)
		})
		t.Run(name+"/compromise", func(t *testing.T) {
			b := stuck(t)
			if _, _, err := b.act("compromise", slot2, ""); err != nil {
				t.Fatal(err)
			}
			tok := b.token(slot2)
			if _, found := b.job(slot2); found || tok.Status != vault.Compromised || tok.Loss.Owner != c.owner {
				t.Errorf("%+v", tok)
			}
			b.view(func(tx *vault.Tx) error {
				seeds, err := tx.Generations(slot2)
				if len(seeds) != c.seeds {
					t.Errorf("seeds %v", seeds)
				}
				return err
			})
			b.key.Insert()
			wantRefused(t, b.enroll(t.Context(), enrollment(slot2, "bob")), "is compromised (stolen)", "tokendesk delete")
			before := b.outbox()
			if _, err := b.Wipe(t.Context(), officer, slot2, "", b.tell); err != nil {
				t.Fatal(err)
			}
			if tok := b.token(slot2); tok.Status != vault.Compromised || time.Since(tok.Wiped) > time.Minute || b.configured(slot2) || b.outbox() != before {
				t.Errorf("%+v, outbox %q", tok, b.outbox())
			}
		})
	}
}

func TestReseedRefusals(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	if _, _, err := b.act("disable", slot2, ""); err != nil {
		t.Fatal(err)
	}
	_, err := b.Reseed(t.Context(), officer, slot2, "", b.tell)
	wantRefused(t, err, "is disabled; only an active token can be reseeded", "tokendesk enable")
	if _, _, err := b.act("enable", slot2, ""); err != nil {
		t.Fatal(err)
	}
	b.key.Remove()
	if _, err := b.Reseed(t.Context(), officer, slot2, "", b.tell); !errors.Is(err, device.ErrGone) {
		t.Errorf("%v", err)
	}
	if _, err := b.Wipe(t.Context(), officer, slot2, "lost it", b.tell); !errors.Is(err, device.ErrGone) || !strings.Contains(err.Error(), "tokendesk delete "+string(slot2)) {
		t.Errorf("%v", err)
	}
	if _, err := b.Reseed(t.Context(), officer, slot1, "", b.tell); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("%v", err)
	}
	b.key.Insert()
	for name, begin := range map[string]func() error{
		"reseed": func() error { _, err := b.Reseed(t.Context(), officer, slot2, "", b.tell); return err },
		"wipe":   func() error { _, err := b.Wipe(t.Context(), officer, slot2, "scrapped", b.tell); return err },
	} {
		b.fault(emulator.FaultUnplugAtChunk, 2)
		if err := begin(); !errors.Is(err, device.ErrGone) {
			t.Fatalf("%s: %v", name, err)
		}
		b.key.Insert()
		wantRefused(t, b.Undo(t.Context(), officer, slot2, b.tell), "this "+name+" cannot be undone", "tokendesk resolve "+string(slot2))
		b.resolve(slot2)
		if name == "wipe" {
			b.enrolled(slot2, "alice")
		}
	}
}
