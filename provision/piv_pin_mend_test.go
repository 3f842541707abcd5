package provision_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// manyTries has the card give 255 tries of PIN and PUK, which makes both those of the factory. Shown first: the management key.
func (b *bench) manyTries(management secret.Secret) {
	b.t.Helper()
	b.onCard(func(p device.PIV) error {
		if err := errors.Join(p.CheckManagementKey(b.t.Context(), management), p.VerifyPIN(b.t.Context(), secret.Secret{})); err != nil {
			return err
		}
		_, status, err := b.card.Transmit([]byte{0, 0xFA, 255, 255})
		if status != 0x9000 {
			b.t.Errorf("the card answers %x", status)
		}
		return err
	})
}

// A card that looks fresh may give 255 tries: a PIN of six digits is made for three.
func TestProvisionLeavesThreeTries(t *testing.T) {
	for name, prepare := range map[string]func(b *bench){
		"255 left": func(b *bench) {},
		"3 left": func(b *bench) {
			b.onCard(func(p device.PIV) error {
				for range 252 {
					if err := p.VerifyPIN(b.t.Context(), secret.New([]byte("31415926"))); !errors.As(err, new(*device.PINError)) {
						return fmt.Errorf("a wrong PIN: %w", err)
					}
				}
				return nil
			})
		},
		"none left": func(b *bench) { // as after a reset in the middle of which the card was pulled
			b.onCard(func(p device.PIV) error {
				for range 255 {
					if err := p.VerifyPIN(b.t.Context(), secret.New([]byte("31415926"))); !errors.As(err, new(*device.PINError)) {
						return fmt.Errorf("a wrong PIN: %w", err)
					}
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newCardBench(t, firmware5)
			b.manyTries(secret.Secret{})
			prepare(b)
			b.provisioned()
			if s := b.onIt(); s.PINRetries != 3 || s.PUKRetries != 3 {
				t.Errorf("%d tries of the PIN, %d of the PUK", s.PINRetries, s.PUKRetries)
			}
			b.wantOurs(pivID)
		})
	}
}

// Neither does who changes it in the middle get such a card into anybody's hands.
func TestTriesChangedBehindTheDesk(t *testing.T) {
	b := newCardBench(t, firmware5)
	plan{name: "piv provision", begin: func(_ context.Context, b *bench, _ provision.Tell) error {
		_, err := b.provision(provision.PIVProvision{User: "alice"})
		return err
	}}.crash(t, b, "management key")
	key, err := b.pivSecret(pivID, 1, vault.ManagementKey)
	if err != nil {
		t.Fatal(err)
	}
	b.manyTries(key)
	_, err = b.Resolve(t.Context(), officer, pivID, nil, b.tell)
	b.wantUnfinished(err, pivID, "PIN and PUK", nil)
	if !strings.Contains(err.Error(), "255 tries") || !strings.Contains(err.Error(), "tokendesk resolve --undo "+string(pivID)) {
		t.Errorf("%v", err)
	}
	if err := b.Undo(t.Context(), officer, pivID, b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantFresh()
	if s := b.onIt(); !s.AllTries() {
		t.Errorf("%+v", s)
	}
}

// Wherever a card that has 255 tries is pulled while it is reset, the work is finished, or gives back a card that can be used.
func TestManyTriesPulled(t *testing.T) {
	for _, undo := range []bool{false, true} {
		for n := 62; n < 62+600; n += 61 { // it takes more than 510 APDUs to block both
			b := newCardBench(t, firmware5)
			b.manyTries(secret.Secret{})
			work := func() error { _, err := b.provision(provision.PIVProvision{User: "alice"}); return err }
			pulled := b.pulledAt(smartcard.FaultPullAfter, n, work)
			if _, begun := b.job(pivID); pulled && !begun {
				t.Fatalf("pulled at APDU %d before anything was begun", n)
			}
			switch {
			case !pulled:
			case undo:
				if err := b.Undo(t.Context(), officer, pivID, b.tell); err != nil {
					t.Fatalf("pulled at APDU %d: %v", n, err)
				}
				b.wantFresh()
				b.wantNoPIV(pivID)
				continue
			default:
				b.resolve(pivID)
			}
			b.wantOurs(pivID)
			if s := b.onIt(); !s.AllTries() {
				t.Errorf("pulled at APDU %d: %+v", n, s)
			}
		}
	}
}

// other puts another card in, and tells how to bring the first one back.
func (b *bench) other(fill func(p device.PIV) error) (back func()) {
	b.t.Helper()
	real := b.card
	b.card = newCard(serial, firmware5)
	b.onCard(fill)
	return func() { b.card = real }
}

// A card that only says the serial is wiped, and the vault keeps what the right one has.
func TestWipeOfAnotherCard(t *testing.T) {
	for name, fill := range map[string]func(p device.PIV) error{
		"fresh": func(device.PIV) error { return nil },
		"in use": func(p device.PIV) error {
			return p.SetManagementKey(t.Context(), secret.Secret{}, secret.Random(device.ManagementKeySize))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newCardBench(t, firmware5)
			b.imported()
			back := b.other(fill)
			if _, err := b.Wipe(t.Context(), officer, pivID, "", b.tell); err != nil {
				t.Fatal(err)
			}
			b.wantFresh()
			if b.exists(pivID) || !b.noted("the vault keeps the PUK and the management key") {
				t.Errorf("nobody is told: %+v", b.seen)
			}
			back()
			key, err1 := b.pivSecret(pivID, 1, vault.ManagementKey)
			puk, err2 := b.pivSecret(pivID, 1, vault.PUK)
			if err := errors.Join(err1, err2, b.Vault.Check()); err != nil {
				t.Fatal(err)
			}
			b.onCard(func(p device.PIV) error {
				return errors.Join(p.CheckManagementKey(t.Context(), key), p.ChangePUK(t.Context(), puk, puk))
			})
			if _, err := b.provision(provision.PIVProvision{User: "bob", Overwrite: true}); err != nil {
				t.Fatal(err)
			}
			b.wantOurs(pivID)
			b.wantDue("9a CN=alice")
		})
	}
}

// A real card is never taken for an emulated one, nor the reverse, whatever it says.
func TestCardOfAnotherKind(t *testing.T) {
	b := newCardBench(t, firmware5)
	b.imported()
	b.OpenPIV = func(ctx context.Context, _ device.ID, fn func(device.PIV, bool) error) error {
		return b.card.use(ctx, func(p device.PIV) error { return fn(p, false) })
	}
	ctx := t.Context()
	for name, work := range map[string]func() error{
		"wipe":    func() error { _, err := b.Wipe(ctx, officer, pivID, "", b.tell); return err },
		"unblock": func() error { return b.UnblockPIV(ctx, officer, pivID, b.tell) },
		"pin":     func() error { return b.SetPIN(ctx, officer, pivID, secret.New([]byte("31415926"))) },
		"csr": func() error {
			_, err := b.RequestPIV(ctx, officer, pivID, device.PIVAuthentication, "", secret.Secret{}, b.tell)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantRefused(t, work(), "is real, and the one on record is emulated", "insert the right one")
		})
	}
	if _, begun := b.job(pivID); begun || b.token(pivID).Owner != "alice" || b.onIt().Fresh() {
		t.Error("a refusal has changed something")
	}
}

// A card without the desk's management key is shown no PUK and no PIN, and costs none.
func TestOtherCardIsShownNothing(t *testing.T) {
	b := newCardBench(t, firmware5)
	b.provisioned()
	ctx := t.Context()
	pin, err := b.pivSecret(pivID, 1, vault.PIN)
	if err != nil {
		t.Fatal(err)
	}
	back := b.other(func(p device.PIV) error {
		return p.SetManagementKey(ctx, secret.Secret{}, secret.Random(device.ManagementKeySize))
	})
	wantRefused(t, b.UnblockPIV(ctx, officer, pivID, b.tell), "has another management key", "tokendesk wipe")
	wantRefused(t, b.SetPIN(ctx, officer, pivID, secret.New([]byte("31415926"))), "has another management key")
	if s := b.onIt(); !s.AllTries() {
		t.Errorf("it was shown something: %+v", s)
	}
	back()
	if still, err := b.pivSecret(pivID, 1, vault.PIN); err != nil || !still.Equal(pin) {
		t.Errorf("the PIN in the vault is another one: %v", err)
	}
	b.wantOurs(pivID)
}

// The card has taken a PIN and was pulled: the same choice is found to be there, and another one ends the stale PIN in the vault. It
// is never handed out, and the card's PIN is not blocked by asking again.
func TestSetPINAfterCrash(t *testing.T) {
	ctx := t.Context()
	taken := secret.New([]byte("48291537"))
	pulled := func(t *testing.T) *bench {
		b := newCardBench(t, firmware5)
		b.provisioned()
		current, err := b.pivSecret(pivID, 1, vault.PIN)
		if err != nil {
			t.Fatal(err)
		}
		b.onCard(func(p device.PIV) error { return p.ChangePIN(ctx, current, taken) })
		return b
	}
	t.Run("same choice", func(t *testing.T) {
		b := pulled(t)
		if err := b.SetPIN(ctx, officer, pivID, taken.Clone()); err != nil {
			t.Fatal(err)
		}
		if s := b.onIt(); !s.AllTries() {
			t.Errorf("%+v", s)
		}
	})
	for name, used := range map[string]int{"another choice": 0, "another choice, two tries left": 1, "another choice, one try left": 2} {
		t.Run(name, func(t *testing.T) {
			b := pulled(t)
			b.onCard(func(p device.PIV) error {
				for range used {
					if err := p.VerifyPIN(ctx, secret.New([]byte("31415926"))); !errors.As(err, new(*device.PINError)) {
						return fmt.Errorf("a wrong PIN: %w", err)
					}
				}
				return nil
			})
			err := b.SetPIN(ctx, officer, pivID, secret.New([]byte("59302614")))
			if !errors.As(err, new(*device.PINError)) || !strings.Contains(err.Error(), "tokendesk piv unblock yk-10000001") {
				t.Errorf("%v", err)
			}
			left := max(1-used, 0)
			if used == 1 {
				left = 1 // the holder's choice costs no last try
			}
			for range 2 {
				wantRefused(t, b.SetPIN(ctx, officer, pivID, secret.New([]byte("59302614"))), "tokendesk piv unblock")
				if s := b.onIt(); s.PINRetries != left {
					t.Errorf("%d tries left, want %d", s.PINRetries, left)
				}
			}
			_, err = b.TakePIN(ctx, officer, pivID)
			wantRefused(t, err, "taken already")
			if all := fmt.Sprint(b.history(pivID)); !strings.Contains(all, "piv pin: drop") {
				t.Errorf("the trail does not tell of it: %s", all)
			}
			if err := b.UnblockPIV(ctx, officer, pivID, b.tell); err != nil {
				t.Fatal(err)
			}
			b.wantOurs(pivID)
		})
	}
}

// Giving an unblocking up leaves a PIN that nobody knows, or may: it says what to do.
func TestUndoneUnblockSaysHowToGoOn(t *testing.T) {
	b := newCardBench(t, firmware5)
	b.provisioned() // its PIN was told to nobody
	plan{name: "piv unblock", begin: func(ctx context.Context, b *bench, tell provision.Tell) error {
		return b.UnblockPIV(ctx, officer, pivID, tell)
	}}.crash(t, b, "seal")
	if err := b.Undo(t.Context(), officer, pivID, b.tell); err != nil {
		t.Fatal(err)
	}
	if !b.told("unblock it again: tokendesk piv unblock yk-10000001") {
		t.Errorf("%+v", b.seen)
	}
	if err := b.UnblockPIV(t.Context(), officer, pivID, b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantOurs(pivID)
}

// A provisioning on a card that is dead can be given up by its name.
func TestUndoOnDeadCard(t *testing.T) {
	b := newCardBench(t, firmware5)
	plan{name: "piv provision", begin: func(_ context.Context, b *bench, _ provision.Tell) error {
		_, err := b.provision(provision.PIVProvision{User: "alice"})
		return err
	}}.crash(t, b, "seal")
	b.card.pull(true)
	err := b.Undo(t.Context(), officer, pivID, b.tell)
	if !errors.Is(err, device.ErrGone) || !strings.Contains(err.Error(), "tokendesk delete "+string(pivID)) {
		t.Fatalf("%v", err)
	}
	_, _, err = b.Do(t.Context(), officer, provision.Order{Action: provision.ActDelete, Tokens: []device.TokenID{pivID}, Reason: "dead"})
	if _, begun := b.job(pivID); err != nil || begun || b.exists(pivID) {
		t.Errorf("%v", err)
	}
}
