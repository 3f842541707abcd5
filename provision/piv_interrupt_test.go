package provision_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// pivWork is a plan on a card, and what it leads to.
type pivWork struct {
	plan    string
	prepare func(b *bench) // may be nil
	begin   func(b *bench) error
	done    func(b *bench) // what the finished work leads to
	undone  func(b *bench) // what giving it up leads to; nil: it is not given up
}

func pivWorks() []pivWork {
	provide := func(o provision.PIVProvision) func(*bench) error {
		return func(b *bench) error { _, err := b.provision(o); return err }
	}
	given := func(b *bench) {
		if t := b.token(pivID); t.Status != vault.Active || t.Owner != "alice" {
			b.t.Errorf("%+v", t)
		}
		b.wantOurs(pivID)
	}
	return []pivWork{
		{plan: "piv provision", begin: provide(provision.PIVProvision{User: "alice"}), done: given, undone: func(b *bench) {
			b.wantNoPIV(pivID)
			b.wantFresh()
		}},
		{plan: "piv provision", prepare: func(b *bench) { // over a card that the desk has lost sight of
			b.imported()
			if _, _, err := b.Do(b.t.Context(), officer, provision.Order{Action: provision.ActDelete, Tokens: []device.TokenID{pivID}, Reason: "lost"}); err != nil {
				b.t.Fatal(err)
			}
		}, begin: provide(provision.PIVProvision{User: "alice", Overwrite: true}), done: func(b *bench) {
			given(b)
			b.wantDue("9a CN=alice")
		}, undone: func(b *bench) {
			b.wantNoPIV(pivID)
			b.wantFresh()
			b.wantDue("9a CN=alice")
		}},
		{plan: "piv unblock", prepare: func(b *bench) { b.provisioned() }, begin: func(b *bench) error {
			return b.UnblockPIV(b.t.Context(), officer, pivID, b.tell)
		}, done: given, undone: given},
		{plan: "piv wipe", prepare: func(b *bench) { b.imported() }, begin: func(b *bench) error {
			_, err := b.Wipe(b.t.Context(), officer, pivID, "scrapped", b.tell)
			return err
		}, done: func(b *bench) {
			b.wantNoPIV(pivID)
			b.wantFresh()
			b.wantDue("9a CN=alice")
		}},
	}
}

// ready is a bench on which the work can begin.
func (w pivWork) ready(t *testing.T, firmware device.Version) *bench {
	b := newCardBench(t, firmware)
	if w.prepare != nil {
		w.prepare(b)
	}
	return b
}

// settle finishes the work or gives it up, whether it was begun or not, and checks what that leads to.
func (w pivWork) settle(b *bench, undo bool) {
	b.t.Helper()
	_, unfinished := b.job(pivID)
	var err error
	switch {
	case unfinished && undo && w.undone != nil:
		err = b.Undo(b.t.Context(), officer, pivID, b.tell)
	case unfinished:
		_, err = b.Resolve(b.t.Context(), officer, pivID, nil, b.tell)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if _, still := b.job(pivID); still {
		b.t.Fatal("the job is still there")
	}
	if unfinished && undo && w.undone != nil {
		w.undone(b)
	} else {
		w.done(b)
	}
	if err := b.Vault.Check(); err != nil {
		b.t.Error(err)
	}
}

// After a crash behind every step the work is finished or given up, and the card has the vault's secrets or the factory's.
func TestPIVCrashAfterEveryStep(t *testing.T) {
	for n, w := range pivWorks() {
		steps := provision.Steps()[w.plan]
		for i, step := range steps {
			for _, undo := range []bool{false, true} {
				if undo && w.undone == nil {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%s/undo=%v", w.plan, n, step, undo), func(t *testing.T) {
					b := w.ready(t, firmware5)
					plan{name: w.plan, begin: func(_ context.Context, b *bench, _ provision.Tell) error { return w.begin(b) }}.crash(t, b, step)
					if j, found := b.job(pivID); found != (provision.Next(w.plan, i) < len(steps)) || found && j.Step != provision.Next(w.plan, i) {
						t.Fatalf("journal after %s: %+v, %v", step, j, found)
					}
					if err := b.Recover(t.Context()); err != nil {
						t.Fatal(err)
					}
					w.settle(b, undo)
				})
			}
		}
	}
}

// pulledAt runs work that is interrupted because its card is pulled at the n-th APDU, and tells whether it was; then the card is
// plugged in again.
func (b *bench) pulledAt(kind smartcard.Fault, n int, work func() error) (pulled bool) {
	b.t.Helper()
	if err := b.card.SetFault(kind, n); err != nil {
		b.t.Fatal(err)
	}
	err := work()
	if err := b.card.SetFault(smartcard.FaultClear, 0); err != nil {
		b.t.Fatal(err)
	}
	pulled = b.card.isPulled()
	b.card.pull(false)
	if pulled != (err != nil) || err != nil && !errors.Is(err, device.ErrGone) {
		b.t.Fatalf("%s %d: pulled: %v, and %v", kind, n, pulled, err)
	}
	return pulled
}

