package daemon_test

import (
	"context"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault/secret"
)

// TestApplicationsKilledAfterEveryStep kills the daemon after every transaction of plans about tokens that are no slots of a
// keyboard. After a restart and a resolve the device gives codes of the vault's seed, or holds nothing. Each has a world of its own:
// keys that may be faces of one wait for each other.
func TestApplicationsKilledAfterEveryStep(t *testing.T) {
	for _, of := range []struct {
		token device.TokenID
		world world.Options
		plans []string
	}{
		{"nk-00003e7a/oath:alice", world.Options{Nitrokeys: []string{"serial=00003e7a,model=3"}}, []string{"enroll", "reissue", "reseed", "wipe"}},
		{"yk-20000001/oath:alice", world.Options{Keys: []string{keyOf(20000001)}, Cards: 1}, []string{"enroll"}},
		{"nk-00005d19/hotp1", world.Options{Nitrokeys: []string{"serial=00005d19,model=storage"}}, []string{"enroll"}},
	} {
		t.Run(string(of.token), func(t *testing.T) {
			after := ""
			of.world.Daemon = mortal(t, &after)
			w := start(t, of.world)
			for _, plan := range of.plans {
				for _, step := range provision.Steps()[plan] {
					t.Run(plan+"/"+step, func(t *testing.T) {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						app{t, w, of.token}.dies(ctx, plan, step, &after)
					})
				}
			}
			checkVault(t, w)
		})
	}
}

// app is a token of a world.
type app struct {
	*testing.T
	w  *world.World
	id device.TokenID
}

// dies has the daemon end after a step of a plan, and settles it. It leaves nothing.
func (a app) dies(ctx context.Context, plan, step string, after *string) {
	a.Helper()
	a.await(ctx)
	a.learn(ctx)
	owner := "alice"
	if plan != "enroll" {
		a.must(a.work(ctx, "/v1/enroll", a.enrollment()))
	}
	restart(a.T, a.w, after, plan+"/"+step)
	a.await(ctx)
	path, body := a.path("/"+plan), any(nil)
	switch plan {
	case "enroll":
		path, body = "/v1/enroll", a.enrollment()
	case "reissue":
		owner, body = "bob", api.Reissue{User: "bob"}
	case "wipe":
		body = api.OptionalReason{Reason: "a test"}
	}
	if err := a.work(ctx, path, body); err == nil {
		a.Fatal("the daemon survived its death")
	}
	expectKilled(a.T, a.w)
	*after = ""
	if err := a.w.StartDaemon(); err != nil {
		a.Fatal(err)
	}
	a.await(ctx)
	if now, there := a.token(ctx); there && now.Unfinished != "" {
		a.must(a.work(ctx, a.path("/resolve"), api.Resolve{}))
	}
	if plan != "wipe" {
		if now, _ := a.token(ctx); now.Status != "active" || now.Owner != owner || now.Unfinished != "" {
			a.Fatalf("%s is %s, belongs to %q, %s", a.id, now.Status, now.Owner, now.Unfinished)
		}
		awaitPushed(ctx, a.T, a.w)
		a.must(a.work(ctx, a.path("/test"), api.Codes{Capture: true}))
		a.must(a.work(ctx, a.path("/wipe"), api.OptionalReason{Reason: "for the next one"}))
	}
	if now, there := a.token(ctx); there {
		a.Fatalf("it is still there: %+v", now)
	}
	awaitPushed(ctx, a.T, a.w)
}

// await waits until the desk knows the device, with the card that it is reached through.
func (a app) await(ctx context.Context) {
	a.Helper()
	row, _ := device.ApplicationOf(a.id)
	card := row.Faces[0] == device.Cards
	seen, end := context.WithCancel(ctx)
	defer end()
	err := a.w.Client.Watch(seen, func(e api.KeyEvent) error {
		if e.Key.ID == string(a.id.Device()) && (e.Key.Card != nil || !card) && e.Event != "removed" {
			end()
		}
		return nil
	})
	if ctx.Err() != nil {
		a.Fatalf("%s is not seen: %v", a.id.Device(), err)
	}
}

// learn gives the desk the admin PIN of a Nitrokey Pro.
func (a app) learn(ctx context.Context) {
	a.Helper()
	if row, _ := device.ApplicationOf(a.id); row.Faces[0] == device.Reports {
		a.must(a.tells(ctx, "12345678"))
	}
}

// tells gives the desk a password for the device.
func (a app) tells(ctx context.Context, password string) error {
	return a.w.Client.PostSecret(ctx, a.path("/password"), nil, new(api.Outcome), secret.New([]byte(password)))
}

func (a app) enrollment() api.Enroll {
	_, name, _ := strings.Cut(string(a.id), "/")
	return api.Enroll{Device: string(a.id.Device()), App: name, User: "alice", Digits: 6}
}

func (a app) path(action string) string { return "/v1/tokens/" + string(a.id) + action }

// work has the daemon do something, and touches the device as long as it asks for that.
func (a app) work(ctx context.Context, path string, body any) error {
	stop := func() {}
	defer func() { stop() }()
	_, err := a.w.Client.Work(ctx, path, body, func(p api.Progress) {
		stop()
		stop = func() {}
		if p.Kind == "touch" {
			stop = a.press(ctx)
		}
	})
	return err
}

// press touches the device until it has felt it, or stop is called: its card may be about to ask for it only.
func (a app) press(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, serial, _ := strings.Cut(string(a.id.Device()), "-")
		for ctx.Err() == nil {
			if felt, err := a.w.Emulator.Touch(ctx, serial, false, 1); err != nil || felt[0].To != "nobody" {
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

func (a app) must(err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

func (a app) token(ctx context.Context) (now api.Token, there bool) {
	a.Helper()
	err := a.w.Client.Get(ctx, a.path(""), nil, &now)
	if err != nil && !isGone(err) {
		a.Fatal(err)
	}
	return now, err == nil
}
