package keys_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
)

// heldBus is a bus whose cards another program has while held is set: how long it takes to find that out.
type heldBus struct {
	device.CardBus
	held   *atomic.Int64
	opened *atomic.Int32
	began  chan bool
}

func newHeldBus(bus device.CardBus) heldBus {
	return heldBus{bus, new(atomic.Int64), new(atomic.Int32), make(chan bool, 1)}
}

func (h heldBus) Open(ctx context.Context, reader string) (device.Card, error) {
	takes := time.Duration(h.held.Load())
	if takes == 0 {
		return h.CardBus.Open(ctx, reader)
	}
	h.opened.Add(1)
	select {
	case h.began <- true:
	default:
	}
	select {
	case <-time.After(takes):
		return nil, fmt.Errorf("held by a test: %w", device.ErrBusy)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// strangers is a bus with one card, of which nothing is told.
type strangers struct{ device.CardBus }

func (strangers) Watch(ctx context.Context, fn func(device.CardEvent)) error {
	fn(device.CardEvent{Info: device.CardInfo{Reader: "held"}})
	<-ctx.Done()
	return ctx.Err()
}

// Nobody knows whose the card is: the work of other keys goes on between the tries to find that out.
func TestAHeldCardDoesNotHoldOtherKeys(t *testing.T) {
	h := newHeldBus(strangers{emulatedCards.Bus})
	h.held.Store(int64(400 * time.Millisecond))
	b := newCardBench(t, cards(h))
	b.serve(newKey(10000002, false))
	heard := b.events()
	b.until(heard, "seen", func(e keys.Event) bool { return e.Key.ID == bert })
	for range 3 {
		await(t, h.began)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if err := b.Use(ctx, device.SlotToken(bert, 2), func(context.Context, device.HOTPToken, keys.Key) error { return nil }); err != nil {
			t.Errorf("after %d tries: %v", h.opened.Load(), err)
		}
		cancel()
	}
}

// Who looks at a card for a moment is waited for, who has it for long is not: that would keep the turn of its key.
func TestABusyCardIsAskedForAMoment(t *testing.T) {
	h := newHeldBus(emulatedCards.Bus)
	b := newCardBench(t, cards(h))
	b.serve(newCardKey(10000001, 0, false))
	b.until(b.events(), "whole", whole)
	for _, c := range []struct {
		takes time.Duration
		least int32
		most  int32
	}{{time.Millisecond, 2, 20}, {1100 * time.Millisecond, 1, 1}} {
		h.held.Store(int64(c.takes))
		before, begin := h.opened.Load(), time.Now()
		err := b.UsePIV(t.Context(), anna, func(context.Context, device.PIV, keys.Key) error { return nil })
		h.held.Store(0)
		if n := h.opened.Load() - before; !errors.Is(err, device.ErrBusy) || n < c.least || n > c.most {
			t.Errorf("%v each: %d tries in %v, %v", c.takes, n, time.Since(begin), err)
		}
		if err := b.describe(t.Context(), anna); err != nil {
			t.Error(err)
		}
	}
}
