package provision_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/drivers"
	"tokendesk/device/emulator"
	"tokendesk/device/emulator/nitrokeypro"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/provision"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// exchange is one command to a device: the number of it, and what a pull does at it.
type exchange struct {
	left  int // exchanges until the device is pulled; negative: never
	after bool
	gone  bool // it is out
}

// pass counts an exchange, and lets it happen unless the device is out by then.
func (x *exchange) pass(do func()) error {
	if x.gone {
		return device.ErrGone
	}
	x.left--
	pulled := x.left == -1
	if !pulled || x.after {
		do()
	}
	if pulled {
		x.gone = true
		return device.ErrGone
	}
	return nil
}

// appBench is a desk with one device that is not the slot of a YubiKey's keyboard.
type appBench struct {
	*provision.Runner
	t    *testing.T
	path string
	id   device.TokenID
	x    exchange

	card *smartcard.Card
	pro  *nitrokeypro.Token
}

// pluggedCard is a smart card without reader.
type pluggedCard struct{ b *appBench }

func (c pluggedCard) Transmit(apdu []byte) (data []byte, status uint16, err error) {
	more := byte(0xC0)
	if c.b.id.Device().Family() == device.YubiKey && apdu[1] != 0xA4 && apdu[1] != 0x1D {
		more = 0xA5 // what a YubiKey's OATH application wants (package pcsc)
	}
	for {
		var answer []byte
		if err := c.b.x.pass(func() { answer = c.b.card.Transmit(apdu) }); err != nil {
			return nil, 0, err
		}
		if len(answer) < 2 {
			return nil, 0, device.ErrGone
		}
		n := len(answer) - 2
		data = append(data, answer[:n]...)
		if answer[n] != 0x61 {
			return data, uint16(answer[n])<<8 | uint16(answer[n+1]), nil
		}
		apdu = []byte{0, more, 0, 0, 0}
	}
}

func (pluggedCard) Close() error { return nil }

// pluggedReport is a Nitrokey Pro without USB.
type pluggedReport struct{ b *appBench }

func (r pluggedReport) SetFeature(p []byte) error {
	return r.b.x.pass(func() { r.b.pro.SetFeature(p[1:]) })
}

func (r pluggedReport) GetFeature(p []byte) error {
	return r.b.x.pass(func() { r.b.pro.GetFeature(p[1:]) })
}

func (pluggedReport) ReadInput([]byte, time.Duration) (int, error) { return 0, nil }
func (pluggedReport) Close() error                                 { return nil }

func newAppBench(t *testing.T, id device.TokenID) *appBench {
	t.Helper()
	b := &appBench{t: t, id: id, path: filepath.Join(t.TempDir(), "vault")}
	b.x.left = -1
	s, _ := id.Device().Serial()
	row, _ := device.ApplicationOf(id)
	switch {
	case row.Faces[0] == device.Reports && row.Family == device.Nitrokey:
		model, _ := device.FindModel(device.NitrokeyVendor, 0x4109)
		b.pro = nitrokeypro.New(nitrokeypro.Options{Model: model, Serial: s, Timing: &nitrokeypro.Timing{}})
	case row.Faces[0] == device.Reports:
		key := emulator.New(emulator.Options{Serial: s, Firmware: firmwareOf(id), Timing: &emulator.Timing{}, VPCD: "nowhere"})
		b.card = key.Card()
		b.card.PowerUp()
	default:
		b.card = smartcard.New(smartcard.Options{Serial: s, Firmware: firmwareOf(id), Nitrokey3: row.Family == device.Nitrokey})
	}
	b.start(vaulttest.Create(t, b.path))
	return b
}

// stale is a key whose card tells of its slots as they were when it was inserted.
const stale device.TokenID = "yk-10000534/otp2"

func firmwareOf(id device.TokenID) device.Version {
	switch {
	case id.Device().Family() == device.Nitrokey:
		return device.Version{Major: 4, Minor: 14}
	case id == stale:
		return device.Version{Major: 5, Minor: 3, Build: 4}
	}
	return device.Version{Major: 5, Minor: 7, Build: 1}
}

func (b *appBench) start(v *vault.Vault) {
	vaulttest.CheckAtEnd(b.t, v)
	b.Runner = &provision.Runner{Vault: v, Open: b.open, Log: slog.New(slog.DiscardHandler)}
}

// insert plugs the device in, which has forgotten what it knew while it had power.
func (b *appBench) insert() {
	b.x = exchange{left: -1}
	if b.pro != nil {
		b.pro.PowerDown()
		b.pro.PowerUp()
	} else {
		b.card.PowerUp()
	}
}

