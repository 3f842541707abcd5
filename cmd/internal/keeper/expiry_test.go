package keeper_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"tokendesk/cmd/internal/keeper"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// put puts an active token into the vault whose time is over at a moment.
func put(t *testing.T, k *keeper.Keeper, id device.TokenID, expires time.Time) {
	t.Helper()
	serial, _ := id.Device().Serial()
	err := k.Vault.Update(func(tx *vault.Tx) error {
		return errors.Join(tx.SetSeed(id, 1, secret.Random(20)), tx.PutToken(vault.Token{
			ID: id, Serial: serial, Status: vault.Active, Digits: 6, Generation: 1, Expires: expires,
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	k.Nudge()
}

func statusOf(t *testing.T, k *keeper.Keeper, id device.TokenID) (s vault.Status) {
	t.Helper()
	err := k.Vault.View(func(tx *vault.Tx) error {
		found, err := tx.Token(id)
		s = found.Status
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A token expires when its time is over and not before, also if that was while the vault was locked.
func TestTokensExpireInTime(t *testing.T) {
	k := made(t, "", nil)
	runner := &provision.Runner{Vault: k.Vault, Log: slog.New(slog.DiscardHandler)}
	k.Expire = runner.ExpireDue
	if err := k.Open(); err != nil {
		t.Fatal(err)
	}
	const soon, later, never, past device.TokenID = "yk-1/otp1", "yk-2/otp1", "yk-3/otp1", "yk-4/otp1"
	put(t, k, past, time.Now().Add(-time.Hour))
	if err := errors.Join(k.Lock(t.Context(), alice, false), k.Unlock(secret.Secret{}, alice)); err != nil {
		t.Fatal(err)
	}
	run(t, k)
	await(t, "the one expired whose time was over before", func() bool { return statusOf(t, k, past) == vault.Expired })
	end := time.Now().Add(200 * time.Millisecond)
	put(t, k, soon, end)
	put(t, k, later, time.Now().Add(time.Hour))
	put(t, k, never, time.Time{})
	await(t, "the first one expired", func() bool { return statusOf(t, k, soon) == vault.Expired })
	if time.Now().Before(end) {
		t.Error("it expired before its time was over")
	}
	if statusOf(t, k, later) != vault.Active || statusOf(t, k, never) != vault.Active {
		t.Error("others expired, too")
	}
	if !slices.ContainsFunc(acts(t, k), func(e audit.Entry) bool {
		return e.Object == string(soon) && e.Officer.UID == audit.DeskUID && e.Action == "expire"
	}) {
		t.Errorf("that is not on record: %+v", acts(t, k))
	}
}

// What cannot be done is tried again, and is on record.
func TestExpiryIsTriedAgain(t *testing.T) {
	k := made(t, "", nil)
	var mu sync.Mutex
	attempts := 0
	k.Expire = func(context.Context) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if attempts++; attempts < 2 {
			return 0, errors.New("the disk is full")
		}
		return 1, nil
	}
	if err := k.Open(); err != nil {
		t.Fatal(err)
	}
	put(t, k, "yk-1/otp1", time.Now().Add(-time.Hour))
	run(t, k)
	await(t, "a second attempt", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return attempts >= 2
	})
	failures := 0
	for _, e := range acts(t, k) {
		if e.Action == "expire" && e.Reason == "the disk is full" {
			failures++
		}
	}
	if failures != 1 {
		t.Errorf("%d failures are on record", failures)
	}
}
