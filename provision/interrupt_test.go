package provision_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/provision"
	"tokendesk/vault"
)

// plan is one of provision.Steps with a way to start it and what it must lead to.
type plan struct {
	name  string
	begin func(context.Context, *bench, provision.Tell) error
	want  string // outbox
	owner string
	gone  bool // the token is deleted, and the slot empty
	// write is the first step that changes the device, and before the last one in front of it.
	write, before string
	touches       int // that settle it
}

// plans prepares for every plan a bench on which it can start. A plan without an entry here fails the test.
func plans(t *testing.T) []plan {
	known := map[string]plan{
		"enroll": {want: "put/1 assign/1:alice", owner: "alice", write: "program", before: "program", touches: 2, begin: func(ctx context.Context, b *bench, tell provision.Tell) error {
			_, err := b.Enroll(ctx, officer, enrollment(slot2, "alice"), tell)
			return err
		}},
		"reissue": {want: "unassign/1:alice put/2 assign/2:bob", owner: "bob", write: "program", before: "program", touches: 2, begin: func(ctx context.Context, b *bench, tell provision.Tell) error {
			_, err := b.Reissue(ctx, officer, provision.Reissue{Token: slot2, User: "bob"}, tell)
			return err
		}},
		"reissue without device": {want: "unassign/1:alice put/2 assign/2:bob", owner: "bob", write: "program", before: "program", touches: 2, begin: func(ctx context.Context, b *bench, tell provision.Tell) error {
			_, err := b.Reissue(ctx, officer, provision.Reissue{Token: slot2, User: "bob", Shape: provision.Absent}, tell)
			if errors.Is(err, provision.ErrDeviceWanted) && !errors.Is(err, unix.EFBIG) { // it has turned up
				_, err = b.Resolve(ctx, officer, slot2, nil, tell)
			}
			return err
		}},
		"replace": {want: "unassign/1:alice disable/1:alice put/1 assign/1:alice", owner: "alice", write: "program", before: "program", touches: 2, begin: func(ctx context.Context, b *bench, tell provision.Tell) error {
			_, err := b.Reissue(ctx, officer, lost(), tell)
			return err
		}},
		"reseed": {want: "put/2", owner: "alice", write: "program", before: "program", touches: 2, begin: func(ctx context.Context, b *bench, tell provision.Tell) error {
			_, err := b.Reseed(ctx, officer, slot2, "", tell)
			return err
		}},
		"wipe": {want: "unassign/1:alice remove/1:alice", gone: true, write: "erase", before: "cut-off", begin: func(ctx context.Context, b *bench, tell provision.Tell) error {
			_, err := b.Wipe(ctx, officer, slot2, "scrapped", tell)
			return err
		}},
	}
	var list []plan
	for name := range provision.Steps() {
		if name == "reissue with the same seed" || strings.HasPrefix(name, "piv ") { // see unchanged_test.go and piv_interrupt_test.go
			continue
		}
		p, ok := known[name]
		if !ok {
			t.Fatalf("there is a plan %q that these tests do not know", name)
		}
		p.name = name
		list = append(list, p)
	}
	return list
}

// bench is where the plan can start.
func (p plan) bench(t *testing.T) *bench {
	b := newBench(t)
	switch p.name {
	case "enroll":
	case "replace":
		b.enrolled(slot1, "alice")
		b.deliver()
	default:
		b.enrolled(slot2, "alice")
		b.deliver()
	}
	return b
}

// lost replaces one slot by the other, for the same person.
func lost() provision.Reissue {
	return provision.Reissue{
		Token: slot1, With: slot2, Old: provision.OldEnd{Loss: vault.Lost}, Settings: provision.Settings{Enter: true},
	}
}

// deliver empties the outbox, as the central service's confirmations do.
func (b *bench) deliver() {
	b.t.Helper()
	b.update(func(tx *vault.Tx) error {
		changes, err := tx.ChangesFrom(0, 0)
		for _, c := range changes {
			err = errors.Join(err, tx.DeleteChange(c.Seq))
		}
		return err
	})
}

