package daemon_test

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/tpmseal"
)

const patience = 30 * time.Second

// TestKilledAfterEveryStep kills the daemon after every transaction of every plan, in a world of a software TPM, a
// directory and emulated keys. After a restart no seed is lost, at most two touches settle the token, and the directory
// agrees. The steps come from the code, so that new ones are tried as well.
func TestKilledAfterEveryStep(t *testing.T) {
	type death struct{ plan, step string }
	var deaths []death
	var keys []string
	serial := func(i int) device.Serial { return 20000001 + device.Serial(i) }
	for plan, steps := range provision.Steps() {
		if plan == "reissue with the same seed" || strings.HasPrefix(plan, "piv ") { // of a fob or a card: see package provision
			continue
		}
		for _, step := range steps {
			keys = append(keys, keyOf(serial(len(deaths))))
			deaths = append(deaths, death{plan, step})
		}
	}
	if len(deaths) < 10 {
		t.Fatalf("only %d steps to die after", len(deaths))
	}
	after := ""
	w := start(t, world.Options{Keys: keys, Daemon: mortal(t, &after)})
	for i, d := range deaths {
		t.Run(d.plan+"/"+d.step, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s := serial(i)
			first := enrollment(s, "alice")
			first.App = "otp1"
			switch d.plan {
			case "enroll":
			case "replace":
				enrollAs(ctx, t, w, s, first)
			default:
				enroll(ctx, t, w, s, "alice")
			}
			restart(t, w, &after, d.plan+"/"+d.step)
			if err := w.AwaitKeys(ctx, s); err != nil {
				t.Fatal(err)
			}
			user, path, body := "alice", tokenPath(s)+"/"+d.plan, any(nil)
			switch d.plan {
			case "enroll":
				path, body = "/v1/enroll", enrollment(s, user)
			case "reissue":
				user, body = "bob", api.Reissue{User: "bob"}
			case "reissue without device":
				user, path, body = "bob", tokenPath(s)+"/reissue", api.Reissue{User: "bob", WithoutDevice: true}
			case "replace": // the first slot by the second
				path = "/v1/tokens/" + string(device.SlotToken(device.YubiKeyID(s), 1)) + "/reissue"
				body = api.Reissue{With: string(device.SlotToken(device.YubiKeyID(s), 2)), Old: "lost", Enter: true}
			case "wipe":
				body = api.OptionalReason{Reason: "a test"}
			}
			_, _, err := work(ctx, w, s, path, body)
			if err == nil && d.plan == "reissue without device" { // it waits for the device, which turns up
				_, _, err = work(ctx, w, s, tokenPath(s)+"/resolve", api.Resolve{})
			}
			if err == nil {
				t.Fatal("the daemon survived its death")
			}
			expectKilled(t, w)

			after = ""
			if err := w.StartDaemon(); err != nil {
				t.Fatal(err)
			}
			settle(ctx, t, w, s)
			if d.plan == "wipe" {
				expectGone(ctx, t, w, s, user)
				return
			}
			expectSettled(ctx, t, w, s, user)
			order(ctx, t, w, s, "unassign") // for the next one
		})
	}
	checkVault(t, w)
}

func restart(t *testing.T, w *world.World, after *string, at string) {
	t.Helper()
	if err := w.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	*after = at
	if err := w.StartDaemon(); err != nil {
		t.Fatal(err)
	}
}

// expectKilled waits until the daemon is gone, which did not end by itself.
func expectKilled(t *testing.T, w *world.World) {
	t.Helper()
	state, err := w.AwaitDaemonEnd()
	if err != nil {
		t.Fatal(err)
	}
	if status := state.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Fatalf("the daemon ended by itself: %v", state)
	}
}

func enrollment(s device.Serial, user string) api.Enroll {
	return api.Enroll{Device: string(device.YubiKeyID(s)), App: "otp2", User: user, Digits: 6, Enter: true}
}

func enroll(ctx context.Context, t *testing.T, w *world.World, s device.Serial, user string) {
	t.Helper()
	enrollAs(ctx, t, w, s, enrollment(s, user))
}

func enrollAs(ctx context.Context, t *testing.T, w *world.World, s device.Serial, e api.Enroll) {
	t.Helper()
	if err := w.AwaitKeys(ctx, s); err != nil {
		t.Fatal(err)
	}
	outcome, _, err := work(ctx, w, s, "/v1/enroll", e)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range outcome.Changes {
		if c.State != "confirmed" {
			t.Fatalf("%s is %s: %s", c.Kind, c.State, c.Problem)
		}
	}
}

// work has the daemon do something, touches the key whenever it asks, and counts the touches.
func work(ctx context.Context, w *world.World, s device.Serial, path string, body any) (o api.Outcome, touches int, err error) {
	o, err = w.Client.Work(ctx, path, body, func(p api.Progress) {
		if p.Kind == "touch" {
			touches++
			w.Press(ctx, s, p.Slot == 2)
		}
	})
	return o, touches, err
}

