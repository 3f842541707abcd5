package syncer_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/vaulttest"
)

// slowed is how long, from now on, a pace lets nobody try.
func slowed(t *testing.T, v *vault.Vault, p syncer.Pace, key string, now time.Time) time.Duration {
	t.Helper()
	err := v.View(func(tx *vault.Tx) error { return p.Check(tx, key, now) })
	if slow := (*syncer.SlowDownError)(nil); errors.As(err, &slow) {
		return slow.Until.Sub(now)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0
}

func fail(t *testing.T, v *vault.Vault, p syncer.Pace, key string, now time.Time) {
	t.Helper()
	if err := v.Update(func(tx *vault.Tx) error { return p.Fail(tx, key, now) }); err != nil {
		t.Fatal(err)
	}
}

// unforgetting is the officers' pace as it is without time.
var unforgetting = syncer.Pace{Free: syncer.OfficerPace.Free, First: syncer.OfficerPace.First, Most: syncer.OfficerPace.Most}

// Whoever fails all the time gets no further than twelve tries a minute, and a box of spares is no hurry.
func TestTimeForgetsAnOfficersFailures(t *testing.T) {
	v := vaulttest.New(t)
	begin := time.Now().Round(0)
	tries, now := 0, begin
	for ; now.Before(begin.Add(time.Hour)); tries++ {
		fail(t, v, syncer.OfficerPace, "a", now)
		now = now.Add(max(time.Second, slowed(t, v, syncer.OfficerPace, "a", now)))
	}
	if tries > 12*60+30 {
		t.Errorf("%d failures in an hour", tries)
	}
	for range 200 {
		now = now.Add(6 * time.Second)
		fail(t, v, syncer.OfficerPace, "b", now)
		if d := slowed(t, v, syncer.OfficerPace, "b", now); d != 0 {
			t.Fatalf("one failure in six seconds is kept waiting for %v", d)
		}
	}
}

func TestFailuresSlowDown(t *testing.T) {
	for name, c := range map[string]struct {
		pace syncer.Pace
		want []time.Duration // after each failure
	}{
		"token":   {syncer.TokenPace, []time.Duration{0, 0, 0, 5, 10, 20, 40, 80, 160, 320, 640, 900, 900}},
		"officer": {unforgetting, []time.Duration{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300}},
	} {
		t.Run(name, func(t *testing.T) {
			v := vaulttest.New(t)
			now := time.Now().Round(0)
			if d := slowed(t, v, c.pace, "a", now); d != 0 {
				t.Errorf("before any failure: %v", d)
			}
			for i, want := range c.want {
				fail(t, v, c.pace, "a", now)
				want *= time.Second
				if got := slowed(t, v, c.pace, "a", now); got != want {
					t.Errorf("after %d failures: %v, want %v", i+1, got, want)
				}
				now = now.Add(want)
				if got := slowed(t, v, c.pace, "a", now); got != 0 {
					t.Errorf("after %d failures, at the end of the wait: %v more", i+1, got)
				}
			}
			if d := slowed(t, v, c.pace, "b", now); d != 0 {
				t.Errorf("somebody else waits %v", d)
			}
			if err := v.Update(func(tx *vault.Tx) error { return c.pace.Succeed(tx, "a") }); err != nil {
				t.Fatal(err)
			}
			if d := slowed(t, v, c.pace, "a", now); d != 0 {
				t.Errorf("after a success: %v", d)
			}
			fail(t, v, c.pace, "a", now)
			if d := slowed(t, v, c.pace, "a", now); d != 0 {
				t.Errorf("one failure after a success: %v", d)
			}
		})
	}
}

func TestFailuresOutliveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v := vaulttest.Create(t, path)
	now := time.Now().Round(0)
	for range 5 {
		fail(t, v, syncer.TokenPace, vault.TokenAttempts(tokenA), now)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v = vaulttest.Open(t, path)
	vaulttest.CheckAtEnd(t, v)
	if got := slowed(t, v, syncer.TokenPace, vault.TokenAttempts(tokenA), now); got != 10*time.Second {
		t.Errorf("after a restart: %v", got)
	}
}

// A wrong clock that names a time far ahead, and is set right, keeps nobody waiting for that time.
func TestClockThatGoesBack(t *testing.T) {
	v := vaulttest.New(t)
	now := time.Now().Round(0)
	for range 20 {
		fail(t, v, syncer.TokenPace, "a", now.Add(365*24*time.Hour))
	}
	for at := now; at.Before(now.Add(time.Hour)); at = at.Add(time.Minute) {
		if got := slowed(t, v, syncer.TokenPace, "a", at); got > syncer.TokenPace.Most || got > 0 && at.Sub(now) >= syncer.TokenPace.Most {
			t.Errorf("%v after the clock went back: %v", at.Sub(now), got)
		}
	}
	fail(t, v, syncer.TokenPace, "a", now)
	if got := slowed(t, v, syncer.TokenPace, "a", now); got != syncer.TokenPace.Most {
		t.Errorf("a failure by the clock that was set right: %v", got)
	}
}
