package synctest

import (
	"context"
	"errors"
	"testing"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// attempts is how often something is tried behind a flaky server before it counts as failed.
const attempts = 100

// ConformanceThrough is Conformance for a connector that stands behind a Flaky: whatever fails for the moment is tried
// again, as the outbox does, and in the end the same is expected. What a connector promises of several providers holds for
// those that could be reached; the others have it as soon as replication is through, which is waited for. Rates up to 0.2, or
// 0.05 over TLS and with several providers, leave enough attempts that get through. Where the connector uses TLS, give
// Slapd.Service no front.
func ConformanceThrough(t *testing.T, open Open) {
	Conformance(t, func(t *testing.T) (syncer.Connector, Service) {
		c, service := open(t)
		return &insistent{c}, service
	})
}

// insistent tries again until something works or is refused.
type insistent struct{ syncer.Connector }

func insist(ctx context.Context, try func() error) (err error) {
	for range attempts {
		err = try()
		if err == nil || errors.Is(err, syncer.ErrRefused) || errors.Is(err, errEnough) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (i *insistent) Observe(ctx context.Context, token device.TokenID) (seen syncer.Observation, err error) {
	err = insist(ctx, func() (err error) { seen, err = i.Connector.Observe(ctx, token); return err })
	return seen, err
}

func (i *insistent) FindUser(ctx context.Context, name string) (found syncer.User, err error) {
	err = insist(ctx, func() (err error) { found, err = i.Connector.FindUser(ctx, name); return err })
	return found, err
}

func (i *insistent) Apply(ctx context.Context, c vault.Change, seed secret.Secret) (seen syncer.Observation, err error) {
	err = insist(ctx, func() (err error) { seen, err = i.Connector.Apply(ctx, c, seed); return err })
	return seen, err
}

// Counters hands on what came with the first attempt that got to the end.
func (i *insistent) Counters(ctx context.Context, provider string, page func([]syncer.Reading) error) error {
	return collect(ctx, page, func(page func([]syncer.Reading) error) error { return i.Connector.Counters(ctx, provider, page) })
}

func (i *insistent) Inventory(ctx context.Context, provider string, page func([]syncer.Entry) error) error {
	return collect(ctx, page, func(page func([]syncer.Entry) error) error { return i.Connector.Inventory(ctx, provider, page) })
}

func collect[T any](ctx context.Context, page func([]T) error, read func(func([]T) error) error) error {
	var pages [][]T
	if err := insist(ctx, func() error {
		pages = nil
		return read(func(p []T) error { pages = append(pages, append([]T(nil), p...)); return nil })
	}); err != nil {
		return err
	}
	for _, p := range pages {
		if err := page(p); err != nil {
			return err
		}
	}
	return nil
}

// Check tells what is wrong every time.
func (i *insistent) Check(ctx context.Context) (problems []syncer.Problem) {
	for range attempts {
		if problems = i.Connector.Check(ctx); len(problems) == 0 {
			break
		}
	}
	return problems
}