// settle finishes what the crash has left, if anything, with at most two touches.
func settle(ctx context.Context, t *testing.T, w *world.World, s device.Serial) {
	t.Helper()
	if err := w.AwaitKeys(ctx, s); err != nil { // also lest the desk, identifying it, gets what is typed later
		t.Fatal(err)
	}
	var token api.Token
	if err := w.Client.Get(ctx, tokenPath(s), nil, &token); err != nil && !isGone(err) {
		t.Fatal(err)
	}
	if token.Unfinished == "" {
		return
	}
	for range 2 { // the first may find only that the device is to be inserted, which it is
		out, touches, err := work(ctx, w, s, tokenPath(s)+"/resolve", api.Resolve{})
		if err != nil || touches > 2 {
			t.Fatalf("%d touches did not settle it: %v", touches, err)
		}
		if out.Token == nil || out.Token.Unfinished == "" {
			return
		}
	}
	t.Fatal("it is still unfinished")
}

// expectSettled logs in at the directory with the key's next code.
func expectSettled(ctx context.Context, t *testing.T, w *world.World, s device.Serial, user string) {
	t.Helper()
	awaitPushed(ctx, t, w)
	var token api.Token
	if err := w.Client.Get(ctx, tokenPath(s), nil, &token); err != nil {
		t.Fatal(err)
	}
	if token.Status != "active" || token.Owner != user || token.Unfinished != "" {
		t.Fatalf("%s is %s, belongs to %q, %s", token.ID, token.Status, token.Owner, token.Unfinished)
	}
	codes, err := w.Touch(ctx, s, true, 1)
	if err != nil || len(codes) != 1 {
		t.Fatalf("the key typed %d codes: %v", len(codes), err)
	}
	if answer, ok, err := w.WhoAmI(ctx, w.Slapd, user, codes[0]); err != nil || !ok {
		t.Fatalf("%s is not accepted: %s %v", user, answer, err)
	}
	if answer, ok, err := w.WhoAmI(ctx, w.Slapd, user, ""); err != nil || ok {
		t.Fatalf("%s is accepted without a code: %s %v", user, answer, err)
	}
}

func isGone(err error) bool {
	known := (*api.Error)(nil)
	return errors.As(err, &known) && known.Code == api.NotFound
}

// expectGone looks for a token that was wiped, where it should not be any more.
func expectGone(ctx context.Context, t *testing.T, w *world.World, s device.Serial, user string) {
	t.Helper()
	awaitPushed(ctx, t, w)
	if err := w.Client.Get(ctx, tokenPath(s), nil, new(api.Token)); !isGone(err) {
		t.Fatalf("the token is still there: %v", err)
	}
	var left api.UserTokens
	if err := w.Client.Get(ctx, "/v1/users/"+user, nil, &left); err != nil || !left.Known || len(left.Tokens) != 0 {
		t.Fatalf("%s has %+v: %v", user, left, err)
	}
	var there api.Drift
	if err := w.Client.Get(ctx, "/v1/drift", url.Values{"token": {string(device.SlotToken(device.YubiKeyID(s), 2))}}, &there); err != nil || len(there.Rows) != 0 {
		t.Fatalf("it is still there centrally: %+v: %v", there.Rows, err)
	}
	var found api.Keys
	if err := w.Client.Get(ctx, "/v1/devices", nil, &found); err != nil {
		t.Fatal(err)
	}
	for _, k := range found.Keys {
		if k.Serial == uint32(s) && k.Slots[1].Configured {
			t.Fatal("its slot is not erased")
		}
	}
}

// awaitPushed waits until the outbox is empty.
func awaitPushed(ctx context.Context, t *testing.T, w *world.World) {
	t.Helper()
	for {
		var left api.Changes
		if err := w.Client.Get(ctx, "/v1/outbox", nil, &left); err != nil {
			t.Fatal(err)
		}
		if len(left.Changes) == 0 {
			return
		}
		for _, c := range left.Changes {
			if c.State == "parked" {
				t.Fatalf("%s of %s is parked: %s", c.Kind, c.Token, c.Problem)
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the outbox does not drain: %+v", left.Changes)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// checkVault stops the daemon and checks everything in its vault.
func checkVault(t *testing.T, w *world.World) {
	t.Helper()
	withVault(t, w, func(v *vault.Vault) {
		if err := v.Check(); err != nil {
			t.Error(err)
		}
	})
}

// withVault stops the daemon and opens its vault.
func withVault(t *testing.T, w *world.World, fn func(*vault.Vault)) {
	t.Helper()
	if err := w.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	v := vault.At(filepath.Join(w.Dir, "vault.db"), func() (vault.Sealer, error) {
		tpm, err := tpmseal.Open(w.TPM)
		if err != nil {
			return nil, err
		}
		return tpm, nil
	})
	if err := v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	fn(v)
}