func (b *appBench) session(ctx context.Context) (device.Session, error) {
	if b.pro != nil {
		return drivers.OverReport(device.Info{Vendor: device.NitrokeyVendor, Product: 0x4109}, pluggedReport{b}), nil
	}
	return drivers.OverCard(ctx, pluggedCard{b})
}

func (b *appBench) open(ctx context.Context, id device.TokenID, fn func(device.HOTPToken, bool) error) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	t, err := s.Token(ctx, id)
	if err != nil {
		return err
	}
	return fn(t, true)
}

func quietly(provision.Progress) {}

// learn gives the desk the password that the device wants, if it wants one.
func (b *appBench) learn() {
	b.t.Helper()
	if b.pro == nil {
		return
	}
	if err := b.LearnPassword(b.t.Context(), officer, b.id, secret.New([]byte(nitrokeypro.FactoryAdminPIN)), quietly); err != nil {
		b.t.Fatal(err)
	}
}

// expectWorking checks that the token is active, and that the device gives its codes.
func (b *appBench) expectWorking(owner string) {
	b.t.Helper()
	var seed secret.Secret
	defer func() { seed.Wipe() }()
	var token vault.Token
	err := b.Vault.View(func(tx *vault.Tx) (err error) {
		if token, err = tx.Token(b.id); err == nil {
			seed, err = tx.Seed(b.id, token.Generation)
		}
		return err
	})
	if err != nil || token.Status != vault.Active || token.Owner != owner {
		b.t.Fatalf("%s is %s, of %q: %v", b.id, token.Status, token.Owner, err)
	}
	if b.elsewhere() {
		return // its codes are somebody's to type
	}
	var codes []string
	accept := func(now []string) (bool, error) { codes = now; return len(now) == 2, nil }
	if err := b.Capture(b.t.Context(), b.id, accept, func(string) {}, quietly); err != nil {
		b.t.Fatal(err)
	}
	if !fits(seed, token, codes) {
		b.t.Fatal("the device does not give codes of the sealed seed")
	}
}

func (b *appBench) elsewhere() bool { return b.id.Slot() != 0 }

// fits tells whether codes are the next two of a token, or follow after some that nobody has seen.
func fits(seed secret.Secret, t vault.Token, codes []string) bool {
	for n := t.Counter; n < t.Counter+20; n++ {
		if codes[0] == hotpscan.Code(seed, t.Digits, n) && codes[1] == hotpscan.Code(seed, t.Digits, n+1) {
			return true
		}
	}
	return false
}

// finish has work end that waits for codes which somebody types, if it does.
func (b *appBench) finish(err error) error {
	if errors.Is(err, provision.ErrCodesWanted) {
		_, err = b.Resolve(b.t.Context(), officer, b.id, b.typed(), quietly)
	}
	return err
}

