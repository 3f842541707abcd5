package bussocket

import (
	"context"
	"fmt"
)

// Control is the hand at the emulated bench. Keys are named by serial number or port.
type Control struct{ Socket string }

// Insert plugs a key in.
func (c Control) Insert(ctx context.Context, key string) error {
	_, err := c.do(ctx, Request{Op: OpInsert, Key: key})
	return err
}

// Remove pulls a key.
func (c Control) Remove(ctx context.Context, key string) error {
	_, err := c.do(ctx, Request{Op: OpRemove, Key: key})
	return err
}

// Touch touches a key, 1 to MaxTouches times, and tells what each touch did. A short touch is slot 1.
func (c Control) Touch(ctx context.Context, key string, long bool, times int) ([]Touch, error) {
	if times < 1 {
		return nil, fmt.Errorf("cannot touch key %s: a key is touched 1 to %d times, not %d", key, MaxTouches, times)
	}
	a, err := c.do(ctx, Request{Op: OpTouch, Key: key, Long: long, Times: times})
	return a.Touches, err
}

// Fault makes a key misbehave; the kinds are those of the server (see package emulator).
func (c Control) Fault(ctx context.Context, key, kind string, n int) error {
	_, err := c.do(ctx, Request{Op: OpFault, Key: key, Kind: kind, N: n})
	return err
}

// List returns every key of the bench, also those that are not plugged in.
func (c Control) List(ctx context.Context) ([]Key, error) {
	a, err := ask(ctx, c.Socket, Request{Op: OpListAll})
	return a.Keys, err
}

func (c Control) do(ctx context.Context, r Request) (Answer, error) {
	a, err := ask(ctx, c.Socket, r)
	if err != nil {
		return Answer{}, fmt.Errorf("cannot %s key %s: %w", r.Op, r.Key, err)
	}
	return a, nil
}
