package keys_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
)

// onPort is a bus that knows on which USB port its readers are, as libccid tells.
type onPort struct {
	device.CardBus
	port   string
	opened *atomic.Int32
}

func (o onPort) Watch(ctx context.Context, fn func(device.CardEvent)) error {
	return o.CardBus.Watch(ctx, func(e device.CardEvent) {
		e.Info.Port = o.port
		fn(e)
	})
}

func (o onPort) Open(ctx context.Context, reader string) (device.Card, error) {
	o.opened.Add(1)
	return o.CardBus.Open(ctx, reader)
}

// A card on the port of a keyboard is that key's: it need not be opened, after which the keyboard would be silent for 3 s.
func TestACardOnTheKeyboardsPortIsLeftAlone(t *testing.T) {
	opened := new(atomic.Int32)
	b := newCardBench(t, cards(onPort{emulatedCards.Bus, "emu1", opened}))
	b.serve(newCardKey(10000001, 0, false))
	heard := b.events()
	b.until(heard, "whole", whole)
	if n := opened.Load(); n != 0 {
		t.Errorf("it was opened %d times", n)
	}
	if err := b.describe(t.Context(), anna); err != nil || opened.Load() != 1 {
		t.Errorf("opened %d times, %v", opened.Load(), err)
	}
}

// What a port says and what a card says must agree before anything is written.
func TestACardOfAnotherKeyOnThePort(t *testing.T) {
	opened := new(atomic.Int32)
	b := newCardBench(t, cards(onPort{emulatedCards.Bus, "emu1", opened}))
	b.serve(newKey(10000002, false))
	defer serveCard(t, newCardKey(10000001, 0, false))()
	heard := b.events()
	b.until(heard, "joined", func(e keys.Event) bool { return e.Key.ID == bert && e.Key.Card.Bus != "" })
	err := b.UsePIV(t.Context(), bert, func(context.Context, device.PIV, keys.Key) error {
		t.Error("lent")
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "expected to be that of yk-10000002, and says it is that of yk-10000001") {
		t.Errorf("%v", err)
	}
	if k := b.until(heard, "told", func(e keys.Event) bool { return e.Key.Card.Problem != "" }).Key; k.Problem != "" {
		t.Errorf("the keyboard has a problem, too: %+v", k)
	}
}
