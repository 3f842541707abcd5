package keys_test

import (
	"context"
	"errors"
	"testing"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device/emulator"
)

func TestAwait(t *testing.T) {
	b := newBench(t)
	key := newKey(10000001, true)
	b.serve(key)
	heard := b.events()
	here := make(chan error, 1)
	begin := func() { go func() { here <- b.Await(t.Context(), anna) }() }

	begin()
	key.Insert()
	b.arrives(heard, anna)
	if err := await(t, here); err != nil {
		t.Fatal(err)
	}
	begin() // it is there already
	if err := await(t, here); err != nil {
		t.Fatal(err)
	}

	if err := key.SetFault(emulator.FaultExclusiveOpen, 0); err != nil { // and cannot be used
		t.Fatal(err)
	}
	if err := b.program(t.Context(), anna); err == nil {
		t.Fatal("it can be used")
	}
	b.next(heard, keys.Changed, anna)
	begin()
	select {
	case err := <-here:
		t.Fatalf("a key with a problem was awaited no longer: %v", err)
	default:
	}
	if err := key.SetFault(emulator.FaultClear, 0); err != nil {
		t.Fatal(err)
	}
	if err := await(t, here); err != nil {
		t.Fatal(err)
	}

	ctx, end := context.WithCancel(t.Context())
	go func() { here <- b.Await(ctx, bert) }()
	end()
	if err := await(t, here); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