// wantSettled checks that the plan is over and has led to what it was to.
func (p plan) wantSettled(t *testing.T, b *bench) {
	t.Helper()
	if j, found := b.job(slot2); found {
		t.Fatalf("the job is still there: %+v", j)
	}
	if p.gone {
		b.wantBuried(slot2, vault.Tombstone{Generation: 1, Owner: "alice", Status: vault.Active, Officer: officer.Name, Reason: "scrapped"})
		if last := b.history(slot2)[0]; last.Action != "wipe: remove" || last.Reason != "user alice; reason: scrapped" {
			t.Errorf("%+v", last)
		}
	} else {
		b.wantOnly(slot2, p.owner)
	}
	b.wantOutbox(p.want)
	if err := b.Vault.Check(); err != nil {
		t.Error(err)
	}
	wantRefused(t, func() error { _, err := b.Resolve(t.Context(), officer, slot2, nil, b.tell); return err }(), "nothing to resolve")
}

// wantOnly checks that a token is active and that its device holds its only seed.
func (b *bench) wantOnly(id device.TokenID, owner string) {
	b.t.Helper()
	tok := b.token(id)
	if tok.Status != vault.Active || tok.Owner != owner {
		b.t.Errorf("%+v", tok)
	}
	b.view(func(tx *vault.Tx) error {
		seeds, err := tx.Generations(id)
		if len(seeds) != 1 || seeds[0] != tok.Generation {
			b.t.Errorf("seeds %v of a token at generation %d", seeds, tok.Generation)
		}
		return err
	})
	b.wantOnDevice(id)
}

// wantBuried checks that nothing is left of a token but its tombstone, and that its slot is empty.
func (b *bench) wantBuried(id device.TokenID, want vault.Tombstone) {
	b.t.Helper()
	if b.exists(id) {
		b.t.Errorf("%s is in the vault", id)
	}
	b.view(func(tx *vault.Tx) error {
		seeds, err := tx.Generations(id)
		got, found, terr := tx.Tombstone(id)
		want.ID, want.Time = id, got.Time
		if len(seeds) != 0 || !found || got != want || got.Time.IsZero() {
			b.t.Errorf("seeds %v, tombstone %+v, want %+v", seeds, got, want)
		}
		return errors.Join(err, terr)
	})
	if b.configured(id) {
		b.t.Error("the slot is not empty")
	}
}

func TestPulledKeyIsSettledByTwoTouches(t *testing.T) {
	type fault struct {
		kind emulator.Fault
		n    int
	}
	faults := []fault{{emulator.FaultUnplugAfterWrite, 0}}
	for n := range 10 {
		faults = append(faults, fault{emulator.FaultUnplugAtChunk, n})
	}
	for _, p := range plans(t) {
		for _, f := range faults {
			t.Run(fmt.Sprintf("%s/%s/%d", p.name, f.kind, f.n), func(t *testing.T) {
				b := p.bench(t)
				b.fault(f.kind, f.n)
				b.wantUnfinished(p.begin(t.Context(), b, b.tell), slot2, p.write, device.ErrGone)
				b.touches()
				_, err := b.Resolve(t.Context(), officer, slot2, nil, b.tell)
				b.wantUnfinished(err, slot2, p.write, device.ErrGone)
				if tok := b.token(slot2); tok.Status == vault.Active && (!p.gone || tok.Owner != "") {
					t.Errorf("a token of which nobody knows what it holds is in use: %+v", tok)
				}
				b.key.Insert()
				b.resolve(slot2)
				if n := b.touches(); n != p.touches {
					t.Errorf("%d touches, want %d", n, p.touches)
				}
				p.wantSettled(t, b)
			})
		}
	}
}

// crashed is what a Checkpoint ends the work with, as a crash of the daemon would.
type crashed struct{}

// crash runs a plan that dies after one step, and starts again on the same file.
func (p plan) crash(t *testing.T, b *bench, step string) {
	t.Helper()
	b.Checkpoint = func(plan, at string) {
		if plan == p.name && at == step {
			panic(crashed{})
		}
	}
	func() {
		defer func() {
			if _, ok := recover().(crashed); !ok {
				t.Fatalf("%s did not reach %s", p.name, step)
			}
		}()
		p.begin(t.Context(), b, b.tell)
	}()
	b.touches()
	b.restart()
}

