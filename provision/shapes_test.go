package provision_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// handovers of a token, the newest first.
func (b *bench) handovers(id device.TokenID) (all []vault.Handover) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) (err error) { all, err = tx.HandoversOf(id, 0, 0); return err })
	return all
}

// wantHandover compares the newest handover of a token with what is wanted, but for what the vault sets.
func (b *bench) wantHandover(id device.TokenID, want vault.Handover) {
	b.t.Helper()
	all := b.handovers(id)
	if len(all) == 0 {
		b.t.Fatalf("%s was never handed over", id)
	}
	got := all[0]
	if want.Officer.Name == "" {
		want.Officer = officer
	}
	want.ID, want.Time, want.Act = got.ID, got.Time, got.Act
	if want.Token == "" {
		want.Token = id
	}
	want.Serial, _ = want.Token.Device().Serial()
	if !reflect.DeepEqual(got, want) {
		b.t.Errorf("handed over:\n%+v, want\n%+v", got, want)
	}
	act := b.history(want.Token)[0]
	if got.Act != act.Seq || got.Time.IsZero() || got.ID == 0 {
		b.t.Errorf("%+v is not told by %+v", got, act)
	}
}

func (b *bench) reissue(ctx context.Context, id device.TokenID, user string) error {
	_, err := b.Reissue(ctx, officer, provision.Reissue{Token: id, User: user}, b.tell)
	return err
}

