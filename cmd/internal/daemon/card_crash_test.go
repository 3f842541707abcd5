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

// TestCardKilledAfterEveryStep kills the daemon after every transaction of every plan about a smart card, which is in a reader of a
// pcscd. After a restart and a resolve the vault's PIN, PUK and management key are those of the card, or the card is as it left
// the factory.
func TestCardKilledAfterEveryStep(t *testing.T) {
	const s = device.Serial(20000001)
	after := ""
	w := start(t, world.Options{Keys: []string{keyOf(s)}, Cards: 1, Daemon: mortal(t, &after)})
	deaths := 0
	for plan, steps := range provision.Steps() {
		action, about := strings.CutPrefix(plan, "piv ")
		for _, step := range steps {
			if !about {
				continue
			}
			deaths++
			t.Run(plan+"/"+step, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				c := card{t, w, s}
				if action != "provision" {
					c.await(ctx)
					c.work(ctx, "/v1/piv/yk-20000001/provision", api.ProvisionPIV{User: "alice"})
				}
				restart(t, w, &after, plan+"/"+step)
				c.await(ctx)
				path, body := "/v1/piv/yk-20000001/"+action, any(nil)
				switch action {
				case "provision":
					body = api.ProvisionPIV{User: "alice"}
				case "wipe":
					path, body = "/v1/tokens/yk-20000001/piv/wipe", api.OptionalReason{Reason: "a test"}
				}
				if _, err := w.Client.Work(ctx, path, body, func(api.Progress) {}); err == nil {
					t.Fatal("the daemon survived its death")
				}
				expectKilled(t, w)
				after = ""
				if err := w.StartDaemon(); err != nil {
					t.Fatal(err)
				}
				c.await(ctx)
				if now := c.show(ctx); now.Token != nil && now.Token.Unfinished != "" {
					c.work(ctx, "/v1/tokens/yk-20000001/piv/resolve", api.Resolve{})
				}
				if action != "wipe" {
					c.expectManaged(ctx)
					c.work(ctx, "/v1/tokens/yk-20000001/piv/wipe", api.OptionalReason{Reason: "a test"})
				}
				if now := c.show(ctx); !now.Fresh || now.Token != nil {
					t.Fatalf("the card is not as it left the factory: %+v", now)
				}
			})
		}
	}
	if deaths < 10 {
		t.Errorf("only %d steps to die after", deaths)
	}
	checkVault(t, w)
}

// card is a smart card of a world.
type card struct {
	*testing.T
	w *world.World
	s device.Serial
}

// await waits until the desk knows the card.
func (c card) await(ctx context.Context) {
	c.Helper()
	seen, end := context.WithCancel(ctx)
	defer end()
	err := c.w.Client.Watch(seen, func(e api.KeyEvent) error {
		if e.Key.Serial == uint32(c.s) && e.Key.Card != nil && e.Event != "removed" {
			end()
		}
		return nil
	})
	if ctx.Err() != nil {
		c.Fatalf("the card is not seen: %v", err)
	}
}

func (c card) work(ctx context.Context, path string, body any) api.Outcome {
	c.Helper()
	o, err := c.w.Client.Work(ctx, path, body, func(api.Progress) {})
	if err != nil {
		c.Fatal(err)
	}
	return o
}

func (c card) show(ctx context.Context) (now api.PIV) {
	c.Helper()
	if err := c.w.Client.Get(ctx, "/v1/piv/yk-20000001", nil, &now); err != nil {
		c.Fatal(err)
	}
	return now
}

// expectManaged uses all of the card's secrets that the vault has.
func (c card) expectManaged(ctx context.Context) {
	c.Helper()
	if now := c.show(ctx); len(now.Defaults) != 0 || now.Token == nil || now.Token.Status != "active" || now.Token.Owner != "alice" || now.Token.Unfinished != "" || len(now.Slots) != 1 {
		c.Fatalf("it is not provisioned: %+v", now)
	}
	var out api.PIVRequest // signed with the PIN of the vault
	if err := c.w.Client.PostSecret(ctx, "/v1/piv/yk-20000001/csr", api.CSR{Slot: "9a"}, &out, secret.Secret{}); err != nil {
		c.Fatal(err)
	}
	c.work(ctx, "/v1/piv/yk-20000001/unblock", nil) // by the PUK of the vault
	pin, err := c.w.Client.TakeSecret(ctx, "/v1/piv/yk-20000001/pin")
	if err != nil {
		c.Fatal(err)
	}
	defer pin.Wipe()
	if pin.Len() < device.MinPINSize {
		c.Errorf("a PIN of %d bytes", pin.Len())
	}
}