// Whenever a card is pulled, the work is finished or given up, and the card has the vault's secrets or the factory's. The first plan is
// tried at every APDU, the others, and cards that do not tell of their secrets, at every seventh.
func TestPIVPulledAtEveryAPDU(t *testing.T) {
	for i, w := range pivWorks() {
		for _, firmware := range []device.Version{firmware4, firmware5} {
			t.Run(fmt.Sprintf("%s/%d/%v", w.plan, i, firmware), func(t *testing.T) {
				t.Parallel()
				stride := 7
				if i == 0 && firmware == firmware5 {
					stride = 1
				}
				kinds := []smartcard.Fault{smartcard.FaultPullBefore, smartcard.FaultPullAfter}
				for n := 1; ; n += stride {
					b := w.ready(t, firmware)
					// Both kinds meet both ways out, if not at the same APDU.
					if !b.pulledAt(kinds[n%2], n, func() error { return w.begin(b) }) {
						w.done(b)
						t.Logf("%d APDUs", n)
						break
					}
					if _, begun := b.job(pivID); !begun {
						if err := w.begin(b); err != nil {
							t.Fatalf("pulled at APDU %d, and nothing was begun: %v", n, err)
						}
					}
					w.settle(b, n/2%2 == 1)
					if t.Failed() {
						t.Fatalf("pulled at APDU %d: %s", n, kinds[n%2])
					}
				}
			})
		}
	}
}

// What is no plan can be repeated, whenever the card was pulled.
func TestPIVPulledInShortWork(t *testing.T) {
	chosen := secret.New([]byte("24681357"))
	for name, short := range map[string]struct {
		work func(b *bench, r provision.PIVRequest, der []byte) error
		done func(b *bench, der []byte)
	}{
		"csr": {func(b *bench, _ provision.PIVRequest, _ []byte) error {
			_, err := b.RequestPIV(b.t.Context(), officer, pivID, device.PIVAuthentication, "CN=later", secret.Secret{}, b.tell)
			return err
		}, func(b *bench, _ []byte) {
			x, err := x509.ParseCertificateRequest(b.certificates(pivID)[0].Request)
			if err != nil || x.Subject.String() != "CN=later" {
				b.t.Errorf("%v, %v", x, err)
			}
		}},
		"import-cert": {func(b *bench, r provision.PIVRequest, der []byte) error {
			_, err := b.ImportCertificate(b.t.Context(), officer, pivID, r.Slot, der)
			return err
		}, func(b *bench, der []byte) {
			if s := b.onIt(); len(s.Keys) != 1 || s.Keys[0].Certificate == nil || string(s.Keys[0].Certificate.Raw) != string(der) {
				b.t.Errorf("%+v", s)
			}
			if all := b.certificates(pivID); len(all) != 1 || all[0].Imported.IsZero() {
				b.t.Errorf("%+v", all)
			}
		}},
		"pin": {func(b *bench, _ provision.PIVRequest, _ []byte) error {
			return b.SetPIN(b.t.Context(), officer, pivID, chosen.Clone())
		}, func(b *bench, _ []byte) {
			b.onCard(func(p device.PIV) error { return p.VerifyPIN(b.t.Context(), chosen) })
			_, err := b.TakePIN(b.t.Context(), officer, pivID)
			wantRefused(b.t, err, "taken already")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newIssuer(t)
			for n := 1; ; n++ {
				b := newCardBench(t, firmware5)
				r := b.provisioned()
				der := ca.issue(r)
				pulled := b.pulledAt([]smartcard.Fault{smartcard.FaultPullBefore, smartcard.FaultPullAfter}[n%2], n, func() error { return short.work(b, r, der) })
				if pulled {
					if err := short.work(b, r, der); err != nil {
						t.Fatalf("pulled at APDU %d: %v", n, err)
					}
				}
				short.done(b, der)
				b.wantOurs(pivID)
				if !pulled || t.Failed() {
					t.Logf("%d APDUs", n)
					break
				}
			}
		})
	}
}

// A card that somebody else has taken into use between a crash and giving the work up is left alone.
func TestUndoLeavesForeignCard(t *testing.T) {
	b := newCardBench(t, firmware5)
	w := pivWorks()[0]
	plan{name: w.plan, begin: func(_ context.Context, b *bench, _ provision.Tell) error { return w.begin(b) }}.crash(t, b, "seal")
	foreign := secret.New(slices.Repeat([]byte{7}, device.ManagementKeySize))
	b.onCard(func(p device.PIV) error { return p.SetManagementKey(t.Context(), secret.Secret{}, foreign) })
	_, err := b.Resolve(t.Context(), officer, pivID, nil, b.tell)
	b.wantUnfinished(err, pivID, "reset", nil)
	if err := b.Undo(t.Context(), officer, pivID, b.tell); err != nil {
		t.Fatal(err)
	}
	if !b.noted("left as it is") {
		t.Error("nothing says that the card was left alone")
	}
	b.wantNoPIV(pivID)
	b.onCard(func(p device.PIV) error { return p.CheckManagementKey(t.Context(), foreign) })
}
