package provision_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator"
	"tokendesk/device/otpslot"
	"tokendesk/provision"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

const serial device.Serial = 10000001

var (
	slot1 = device.SlotToken(device.YubiKeyID(serial), 1)
	slot2 = device.SlotToken(device.YubiKeyID(serial), 2)
)

var officer = audit.Officer{UID: 1000, Name: "olga"}

// bench is a desk with one key: the emulator behind its socket, a vault on disk and a Runner.
type bench struct {
	*provision.Runner
	t     testing.TB
	key   *emulator.YubiKey
	bus   *bussocket.Bus
	path  string // of the vault
	touch bool   // somebody touches the key when asked to
	card  *card  // the key's smart card; nil: it has none

	// Called on the device right before it is programmed or erased, or asked for codes. May be nil.
	beforeProgram, beforeCode func(device.HOTPToken)

	mu   sync.Mutex
	seen []provision.Progress
}

func newBench(t testing.TB) *bench {
	t.Helper()
	return newBenchOf(t, serial)
}

func newBenchOf(t testing.TB, serial device.Serial) *bench {
	t.Helper()
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "vault"), touch: true, key: emulator.New(emulator.Options{
		Serial: serial, Firmware: device.Version{Major: 5, Minor: 4, Build: 3}, Timing: &emulator.Timing{},
	})}
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "emu.sock")
	server, err := emulator.Listen(socket, b.key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	b.bus = bussocket.New(socket)
	b.start(vaulttest.Create(t, b.path))
	return b
}

// start is a fresh Runner on a vault, as after the daemon's start.
func (b *bench) start(v *vault.Vault) {
	vaulttest.CheckAtEnd(b.t, v)
	b.Runner = &provision.Runner{Vault: v, Open: b.open, Log: slog.New(slog.DiscardHandler)}
	if b.card != nil {
		b.OpenPIV = b.openPIV
	}
}

// restart opens the vault again, after a crash.
func (b *bench) restart() {
	b.t.Helper()
	if err := b.Vault.Close(); err != nil {
		b.t.Fatal(err)
	}
	v := vaulttest.Open(b.t, b.path)
	if err := v.Check(); err != nil {
		b.t.Fatal(err)
	}
	b.start(v)
}

func (b *bench) open(ctx context.Context, id device.TokenID, fn func(device.HOTPToken, bool) error) error {
	if id.Device() != device.YubiKeyID(b.key.Serial()) {
		return fmt.Errorf("%s: %w", id, device.ErrGone)
	}
	report, err := b.bus.Open(ctx, "emu1:1.0")
	if err != nil {
		return err
	}
	defer report.Close()
	slot, err := otpslot.New(report).Slot(id.Slot())
	if err != nil {
		return err
	}
	return fn(&watched{slot, b}, true)
}

// watched is a real slot; the bench does something right before it is used.
type watched struct {
	*otpslot.Slot
	b *bench
}

func (w *watched) Program(ctx context.Context, c device.HOTPConfig) error {
	if w.b.beforeProgram != nil {
		w.b.beforeProgram(w.Slot)
	}
	return w.Slot.Program(ctx, c)
}

func (w *watched) Delete(ctx context.Context, code secret.Secret) error {
	if w.b.beforeProgram != nil {
		w.b.beforeProgram(w.Slot)
	}
	return w.Slot.Delete(ctx, code)
}

func (w *watched) Code(ctx context.Context) (string, error) {
	if w.b.beforeCode != nil {
		w.b.beforeCode(w.Slot)
	}
	return w.Slot.Code(ctx)
}

// tell notes progress, and touches the key when asked to.
func (b *bench) tell(p provision.Progress) {
	b.mu.Lock()
	b.seen = append(b.seen, p)
	b.mu.Unlock()
	if p.Kind == provision.Touch && b.touch {
		b.key.Touch(p.Slot == 2) // a pulled key cannot be touched, which is all that can go wrong
	}
}

// touches is how often somebody was asked to touch the key since the last call, and forgets everything seen.
func (b *bench) touches() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.seen {
		if p.Kind == provision.Touch {
			n++
		}
	}
	b.seen = nil
	return n
}

func (b *bench) noted(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.seen, func(p provision.Progress) bool {
		return p.Kind == provision.Note && strings.Contains(p.Text, text)
	})
}

func enrollment(id device.TokenID, user string) provision.Enrollment {
	return provision.Enrollment{Token: id, User: user, Digits: 6, Enter: true}
}

func (b *bench) enroll(ctx context.Context, e provision.Enrollment) error {
	_, err := b.Enroll(ctx, officer, e, b.tell)
	return err
}

// enrolled enrolls a token that has to succeed.
func (b *bench) enrolled(id device.TokenID, user string) {
	b.t.Helper()
	if err := b.enroll(b.t.Context(), enrollment(id, user)); err != nil {
		b.t.Fatal(err)
	}
	b.touches()
}

func (b *bench) view(fn func(tx *vault.Tx) error) {
	b.t.Helper()
	if err := b.Vault.View(fn); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) update(fn func(tx *vault.Tx) error) {
	b.t.Helper()
	if err := b.Vault.Update(fn); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) token(id device.TokenID) (t vault.Token) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) (err error) { t, err = tx.Token(id); return err })
	return t
}

// exists tells whether a token is in the vault.
func (b *bench) exists(id device.TokenID) bool {
	err := b.Vault.View(func(tx *vault.Tx) error { _, err := tx.Token(id); return err })
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		b.t.Fatal(err)
	}
	return err == nil
}