func TestCrashAfterEveryStepLosesNothing(t *testing.T) {
	for _, p := range plans(t) {
		steps := provision.Steps()[p.name]
		for i, step := range steps {
			t.Run(p.name+"/"+step, func(t *testing.T) {
				b := p.bench(t)
				p.crash(t, b, step)
				j, found := b.job(slot2)
				if last := provision.Next(p.name, i) == len(steps); found == last || found && (j.Step != provision.Next(p.name, i) || j.Officer != officer.Name) {
					t.Fatalf("journal after %s: %+v, %v", step, j, found)
				}
				if err := b.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, found := b.job(slot2); found {
					b.resolve(slot2)
				} else if i < len(steps)-2 {
					t.Error("the job vanished, though a device or an answer was missing")
				}
				if n := b.touches(); n > 2 {
					t.Errorf("%d touches", n)
				}
				p.wantSettled(t, b)
			})
		}
	}
}

func TestRecoverFinishesWhatNeedsNobody(t *testing.T) {
	for _, p := range plans(t) {
		t.Run(p.name, func(t *testing.T) {
			b := p.bench(t)
			steps := provision.Steps()[p.name]
			p.crash(t, b, steps[len(steps)-2])
			b.key.Remove()
			if err := b.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.key.Insert()
			if n := b.touches(); n != 0 {
				t.Errorf("%d touches were asked for", n)
			}
			p.wantSettled(t, b)
		})
	}
}

func TestRecoverRefusesWorkOfAnotherVersion(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.update(func(tx *vault.Tx) error { return tx.PutJob(&vault.Job{Kind: "embellish", Token: slot2}) })
	if err := b.Recover(t.Context()); err == nil {
		t.Error("an unknown job was ignored")
	}
	b.view(func(tx *vault.Tx) error {
		j, _, err := tx.JobFor(slot2)
		if provision.Waiting(j) != "embellish" {
			t.Errorf("waiting: %q", provision.Waiting(j))
		}
		return err
	})
}

// A second crash during Resolve, at every step again.
func TestCrashDuringResolve(t *testing.T) {
	for _, p := range plans(t) {
		steps := provision.Steps()[p.name]
		for _, step := range steps[slices.Index(steps, p.write):] {
			t.Run(p.name+"/"+step, func(t *testing.T) {
				b := p.bench(t)
				p.crash(t, b, p.before)
				again := p
				again.begin = func(ctx context.Context, b *bench, tell provision.Tell) error {
					_, err := b.Resolve(ctx, officer, slot2, nil, tell)
					return err
				}
				again.crash(t, b, step)
				if err := b.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, found := b.job(slot2); found {
					b.resolve(slot2)
				}
				p.wantSettled(t, b)
			})
		}
	}
}

func TestCancelledAtEveryProgress(t *testing.T) {
	for _, p := range plans(t) {
		b := p.bench(t)
		events := 0
		if err := p.begin(t.Context(), b, func(e provision.Progress) { events++; b.tell(e) }); err != nil {
			t.Fatal(err)
		}
		for i := range events {
			t.Run(fmt.Sprintf("%s/%d", p.name, i), func(t *testing.T) {
				b := p.bench(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				n := 0
				var at provision.Progress
				err := p.begin(ctx, b, func(e provision.Progress) {
					if n == i {
						at = e
						cancel()
					}
					n++
					b.tell(e)
				})
				if _, found := b.job(slot2); found {
					var u *provision.UnfinishedError
					if !errors.As(err, &u) {
						t.Fatalf("%v", err)
					}
					b.wantUnfinished(err, slot2, u.Step, context.Canceled)
					b.resolve(slot2)
				} else if steps := provision.Steps()[p.name]; err != nil || !slices.Contains(steps[len(steps)-2:], at.Step) {
					t.Errorf("cancelled at %+v: %v, and no job", at, err)
				}
				p.wantSettled(t, b)
			})
		}
	}
}

func TestACancelledReissueGoesNoFurther(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := b.Reissue(ctx, officer, provision.Reissue{Token: slot2, User: "bob"}, func(provision.Progress) { cancel() })
	b.wantUnfinished(err, slot2, "confirm", context.Canceled)
	if tok := b.token(slot2); tok.Status != vault.Active {
		t.Errorf("%+v", tok)
	}
	b.wantOnDevice(slot2)
}

func TestNothingIsLeftOfWorkThatNeverBegan(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.enroll(ctx, enrollment(slot2, "alice")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	b.key.Remove()
	if err := b.enroll(t.Context(), enrollment(slot2, "alice")); !errors.Is(err, device.ErrGone) {
		t.Errorf("%v", err)
	}
	if b.exists(slot2) {
		t.Error("the token is in the vault")
	}
	b.key.Insert()
	b.enrolled(slot2, "alice") // nobody holds the token any more
}
