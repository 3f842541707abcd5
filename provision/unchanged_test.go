package provision_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

const fob device.TokenID = "fob-2308001"

// withFob is a bench with a fob of alice's, whose next moving factor is 5.
func withFob(t *testing.T) *bench {
	b := newBench(t)
	seed := secret.New([]byte("12345678901234567890"))
	defer seed.Wipe()
	b.update(func(tx *vault.Tx) error {
		return errors.Join(tx.PutToken(vault.Token{ID: fob, Status: vault.Active, Owner: "alice", Digits: 6, Generation: 1, Counter: 5}), tx.SetSeed(fob, 1, seed))
	})
	return b
}

// shown is the codes that the fob shows.
func (b *bench) shown(counters ...uint64) (codes []string) {
	b.t.Helper()
	s, err := b.seed(fob, 1)
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Wipe()
	for _, n := range counters {
		codes = append(codes, hotpscan.Code(s, 6, n))
	}
	return codes
}

func (b *bench) wantFob(owner string, counter uint64) {
	b.t.Helper()
	if tok := b.token(fob); tok.Owner != owner || tok.Status != vault.Active || tok.Counter != counter || tok.Generation != 1 || tok.ReseedDue {
		b.t.Errorf("%+v", tok)
	}
}

// A fob cannot get another seed: its owner is cut off, two codes show that it is the one in hand, and it is given away.
func TestReissueWithTheSameSeed(t *testing.T) {
	b := withFob(t)
	b.Confirm = func(context.Context, uint64) error { b.wantFob("", 5); b.wantOutbox("unassign/1:alice"); return nil }
	changes, err := b.Reissue(t.Context(), officer, provision.Reissue{Token: fob, User: "bob", Codes: b.shown(9, 10)}, b.tell)
	if err != nil || len(changes) != 2 {
		t.Fatalf("%+v, %v", changes, err)
	}
	b.wantFob("bob", 11)
	b.wantOutbox("unassign/1:alice assign/1:bob")
	b.wantFollows(fob, fob)
	b.wantHandover(fob, vault.Handover{
		Kind: vault.Unchanged, Generation: 1, From: "alice", To: "bob", Offline: true, Proof: vault.Proof{Codes: 2, Generation: 1, Counter: 9, Typed: true},
	})
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: fob, User: "carol"}), "the seed of "+string(fob)+" cannot be replaced", "CODE CODE")
	wantRefused(t, b.reissued(t.Context(), provision.Reissue{Token: fob, User: "carol", Shape: provision.Absent}), "cannot be replaced", "tokendesk unassign "+string(fob))
	_, err = b.Reseed(t.Context(), officer, fob, "", b.tell)
	wantRefused(t, err, "cannot be reseeded")
}

// Codes that do not fit stop it after the cut-off; so do those that the central service has seen already.
func TestReissueWithTheSameSeedWantsItsCodes(t *testing.T) {
	b := withFob(t)
	b.Counter = func(context.Context, device.TokenID) (uint64, error) { return 8, nil }
	for name, codes := range map[string][]string{
		"used": b.shown(6, 7), "reversed": b.shown(10, 9), "a gap": b.shown(9, 11), "beyond": b.shown(1008, 1009), "none": {"000000", "111111"},
	} {
		t.Run(name, func(t *testing.T) {
			err := b.reissued(t.Context(), provision.Reissue{Token: fob, User: "bob", Codes: codes})
			b.wantUnfinished(err, fob, "codes", provision.ErrMismatch)
			b.wantFob("", 5)
			_, err = b.Resolve(t.Context(), officer, fob, nil, b.tell)
			b.wantUnfinished(err, fob, "codes", provision.ErrCodesWanted)
			if err := b.Undo(t.Context(), officer, fob, b.tell); err != nil {
				t.Fatal(err)
			}
			if _, found := b.job(fob); found {
				t.Error("it is in the journal")
			}
		})
	}
	err := b.reissued(t.Context(), provision.Reissue{Token: fob, User: "bob", Codes: b.shown(6, 7)})
	b.wantUnfinished(err, fob, "codes", provision.ErrMismatch)
	if _, err := b.Resolve(t.Context(), officer, fob, b.shown(8, 9), b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantFob("bob", 10)
	b.Counter = func(context.Context, device.TokenID) (uint64, error) { return 0, errors.New("it does not answer") }
	if err := b.reissued(t.Context(), provision.Reissue{Token: fob, User: "carol", Codes: b.shown(20, 21)}); err != nil || !b.noted("it does not answer") {
		t.Errorf("%v, %+v", err, b.seen)
	}
	b.wantFob("carol", 22)
}

// A crash after every step, and during what follows, ends with the fob being bob's.
func TestCrashInAReissueWithTheSameSeed(t *testing.T) {
	p := plan{name: "reissue with the same seed", begin: func(ctx context.Context, b *bench, tell provision.Tell) error {
		_, err := b.Reissue(ctx, officer, provision.Reissue{Token: fob, User: "bob", Codes: b.shown(9, 10)}, tell)
		return err
	}}
	steps := provision.Steps()[p.name]
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			b := withFob(t)
			p.crash(t, b, step)
			if err := b.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, found := b.job(fob)
			if done := slices.Index(steps, step) >= slices.Index(steps, "codes"); found == done {
				t.Errorf("in the journal after %s: %v", step, found)
			}
			if found {
				if _, err := b.Resolve(t.Context(), officer, fob, nil, b.tell); !errors.Is(err, provision.ErrCodesWanted) {
					t.Fatal(err)
				}
				if _, err := b.Resolve(t.Context(), officer, fob, b.shown(9, 10), b.tell); err != nil {
					t.Fatal(err)
				}
			}
			b.wantFob("bob", 11)
			b.wantOutbox("unassign/1:alice assign/1:bob")
			if err := b.Vault.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}
