package localapi

import (
	"context"
	"errors"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/provision"
)

// A capture is ended by who has begun it, and by nobody else; an ended one is gone.
func TestCapturesAreOnesOwn(t *testing.T) {
	as := func(uid uint32) context.Context { return context.WithValue(t.Context(), peerKey, peer{uid, true}) }
	gone := func(err error) {
		t.Helper()
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.NotFound {
			t.Errorf("%v", err)
		}
	}
	var c captures
	mine, name, over := c.begin(as(4321))
	_, other, done := c.begin(as(4321))
	if name == other {
		t.Fatalf("two captures are %s", name)
	}
	done()
	gone(c.end(as(4321), other))
	gone(c.end(as(4322), name))
	if mine.Err() != nil {
		t.Fatal("somebody else has ended it")
	}
	if err := c.end(as(4321), name); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(context.Cause(mine), provision.ErrEnough) {
		t.Errorf("it ended with %v", context.Cause(mine))
	}
	over()
	gone(c.end(as(4321), name))
}
