package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

var errBusy = fmt.Errorf("%w: it is busy", syncer.ErrUnavailable)

func numbered(i int) device.TokenID {
	return device.SlotToken(device.YubiKeyID(device.Serial(3_000_000+i)), 2)
}

// through has the outbox use a connector that stands before the real one.
func (f *office) through(c syncer.Connector, b syncer.Backoff) {
	f.o = syncer.NewOutbox(f.v, c, slog.New(f.log.handler()), b)
}

// poison is a connector to which some changes are not brought.
type poison struct {
	syncer.Connector
	spoils func(vault.Change) error
}

func (p *poison) Apply(ctx context.Context, c vault.Change, seed secret.Secret) (syncer.Observation, error) {
	if err := p.spoils(c); err != nil {
		return syncer.Observation{}, err
	}
	return p.Connector.Apply(ctx, c, seed)
}

// steps is a connector through which changes go one by one, as the test says.
type steps struct {
	syncer.Connector
	arrived chan vault.Change
	answer  chan error // nil lets the change through
}

func (f *office) step() *steps {
	s := &steps{f.c, make(chan vault.Change), make(chan error)}
	f.through(s, quick)
	return s
}

func (s *steps) Apply(ctx context.Context, c vault.Change, seed secret.Secret) (syncer.Observation, error) {
	select {
	case s.arrived <- c:
	case <-ctx.Done():
		return syncer.Observation{}, ctx.Err()
	}
	select {
	case err := <-s.answer:
		if err != nil {
			return syncer.Observation{}, err
		}
	case <-ctx.Done():
		return syncer.Observation{}, ctx.Err()
	}
	return s.Connector.Apply(ctx, c, seed)
}

// await waits for the next change to arrive.
func (s *steps) await(t *testing.T) vault.Change {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case c := <-s.arrived:
		return c
	case <-ctx.Done():
		t.Fatal("no change arrives")
		return vault.Change{}
	}
}

// next lets the change through that has arrived.
func (s *steps) next(t *testing.T) vault.Change {
	t.Helper()
	c := s.await(t)
	s.answer <- nil
	return c
}

// awaitWaiter waits until somebody is in Wait for a change.
func (f *office) awaitWaiter(seq uint64) {
	f.Helper()
	for f.o.Waiters(seq) == 0 {
		if f.Context().Err() != nil {
			f.Fatal(errors.New("nobody waits"))
		}
		runtime.Gosched()
	}
}
