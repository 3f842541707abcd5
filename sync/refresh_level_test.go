package syncer

import (
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

const leveled device.TokenID = "yk-1111111/otp2"

func levelVault(t *testing.T, status vault.Status, changes ...vault.Change) *vault.Vault {
	t.Helper()
	v := vaulttest.New(t)
	update(t, v, func(tx *vault.Tx) error {
		seed := secret.Random(20)
		defer seed.Wipe()
		if err := tx.SetSeed(leveled, 1, seed); err != nil {
			return err
		}
		if err := tx.PutToken(vault.Token{ID: leveled, Status: status, Owner: "alice", Digits: 6, Counter: 5, Generation: 1}); err != nil {
			return err
		}
		for _, c := range changes {
			c.Token, c.Digits, c.User = leveled, 6, "alice"
			stored, err := tx.Enqueue(c)
			if err != nil {
				return err
			}
			if stored.Parked = c.Parked; c.Parked {
				if err := tx.PutChange(stored); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return v
}

func update(t *testing.T, v *vault.Vault, fn func(*vault.Tx) error) {
	t.Helper()
	if err := v.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func TestLevelOnce(t *testing.T) {
	advance := vault.Change{Kind: vault.Advance, Generation: 1, Counter: 4}
	parked := advance
	parked.Parked = true
	for name, c := range map[string]struct {
		status  vault.Status
		waiting []vault.Change
		job     bool
		want    bool
	}{
		"nothing waits":             {vault.Active, nil, false, true},
		"disabled":                  {vault.Disabled, nil, false, true},
		"an assignment waits":       {vault.Active, []vault.Change{{Kind: vault.Assign, Generation: 1}}, false, true},
		"one waits":                 {vault.Active, []vault.Change{advance}, false, false},
		"one is parked":             {vault.Active, []vault.Change{parked}, false, false},
		"one of another generation": {vault.Active, []vault.Change{{Kind: vault.Advance, Generation: 2}}, false, true},
		"in limbo":                  {vault.Limbo, nil, false, false},
		"somebody works on it":      {vault.Active, nil, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			v := levelVault(t, c.status, c.waiting...)
			update(t, v, func(tx *vault.Tx) error {
				if c.job {
					if err := tx.PutJob(&vault.Job{Kind: "reissue", Token: leveled}); err != nil {
						return err
					}
				}
				token, err := tx.Token(leveled)
				if err != nil {
					return err
				}
				got, err := level(tx, token)
				if got != c.want {
					t.Errorf("enqueued %t, want %t", got, c.want)
				}
				all, listErr := tx.ChangesOf(leveled)
				if want := len(c.waiting); (len(all) == want+1) != c.want || listErr != nil {
					t.Errorf("%d changes wait, %d before; %v", len(all), want, listErr)
				}
				return err
			})
		})
	}
}

// What a Reading says, with a service that tells of logins.
func TestJudgeReading(t *testing.T) {
	v := levelVault(t, vault.Active)
	keys := providerKeys([]string{"one", "two"})
	now := time.Now().UTC().Truncate(time.Second)
	p := &reading{provider: "one", key: keys["one"], keys: keys, cycle: &cycle{lost: map[string]bool{}}}
	reading := func(counter uint64, used time.Time) Reading {
		return Reading{Central: leveled.Central(), Counter: counter, Ours: true, Generation: 1, LastUsed: used}
	}
	see := func(r Reading) (f finding) {
		t.Helper()
		update(t, v, func(tx *vault.Tx) (err error) {
			if f, err = p.judge(tx, r, now); err == nil && f.changed {
				err = tx.PutToken(f.token)
			}
			return err
		})
		return f
	}
	if f := see(reading(5, time.Time{})); f.moved || f.level || !f.changed {
		t.Errorf("the first one: %+v", f)
	}
	hour := now.Add(-time.Hour)
	if f := see(reading(7, hour)); !f.moved || f.token.Counter != 7 || !f.token.LastUsed.Equal(hour) {
		t.Errorf("a login an hour ago: %+v", f)
	}
	if f := see(reading(7, hour)); f.changed {
		t.Errorf("the same again: %+v", f)
	}
	if f := see(reading(8, now.Add(time.Hour))); !f.token.LastUsed.Equal(now) {
		t.Errorf("a clock ahead: %+v", f)
	}
	if f := see(reading(6, hour)); len(f.back) != 1 || f.back[0].From != 8 || f.back[0].To != 6 || !f.level || f.token.Counter != 8 {
		t.Errorf("back: %+v", f)
	}
	if f := see(reading(5, hour)); len(f.back) != 1 || f.back[0].From != 8 || f.back[0].To != 5 {
		t.Errorf("further back: %+v", f)
	}
	if f := see(reading(7, hour)); len(f.back)+len(f.over) != 0 || !f.level {
		t.Errorf("half repaired: %+v", f)
	}
	p.key = keys["two"]
	if f := see(reading(9, hour)); len(f.back)+len(f.over) != 0 || !f.level || f.token.Counter != 9 {
		t.Errorf("a login at another provider: %+v", f)
	}
	p.cycle.lost[keys["one"]] = true
	if f := see(reading(10, hour)); f.level {
		t.Errorf("the other one is not reached, and to be levelled: %+v", f)
	}
	p.key = keys["one"]
	if f := see(reading(10, hour)); len(f.over) != 1 || f.over[0].Repaired != now {
		t.Errorf("repaired: %+v", f)
	}
	for _, r := range []Reading{{Central: "OLD1", Ours: true, Generation: 1, Counter: 99}, {Central: leveled.Central(), Generation: 1, Counter: 99},
		{Central: leveled.Central(), Ours: true, Generation: 2, Counter: 99}, {Central: "YK999-1", Ours: true, Generation: 1, Counter: 99}} {
		if f := see(r); !f.unknown || f.changed {
			t.Errorf("%+v: %+v", r, f)
		}
	}
}
