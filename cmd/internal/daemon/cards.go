package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keys"
	"tokendesk/cmd/internal/localapi"
	"tokendesk/device"
	"tokendesk/device/pcsc"
	"tokendesk/device/pivcard"
	"tokendesk/provision"
	"tokendesk/vault"
)

// cards are the smart cards that the configuration wants to be looked for; false if it wants none. Rule D6 is applied as for
// other buses.
func (c DevicesConfig) cards(level vault.Level) (cards keys.Cards, wanted bool) {
	if !c.PCSC {
		return cards, false
	}
	cards.Bus = pcsc.Bus{Emulated: c.EmulatedReaders}
	if !c.AllowEmulated && level == vault.LevelTPM {
		cards.Bus = &genuineCards{CardBus: cards.Bus}
	}
	cards.PIV = func(ctx context.Context, card device.Card, emulated bool) (keys.PIVCard, error) {
		return pivcard.New(ctx, card, emulated)
	}
	return cards, true
}

// genuineCards is a bus whose emulated cards are shown and cannot be used.
type genuineCards struct {
	device.CardBus
	emulated sync.Map // readers
}

// Watch implements device.CardBus.
func (g *genuineCards) Watch(ctx context.Context, fn func(device.CardEvent)) error {
	return g.CardBus.Watch(ctx, func(e device.CardEvent) {
		if !e.Info.Emulated {
			g.emulated.Delete(e.Info.Reader)
		} else {
			g.emulated.Store(e.Info.Reader, true)
			if e.Info.Problem == "" {
				e.Info.Problem, e.Info.Cure = notGenuine, allowEmulated
			}
		}
		fn(e)
	})
}

// Open implements device.CardBus.
func (g *genuineCards) Open(ctx context.Context, reader string) (device.Card, error) {
	if _, emulated := g.emulated.Load(reader); emulated {
		return nil, &device.CureError{Err: errors.New(notGenuine), Cure: allowEmulated}
	}
	return g.CardBus.Open(ctx, reader)
}

// openPIV lends the PIV application of an inserted key.
func openPIV(desk *localapi.Desk) func(context.Context, device.ID, func(device.PIV, bool) error) error {
	return func(ctx context.Context, id device.ID, fn func(device.PIV, bool) error) error {
		err := desk.Keys.UsePIV(ctx, id, func(_ context.Context, p device.PIV, k keys.Key) error { return fn(p, k.Info.Emulated) })
		if none := (*keys.NoCardError)(nil); errors.As(err, &none) {
			return &noCard{none}
		}
		return err
	}
}

// noCard is a NoCardError as provisioning knows it.
type noCard struct{ *keys.NoCardError }

func (e *noCard) Unwrap() []error { return []error{e.NoCardError, provision.ErrNoCard} }

// ccidDriver is where Debian's libccid has the driver for smart cards on USB.
const ccidDriver = "/usr/lib/pcsc/drivers/ifd-ccid.bundle"

// checkCards looks for what is needed to see smart cards; whether any are seen is told of the bus and of keys.
func (d *Daemon) checkCards(desk *localapi.Desk) (found []api.Finding) {
	if !d.Config.Devices.PCSC {
		return nil
	}
	if _, err := os.Stat(ccidDriver); errors.Is(err, os.ErrNotExist) {
		found = append(found, bad("cards", "as root: apt install libccid", "smart cards on USB are not seen, because pcscd has no driver for them"))
	} else {
		found = append(found, good("cards", "pcscd has a driver for smart cards on USB"))
	}
	for _, k := range desk.Keys.List() {
		switch {
		case !k.HID() || k.Card.Bus == "": // told of the key, or nothing to tell
		case k.Card.Problem != "":
			found = append(found, bad("cards", k.Card.Cure, "the card of %s: %s", k.ID, k.Card.Problem))
		default:
			found = append(found, good("cards", "%s has its card in reader %s", name(k), k.Card.Reader))
		}
	}
	return found
}

// name is how doctor names a key.
func name(k keys.Key) string {
	if k.Info.Emulated {
		return fmt.Sprintf("%s (EMULATED)", k.ID)
	}
	return string(k.ID)
}
