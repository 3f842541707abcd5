package keys_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/device/emulator"
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

// The smart card of a Nitrokey Pro is its OpenPGP card, for which another one stands here. The desk leaves it alone.
func TestANitrokeysCardIsLeftAlone(t *testing.T) {
	opened := new(atomic.Int32)
	b := newCardBench(t, cards(onPort{emulatedCards.Bus, "emu1", opened}))
	pro := emulator.NewNitrokeyPro(emulator.Options{Serial: 0x5D19, Timing: &emulator.Timing{}})
	b.serve(pro)
	heard := b.events()
	if k := b.arrives(heard, pro.ID()).Key; len(k.Holds) != 3 || !k.HID() || k.Card.Bus != "" {
		t.Errorf("%+v", k)
	}
	defer serveCard(t, newCardKey(10000001, 0, false))()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		err := b.Use(ctx, device.AppToken(pro.ID(), "oath:alice"), func(context.Context, device.HOTPToken, keys.Key) error { return nil })
		if none := (*keys.NoCardError)(nil); !errors.As(err, &none) {
			t.Errorf("%v", err)
		}
		err = b.Use(ctx, device.AppToken(pro.ID(), "hotp3"), func(ctx context.Context, token device.HOTPToken, k keys.Key) error {
			if k.Card.Bus != "" || k.Card.PIV {
				t.Errorf("lent with a card: %+v", k)
			}
			_, err := token.Describe(ctx)
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if list := b.List(); len(list) != 1 || list[0].Problem != "" || list[0].Card.Bus != "" || opened.Load() != 0 {
		t.Errorf("opened %d times: %+v", opened.Load(), list)
	}
}
