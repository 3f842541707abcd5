//go:build guest

package e2e

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ebfe/scard"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

const cardKey device.Serial = 80000001

var errFound = errors.New("that is how it should be")

// awaitKey waits until the desk sees one key and no other, which is as wanted.
func (d *desk) awaitKey(what string, wanted func(api.Key) bool) api.Key {
	d.Helper()
	seen := map[string]api.Key{} // by port
	var found api.Key
	err := d.Client.Watch(d.bounded(), func(e api.KeyEvent) error {
		place := e.Key.Bus + " " + e.Key.Port
		if seen[place] = e.Key; e.Event == "removed" {
			delete(seen, place)
		}
		for _, k := range seen {
			if len(seen) == 1 && wanted(k) {
				found = k
				return errFound
			}
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		d.Fatalf("%s: %v; it sees %+v", what, err, seen)
	}
	return found
}

// TestCardOnUSB has keyboard and smart card of one key on the kernel's USB: pcscd reaches the card by libccid, other
// programs find what is emulated to be a YubiKey, and the desk finds both to be one key.
func TestCardOnUSB(t *testing.T) {
	d := startWith(t, world.Options{Keys: []string{present(cardKey)}, Cards: 1, Officer: officer})
	port := d.port(cardKey)
	whole := func(k api.Key) bool { return k.Serial == uint32(cardKey) && k.Card != nil && k.Card.PIV != nil }
	k := d.awaitKey("key and card are one", whole)
	if k.Bus != "usb" || k.Port != port || !k.Emulated || !k.Card.Emulated || k.Problem != "" || k.Card.Problem != "" {
		t.Errorf("the desk sees %+v with the card %+v; the key is at port %s", k, *k.Card, port)
	}

	for _, c := range []struct{ program, args, want string }{
		{"yubico-piv-tool", "-a status", "Serial Number:\t80000001"},
		{"ykman", "list", "YubiKey 5A (5.4.3) [OTP+CCID] Serial: 80000001"},
		{"opensc-tool", "--atr", "3b:fd:13:00:00:81:31:fe:15:80:73:c0:21:c0:57:59:75:62:69:4b:65:79:40"},
	} {
		if said := run(t, officer, c.program, strings.Fields(c.args)...); !strings.Contains(said, c.want) {
			t.Errorf("%s %s does not say %q:\n%s", c.program, c.args, c.want, said)
		}
	}
	d.tellsSerial("serial: 80000001")
	figure("ccid_apdu_ms", apduTime(t, k.Card.Reader).Seconds()*1000)

	d.remove(cardKey)
	ctx, cancel := context.WithCancel(d.bounded())
	defer cancel()
	for {
		var left api.Keys
		if err := d.Client.Get(ctx, "/v1/devices", nil, &left); err != nil {
			t.Fatal(err)
		}
		if len(left.Keys) == 0 {
			break
		}
		<-time.After(look)
	}
	d.insert(cardKey)
	d.awaitKey("key and card are back", whole)
}

// tellsSerial asks the keyboard interface until it tells the serial number, which it does not for a while after the card was
// used. ykinfo asks once.
func (d *desk) tellsSerial(want string) {
	d.Helper()
	ctx := d.bounded()
	for {
		cmd := exec.CommandContext(ctx, "ykinfo", "-s")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: officer}
		said, err := cmd.CombinedOutput()
		switch {
		case err == nil && strings.Contains(string(said), want):
			return
		case err == nil || ctx.Err() != nil:
			d.Fatalf("ykinfo does not say %q: %v\n%s", want, err, said)
		}
		<-time.After(look)
	}
}

// apduTime is what the card takes for a command that is nothing but a question.
func apduTime(t *testing.T, reader string) time.Duration {
	t.Helper()
	ctx, err := scard.EstablishContext()
	if err != nil {
		t.Fatal(err)
	}
	defer ctx.Release()
	card, err := ctx.Connect(reader, scard.ShareExclusive, scard.ProtocolT1)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Disconnect(scard.LeaveCard)
	var took []time.Duration
	for range 30 {
		start := time.Now()
		if answer, err := card.Transmit([]byte{0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8}); err != nil || len(answer) < 2 {
			t.Fatalf("%x, %v", answer, err)
		}
		took = append(took, time.Since(start))
	}
	return median(took)
}