func (b *bench) resolve(id device.TokenID) {
	b.t.Helper()
	_, err := b.Resolve(b.t.Context(), officer, id, nil, b.tell)
	if errors.Is(err, provision.ErrDeviceWanted) { // it has got that far; and here it is
		_, err = b.Resolve(b.t.Context(), officer, id, nil, b.tell)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) reissued(ctx context.Context, o provision.Reissue) error {
	_, err := b.Reissue(ctx, officer, o, b.tell)
	return err
}

// The owner is cut off at once; nobody gets anything before the device is there, and has another seed.
func TestReissueWithoutTheDevice(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	b.key.Remove()
	confirmed := uint64(0)
	b.Confirm = func(_ context.Context, seq uint64) error { confirmed = seq; return nil }
	o := provision.Reissue{Token: slot2, User: "bob", Shape: provision.Absent, Reason: "she is in Peru"}
	changes, err := b.Reissue(t.Context(), officer, o, b.tell)
	if !errors.Is(err, provision.ErrDeviceWanted) || len(changes) != 1 || changes[0].Kind != vault.Unassign || changes[0].Seq != confirmed {
		t.Fatalf("%v, left %+v, confirmed %d", err, changes, confirmed)
	}
	b.wantUnfinishedAs(err, slot2, "device")
	if tok := b.token(slot2); tok.Status != vault.Active || tok.Owner != "" || !tok.ReseedDue || tok.Generation != 1 {
		t.Errorf("%+v", tok)
	}
	b.wantOutbox("unassign/1:alice")
	if j, _ := b.job(slot2); provision.Waiting(j) != "its reissue waits for the device: insert yk-10000001" {
		t.Errorf("waiting: %q", provision.Waiting(j))
	}
	if leaver, user, err := b.Awaited(slot2); leaver != "alice" || user != "bob" || err != nil {
		t.Errorf("%s is cut off for %s: %v", leaver, user, err)
	}
	if all := b.handovers(slot2); len(all) != 1 {
		t.Errorf("handed over before it was there: %+v", all)
	}
	if _, err := b.Resolve(t.Context(), officer, slot2, nil, b.tell); errors.Is(err, provision.ErrDeviceWanted) || !errors.Is(err, device.ErrGone) {
		t.Errorf("resolved without the device: %v", err)
	}
	_, _, err = b.act("assign", slot2, "carol")
	wantRefused(t, err, "an unfinished reissue without device", "tokendesk resolve "+string(slot2))

	b.key.Insert()
	b.touches()
	if _, err := b.Resolve(t.Context(), second, slot2, nil, b.tell); err != nil {
		t.Fatal(err)
	}
	if n := b.touches(); n != 2 {
		t.Errorf("%d touches", n)
	}
	b.wantOutbox("unassign/1:alice put/2 assign/2:bob")
	b.wantOnly(slot2, "bob")
	if tok := b.token(slot2); tok.ReseedDue {
		t.Errorf("%+v", tok)
	}
	b.wantHandover(slot2, vault.Handover{
		Kind: vault.Reissued, Generation: 2, From: "alice", To: "bob", Officer: second, Reason: "she is in Peru", Emulated: true, Offline: true,
		Proof: vault.Proof{Codes: 2, Generation: 2, OldGeneration: 1, OldFrom: 2, OldWindow: 1000},
	})
}

// wantUnfinishedAs is wantUnfinished for work that waits as it was asked to.
func (b *bench) wantUnfinishedAs(err error, id device.TokenID, step string) {
	b.t.Helper()
	var u *provision.UnfinishedError
	j, found := b.job(id)
	if !errors.As(err, &u) || u.Step != step || !u.Undo || !found || provision.Steps()[j.Kind][j.Step] != step {
		b.t.Errorf("%v; journal %+v, %v", err, j, found)
	}
}

// Given up, the token is stock; whoever has the device has its seed.
func TestAnAwaitedDeviceIsGivenUp(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	b.key.Remove()
	o := provision.Reissue{Token: slot2, User: "bob", Shape: provision.Absent}
	if err := b.reissued(t.Context(), o); !errors.Is(err, provision.ErrDeviceWanted) {
		t.Fatal(err)
	}
	if err := b.Undo(t.Context(), officer, slot2, b.tell); err != nil {
		t.Fatal(err)
	}
	if tok := b.token(slot2); tok.Owner != "" || !tok.ReseedDue || tok.Status != vault.Active {
		t.Errorf("%+v", tok)
	}
	b.wantOutbox("unassign/1:alice")
	in, err := b.Prepare(t.Context(), provision.Order{Action: provision.ActAssign, Tokens: []device.TokenID{slot2}, User: "bob"})
	if err != nil || in.Effects[0].Warning != "alice may still have its seed; to replace it first: tokendesk reseed "+string(slot2) {
		t.Errorf("%+v, %v", in, err)
	}
	if _, _, err := b.act("assign", slot2, "bob"); err != nil {
		t.Fatal(err)
	}
	b.wantHandover(slot2, vault.Handover{Kind: vault.Assigned, Generation: 1, To: "bob", Reason: "as the test wants", Emulated: true})
	b.key.Insert()
	if _, err := b.Reseed(t.Context(), officer, slot2, "it has turned up", b.tell); err != nil {
		t.Fatal(err)
	}
	if tok := b.token(slot2); tok.ReseedDue || tok.Owner != "bob" {
		t.Errorf("%+v", tok)
	}
	if n := len(b.handovers(slot2)); n != 2 {
		t.Errorf("%d handovers, and a reseed for the same owner is none", n)
	}
	last := b.history(slot2)[0]
	if last.Action != "reseed: put" || !strings.Contains(last.Reason, "proof: 2 codes in a row are those of the seed of generation 2 from counter 0 on, and none of them is one of generation 1 among 1000 counters from 2 on") ||
		!strings.HasSuffix(last.Reason, "reason: it has turned up") {
		t.Errorf("%+v", last)
	}
}

// What was freed with its device at hand is not due.
func TestReseedIsDueOfWhatWasNotAtHand(t *testing.T) {
	for name, c := range map[string]struct {
		here func(device.ID) bool
		due  bool
	}{
		"nobody knows": {nil, true}, "away": {func(device.ID) bool { return false }, true},
		"here": {func(id device.ID) bool { return id == slot2.Device() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.enrolled(slot2, "alice")
			b.AtHand = c.here
			if _, _, err := b.act("unassign", slot2, ""); err != nil {
				t.Fatal(err)
			}
			if tok := b.token(slot2); tok.ReseedDue != c.due {
				t.Errorf("%+v", tok)
			}
			in, err := b.Prepare(t.Context(), provision.Order{Action: provision.ActAssign, Tokens: []device.TokenID{slot2}, User: "bob"})
			if err != nil || (in.Effects[0].Warning != "") != c.due {
				t.Errorf("%+v, %v", in, err)
			}
		})
	}
}

// Going on before the cut-off is confirmed takes a reason; the outbox keeps the order then.
func TestReissueGoesOnOffline(t *testing.T) {
	away := errors.New("the directory does not answer")
	for name, begin := range map[string]func(*bench) error{
		"at once": func(b *bench) error {
			return b.reissued(t.Context(), provision.Reissue{Token: slot2, User: "bob", ContinueOffline: true, Reason: "it is urgent"})
		},
		"later": func(b *bench) error {
			b.wantUnfinished(b.reissue(t.Context(), slot2, "bob"), slot2, "confirm", away)
			_, err := b.ResolveOffline(t.Context(), officer, slot2, " ", b.tell)
			wantRefused(t, err, "takes a reason", "--reason")
			_, err = b.ResolveOffline(t.Context(), officer, slot2, "it is urgent", b.tell)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.enrolled(slot2, "alice")
			b.deliver()
			b.Confirm = func(context.Context, uint64) error { return away }
			if err := begin(b); err != nil {
				t.Fatal(err)
			}
			if !b.noted("the cut-off of alice is not confirmed") {
				t.Errorf("%+v", b.seen)
			}
			b.wantOutbox("unassign/1:alice put/2 assign/2:bob")
			b.wantFollows(slot2, slot2)
			b.wantHandover(slot2, vault.Handover{
				Kind: vault.Reissued, Generation: 2, From: "alice", To: "bob", Reason: "it is urgent", Emulated: true, Offline: true,
				Proof: vault.Proof{Codes: 2, Generation: 2, OldGeneration: 1, OldFrom: 2, OldWindow: 1000},
			})
		})
	}
	b := newBench(t)
	b.enrolled(slot2, "alice")
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: slot2, User: "bob", ContinueOffline: true}), "takes a reason", "--reason")
	ctx, cancel := context.WithCancel(t.Context())
	b.Confirm = func(context.Context, uint64) error { cancel(); return away }
	err := b.reissued(ctx, provision.Reissue{Token: slot2, User: "bob", ContinueOffline: true, Reason: "it is urgent"})
	b.wantUnfinished(err, slot2, "confirm", away) // the officer has hung up, which is no word to go on
	if _, err := b.ResolveOffline(t.Context(), officer, slot1, "it is urgent", b.tell); err == nil {
		t.Error("there was nothing to go on with")
	}
}

