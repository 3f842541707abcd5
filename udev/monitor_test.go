package udev

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 10 * time.Second

func listen(t *testing.T, subsystem string) *Monitor {
	t.Helper()
	m, err := Listen(subsystem)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestWaitEnds(t *testing.T) {
	m := listen(t, "no such subsystem")
	if _, err := m.Wait(within(t, 20*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("with a deadline: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled before: %v", err)
	}
	ended := make(chan error, 1)
	go func() { _, err := m.Wait(t.Context()); ended <- err }()
	m.Close()
	select {
	case err := <-ended:
		if err == nil || errors.Is(err, ErrLost) {
			t.Fatalf("closed: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close does not end Wait")
	}
	if _, err := m.Wait(t.Context()); err == nil {
		t.Fatal("a closed monitor waits")
	}
}

func TestWaitIdlesWithoutWork(t *testing.T) {
	m := listen(t, "no such subsystem")
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Wait(within(t, 200*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	if spent := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()); spent > 50*time.Millisecond {
		t.Errorf("200 ms of waiting cost %v of work", spent)
	}
}
