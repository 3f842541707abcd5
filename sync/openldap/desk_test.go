package openldap_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// office is a vault whose outbox is delivered to a directory.
type office struct {
	*testing.T
	v *vault.Vault
	c *openldap.Connector
	o *syncer.Outbox
}

func openOffice(t *testing.T, cfg openldap.Config) *office {
	t.Helper()
	f := &office{T: t, v: vaulttest.New(t)}
	cfg.Desk = f.v.ID()
	f.c = connect(t, cfg)
	f.o = syncer.NewOutbox(f.v, f.c, slog.New(slog.DiscardHandler), syncer.Backoff{Min: time.Millisecond, Max: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the outbox: %v", err)
		}
	})
	return f
}

func (f *office) update(fn func(*vault.Tx) error) {
	f.Helper()
	if err := f.v.Update(fn); err != nil {
		f.Fatal(err)
	}
}

// alter changes a token and leaves word of it, in one transaction, as the desk does.
func (f *office) alter(id device.TokenID, how func(*vault.Token), pushes ...vault.Change) (seqs []uint64) {
	f.Helper()
	f.update(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		if err != nil {
			return err
		}
		how(&t)
		if err := tx.PutToken(t); err != nil {
			return err
		}
		seqs, err = leave(tx, t, pushes)
		return err
	})
	f.o.Wake()
	return seqs
}

// leave puts changes of a token into the outbox. Of each only its kind and user are told.
func leave(tx *vault.Tx, t vault.Token, pushes []vault.Change) (seqs []uint64, err error) {
	for _, c := range pushes {
		c.Token, c.Generation, c.Counter, c.Digits = t.ID, t.Generation, t.Counter, t.Digits
		if c, err = tx.Enqueue(c); err != nil {
			return nil, err
		}
		seqs = append(seqs, c.Seq)
	}
	return seqs, nil
}

// enroll puts an active token without an owner into the vault, with a fresh seed of one generation.
func (f *office) enroll(id device.TokenID, generation int, counter uint64) (secret.Secret, []uint64) {
	f.Helper()
	seed := secret.Random(20)
	var seqs []uint64
	f.update(func(tx *vault.Tx) error {
		if err := tx.SetSeed(id, generation, seed); err != nil {
			return err
		}
		serial, _ := id.Device().Serial()
		t := vault.Token{ID: id, Serial: serial, Status: vault.Active, Digits: 6, Counter: counter, Generation: generation, Created: time.Now()}
		err := tx.PutToken(t)
		if err == nil {
			seqs, err = leave(tx, t, []vault.Change{{Kind: vault.Put}})
		}
		return err
	})
	f.o.Wake()
	return seed, seqs
}

// delivered waits until changes have got there.
func (f *office) delivered(seqs ...uint64) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 30*time.Second)
	defer cancel()
	for _, seq := range seqs {
		if err := f.o.Wait(ctx, seq); err != nil {
			f.Fatalf("change %d: %v", seq, err)
		}
	}
}