// wantFollows checks that what a token leaves for the central service waits for the cut-off of another's, or its own, owner.
func (b *bench) wantFollows(id, old device.TokenID) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) error {
		all, err := tx.ChangesFrom(0, 0)
		cut := uint64(0)
		for _, c := range all {
			switch {
			case c.Token == old && c.Kind == vault.Unassign:
				cut = c.Seq
			case c.Token == id && !c.Kind.CutOff() && (c.After != cut || cut == 0):
				b.t.Errorf("%+v does not wait for change %d", c, cut)
			}
		}
		return err
	})
}

// Two officers decide about one token. The second one is told what has changed since.
func TestReissueOfWhatIsSomebodyElsesByNow(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.deliver()
	alice, nobody := "alice", ""
	b.Confirm = func(context.Context, uint64) error { // the first one is at work
		_, err := b.Reissue(t.Context(), second, provision.Reissue{Token: slot2, User: "carol"}, b.tell)
		wantRefused(t, err, "another officer's work on "+string(slot2)+" is going on")
		return nil
	}
	if err := b.reissued(t.Context(), provision.Reissue{Token: slot2, User: "bob", Owner: &alice}); err != nil {
		t.Fatal(err)
	}
	_, err := b.Reissue(t.Context(), second, provision.Reissue{Token: slot2, User: "carol", Owner: &alice}, b.tell)
	wantRefused(t, err, "belongs to bob by now, and that is not what you were asked about", "tokendesk show "+string(slot2))
	_, err = b.Reissue(t.Context(), second, provision.Reissue{Token: slot2, With: slot1, User: "carol", Owner: &nobody}, b.tell)
	wantRefused(t, err, "belongs to bob by now, and that is not what you were asked about")
	b.wantOnly(slot2, "bob")
}

func TestReissuesThatCannotBeMeant(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	for words, o := range map[string]provision.Reissue{
		"a reissue needs a new owner":             {Token: slot2},
		"is not a token":                          {Token: "yk-1", User: "bob"},
		"belongs to alice already":                {Token: slot2, User: "Alice", Shape: provision.Absent},
		"another token belongs to a replacement":  {Token: slot2, User: "bob", Shape: provision.Replacement},
		"cannot replace itself":                   {Token: slot2, With: slot2},
		"what becomes of the old token":           {Token: slot2, User: "bob", Old: provision.OldEnd{Loss: vault.Lost}},
		"is verified by codes of its new seed":    {Token: slot2, User: "bob", Codes: []string{"123456", "234567"}},
		"can get a fresh seed":                    {Token: slot2, User: "bob", Shape: provision.Unchanged, Codes: []string{"123456", "234567"}},
		"so two codes have to show":               {Token: slot2, User: "bob", Shape: provision.Unchanged},
		"contains control characters":             {Token: slot2, User: "bob", Reason: "a\nb"},
		"the reason has 201 bytes":                {Token: slot2, User: "bob", Reason: strings.Repeat("x", 201)},
		"a reason of kind other takes words":      {Token: slot2, With: slot1, Old: provision.OldEnd{Loss: vault.Other}},
		"a token is compromised for a reason":     {Token: slot2, With: slot1, Old: provision.OldEnd{Loss: "mislaid"}},
		"a code has 6 digits or 8, not 7":         {Token: slot2, With: slot1, Settings: provision.Settings{Digits: 7}},
		"to go on before the cut-off is confirme": {Token: slot2, User: "bob", ContinueOffline: true, Reason: " "},
	} {
		t.Run(words, func(t *testing.T) { wantRefused(t, b.reissued(t.Context(), o), words) })
	}
	b.wantOnly(slot2, "alice")
	if !b.Unclaimed() {
		t.Error("something is still claimed")
	}
}