// job is the token's unfinished work; found is false if it has none.
func (b *bench) job(id device.TokenID) (j vault.Job, found bool) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) (err error) { j, found, err = tx.JobFor(id); return err })
	return j, found
}

// outbox is what waits for the central service: "put/1 assign/1:alice".
func (b *bench) outbox() string {
	b.t.Helper()
	var list []string
	b.view(func(tx *vault.Tx) error {
		changes, err := tx.ChangesFrom(0, 0)
		for _, c := range changes {
			s := fmt.Sprintf("%s/%d", c.Kind, c.Generation)
			if c.User != "" && c.Kind != vault.Put {
				s += ":" + c.User
			}
			list = append(list, s)
		}
		return err
	})
	return strings.Join(list, " ")
}

func (b *bench) wantOutbox(want string) {
	b.t.Helper()
	if got := b.outbox(); got != want {
		b.t.Errorf("outbox: %q, want %q", got, want)
	}
}

func (b *bench) seed(id device.TokenID, generation int) (s secret.Secret, err error) {
	err = b.Vault.View(func(tx *vault.Tx) (err error) { s, err = tx.Seed(id, generation); return err })
	return s, err
}

func (b *bench) accessCode(id device.TokenID) (code secret.Secret) {
	b.view(func(tx *vault.Tx) (err error) { code, err = tx.AccessCode(id); return err })
	return code
}

// wantOnDevice touches the key and compares with the seed and the counter in the vault.
func (b *bench) wantOnDevice(id device.TokenID) {
	b.t.Helper()
	t := b.token(id)
	s, err := b.seed(id, t.Generation)
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.Wipe()
	typed := strings.TrimSpace(b.typed(id))
	code := typed[max(0, len(typed)-t.Digits):]
	if want := hotpscan.Code(s, t.Digits, t.Counter); code != want {
		b.t.Errorf("%s types %q; its seed gives %s at counter %d", id, typed, want, t.Counter)
	}
	if identified := len(typed) > t.Digits; identified != t.Identifier {
		b.t.Errorf("%s types %q; identifier: %v", id, typed, t.Identifier)
	}
}

// typed touches the slot of a token that nobody holds.
func (b *bench) typed(id device.TokenID) string {
	b.t.Helper()
	text, held, err := b.key.Touch(id.Slot() == 2)
	if err != nil || held {
		b.t.Fatalf("touch: held %v, %v", held, err)
	}
	return text
}

// occupy programs a slot, as another program would, protected if code is not empty.
func (b *bench) occupy(id device.TokenID, code string, enter bool) {
	b.t.Helper()
	err := b.open(b.t.Context(), id, func(t device.HOTPToken, _ bool) error {
		return t.(*watched).Slot.Program(b.t.Context(), device.HOTPConfig{
			Seed: secret.New([]byte("somebody else's seed")), Digits: 6, Enter: enter, NewAccessCode: secret.New([]byte(code)),
		})
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// behind changes a slot behind the desk's back while the desk works on it: it puts in a foreign seed, or erases it.
func (b *bench) behind(s device.HOTPToken, id device.TokenID, erase bool) {
	code := b.accessCode(id)
	defer code.Wipe()
	var err error
	if erase {
		err = s.Delete(b.t.Context(), code)
	} else {
		err = s.Program(b.t.Context(), device.HOTPConfig{
			Seed: secret.New([]byte("somebody else's seed")), Digits: 6, Enter: true, CurrentAccessCode: code,
		})
	}
	if err != nil {
		b.t.Error(err)
	}
}

// configured tells whether the slot of a token holds something.
func (b *bench) configured(id device.TokenID) (yes bool) {
	b.t.Helper()
	err := b.open(b.t.Context(), id, func(t device.HOTPToken, _ bool) error {
		s, err := t.Describe(b.t.Context())
		yes = s.Configured
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return yes
}

// fault arms a fault for the next write of the slot, once.
func (b *bench) fault(kind emulator.Fault, n int) {
	b.beforeProgram = func(device.HOTPToken) {
		b.beforeProgram = nil
		if err := b.key.SetFault(kind, n); err != nil {
			b.t.Error(err)
		}
	}
}

// wantUnfinished checks that work stopped at a step, is in the journal and says how to settle it.
func (b *bench) wantUnfinished(err error, id device.TokenID, step string, cause error) {
	b.t.Helper()
	var u *provision.UnfinishedError
	if !errors.As(err, &u) || u.Token != id || u.Step != step || cause != nil && !errors.Is(err, cause) {
		b.t.Fatalf("stopped with %v, want at %q with %v", err, step, cause)
	}
	if !strings.Contains(err.Error(), "tokendesk resolve "+string(id)) {
		b.t.Errorf("%q does not say how to go on", err)
	}
	j, found := b.job(id)
	if !found || provision.Steps()[j.Kind][j.Step] != step || j.Problem != u.Err.Error() || j.Officer != officer.Name {
		b.t.Errorf("journal: %+v, %v, want step %q, problem %q", j, found, step, u.Err)
	}
	if got := provision.Waiting(j); !strings.Contains(got, step) || !strings.Contains(got, j.Problem) {
		b.t.Errorf("waiting: %q", got)
	}
}

// wantRefused checks that an action was refused with words that name the way out.
func wantRefused(t testing.TB, err error, words ...string) {
	t.Helper()
	var refused *provision.RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("%v, want a refusal", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

const patience = 20 * time.Second // bounds waits that a bug would make endless