// typed are two codes of the seed that was programmed last, as the key types them into another window.
func (b *appBench) typed() (codes []string) {
	b.t.Helper()
	err := b.Vault.View(func(tx *vault.Tx) error {
		all, err := tx.Generations(b.id)
		if err != nil {
			return err
		}
		seed, err := tx.Seed(b.id, slices.Max(all))
		if err == nil {
			codes = []string{hotpscan.Code(seed, 6, 0), hotpscan.Code(seed, 6, 1)}
			seed.Wipe()
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return codes
}

func (b *appBench) enroll() error {
	_, err := b.Enroll(b.t.Context(), officer, provision.Enrollment{Token: b.id, User: "alice", Digits: 6}, quietly)
	return b.finish(err)
}

func (b *appBench) reissue() error {
	_, err := b.Reissue(b.t.Context(), officer, provision.Reissue{Token: b.id, User: "bob"}, quietly)
	return b.finish(err)
}

func (b *appBench) wipe() error {
	_, err := b.Wipe(b.t.Context(), officer, b.id, "a test", quietly)
	return err
}

// expectGone checks that neither the vault nor the device has the token, and that its device's password went with it.
func (b *appBench) expectGone() {
	b.t.Helper()
	err := b.Vault.View(func(tx *vault.Tx) error {
		_, err := tx.Token(b.id)
		if _, also := tx.Password(b.id.Keeper()); errors.Is(err, vault.ErrNotFound) {
			err = also
		}
		return err
	})
	if !errors.Is(err, vault.ErrNotFound) {
		b.t.Fatalf("it is still there: %v", err)
	}
	b.insert()
	err = b.open(b.t.Context(), b.id, func(t device.HOTPToken, _ bool) error {
		state, err := t.Describe(b.t.Context())
		if state.Configured {
			b.t.Error("the device still holds something")
		}
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestPulledAtEveryExchange pulls devices of every kind at every command, before it and after it, and settles what that has left.
func TestPulledAtEveryExchange(t *testing.T) {
	for _, id := range []device.TokenID{stale, "yk-10000001/otp2", "yk-10000001/oath:alice", "nk-00003e7a/oath:alice", "nk-00005d19/hotp1"} {
		for _, plan := range []struct {
			name   string
			before func(*appBench) error
			do     func(*appBench) error
			expect func(*appBench)
			undo   bool // it can be given up
		}{
			{"enroll", nil, (*appBench).enroll, func(b *appBench) { b.expectWorking("alice") }, true},
			{"reissue", (*appBench).enroll, (*appBench).reissue, func(b *appBench) { b.expectWorking("bob") }, false},
			{"wipe", (*appBench).enroll, (*appBench).wipe, (*appBench).expectGone, false},
		} {
			t.Run(string(id)+" "+plan.name, func(t *testing.T) {
				pulls := 0
				for n := 0; ; n++ {
					b := newAppBench(t, id)
					b.learn()
					if plan.before != nil {
						if err := plan.before(b); err != nil {
							t.Fatal(err)
						}
					}
					b.x = exchange{left: n / 2, after: n%2 == 1}
					err := plan.do(b)
					pulled := b.x.gone
					b.insert()
					if err != nil && !(pulled && errors.Is(err, device.ErrGone)) {
						t.Fatalf("exchange %d: %v", n/2, err)
					}
					if err != nil {
						b.settle(plan.do, plan.undo && n%3 == 2)
					}
					plan.expect(b)
					if !pulled {
						break
					}
					pulls++
				}
				if pulls < 6 {
					t.Errorf("it was pulled only %d times", pulls)
				}
			})
		}
	}
}

// settle finishes what a pull has left, or gives it up and begins anew.
func (b *appBench) settle(do func(*appBench) error, undo bool) {
	b.t.Helper()
	var unfinished bool
	err := b.Vault.View(func(tx *vault.Tx) (err error) { _, unfinished, err = tx.JobFor(b.id); return err })
	switch {
	case err != nil:
	case !unfinished:
		err = do(b)
	case undo:
		if err = b.Undo(b.t.Context(), officer, b.id, quietly); err == nil {
			b.expectGone()
			b.learn()
			err = do(b)
		}
	default:
		_, err = b.Resolve(b.t.Context(), officer, b.id, nil, quietly)
		err = b.finish(err)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// What a device does not ask for is not sealed, and what it has refused is not shown to it again.
func TestPasswords(t *testing.T) {
	for _, id := range []device.TokenID{"yk-10000001/oath:alice", "nk-00003e7a/oath:alice", "yk-10000001/otp2"} {
		b := newAppBench(t, id)
		refused := (*provision.RefusedError)(nil)
		if err := b.LearnPassword(t.Context(), officer, id, secret.New([]byte("some-junk")), quietly); !errors.As(err, &refused) {
			t.Errorf("%s: %v", id, err)
		}
	}
	b := newAppBench(t, "nk-00005d19/hotp1")
	var wrong *device.PINError
	if err := b.LearnPassword(t.Context(), officer, b.id, secret.New([]byte("87654321")), quietly); !errors.As(err, &wrong) || wrong.Retries != 2 {
		t.Errorf("a wrong one: %v", err)
	}
	err := b.Vault.Update(func(tx *vault.Tx) error { return tx.SetPassword(b.id.Keeper(), secret.New([]byte("87654321"))) })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.enroll(); !errors.As(err, &wrong) || wrong.Retries != 1 {
		t.Errorf("one that was the right one once: %v", err)
	}
	for range 3 {
		if err := b.enroll(); !errors.Is(err, device.ErrLocked) {
			t.Errorf("after that: %v", err)
		}
	}
	if tries := b.pro.AdminTries(); tries != 1 {
		t.Errorf("%d tries are left", tries)
	}
}

func TestForgottenPassword(t *testing.T) {
	b := newAppBench(t, "nk-00005d19/hotp1")
	if err := b.LearnPassword(t.Context(), officer, b.id, secret.New([]byte(nitrokeypro.FactoryAdminPIN)), quietly); err != nil {
		t.Fatal(err)
	}
	if err := b.ForgetPassword(officer, b.id); err != nil {
		t.Fatal(err)
	}
	for _, id := range []device.TokenID{b.id, "nk-00005d19/hotp2", "yk-10000001/otp2", "yk-10000001/oath:alice", "fob-2308001"} {
		var refused *provision.RefusedError
		if err := b.ForgetPassword(officer, id); !errors.As(err, &refused) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if err := b.enroll(); !errors.Is(err, device.ErrLocked) {
		t.Errorf("without it: %v", err)
	}
	if tries := b.pro.AdminTries(); tries != 3 {
		t.Errorf("%d tries are left", tries)
	}
}
