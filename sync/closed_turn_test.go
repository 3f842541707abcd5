package syncer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// counts is a directory that is without one of its providers: what it removes is only closed, and that takes long. It has
// everything else at once.
type counts struct {
	syncer.Connector
	removes int
	before  []int // how many removals came right before each other change
}

func (c *counts) Apply(_ context.Context, ch vault.Change, _ secret.Secret) (syncer.Observation, error) {
	if ch.Kind == vault.Remove {
		c.removes++
		return syncer.Observation{}, errors.Join(syncer.ErrRemains, errBusy)
	}
	c.before, c.removes = append(c.before, c.removes), 0
	return syncer.Observation{}, nil
}

// What is closed, and cannot be cleared away yet, is tried once in a while. It does not come before what people wait for.
func TestWhatIsClosedHoldsUpNothing(t *testing.T) {
	f := open(t, quick)
	for i := range 30 {
		id := device.TokenID(fmt.Sprintf("yk-%d/otp2", 3000000+i))
		f.enroll(id, 1, 0)
		f.remove(id)
	}
	c := &counts{Connector: f.c}
	f.through(c, syncer.Backoff{Min: time.Nanosecond, Max: time.Nanosecond}) // every pause is over at once
	f.deliver()
	if c.removes != 30 {
		t.Fatalf("%d tokens were closed at once, want 30", c.removes)
	}
	c.removes = 0
	f.enroll(tokenA, 1, 0)
	for range 5 {
		f.enqueue(vault.Put, tokenA, "", 1, 0)
	}
	f.deliver()
	sum := 0
	for _, n := range c.before {
		sum += n
	}
	if len(c.before) != 5 || sum > 1 {
		t.Errorf("before each put, so many removals were tried: %v", c.before)
	}
}
