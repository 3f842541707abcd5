package provision

import (
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
)

// Advance is what a resync does whose codes were found further ahead than one officer may move a counter. A second one agrees to
// exactly this, and no longer once the counter has moved.
type Advance struct {
	Generation int    `json:"generation"` // of the seed that the codes are of
	From       uint64 `json:"from"`       // the next moving factor as it was
	To         uint64 `json:"to"`         // and as it will be
}

// AdvanceOrder asks for it; found is how far ahead the codes were, and window how far one officer may go.
func AdvanceOrder(id device.TokenID, a Advance, found uint64, window int) Order {
	return Order{Action: ActResync, Tokens: []device.TokenID{id}, Advance: &a,
		Reason: fmt.Sprintf("consecutive codes were found at +%d, beyond the window of %d", found, window)}
}

// details refuses what makes no sense.
func (a *Advance) details(o Order) error {
	switch {
	case o.Action != ActResync && a != nil:
		return refuse("leave it out", "%s moves no counter", o.Action)
	case o.Action != ActResync:
		return nil
	case a == nil || len(o.Tokens) > 1:
		return refuse("give its codes: tokendesk resync TOKEN CODE CODE", "a resync is of one token, whose codes say where its counter is")
	case a.To <= a.From || a.Generation < 1:
		return refuse("", "a counter only goes forward")
	}
	return nil
}

// current refuses an advance of a counter that has moved meanwhile, or is another seed's.
func (a *Advance) current(t vault.Token) error {
	switch {
	case a == nil:
		return nil
	case t.Generation != a.Generation:
		return refuse("", "%s has another seed by now", t.ID)
	case t.Counter > a.From:
		return refuse("if its codes still do not fit, resync it with new ones", "the counter of %s has moved to %d meanwhile", t.ID, t.Counter)
	}
	return nil
}

// move sets the counter.
func (a *Advance) move(t *vault.Token, now time.Time) {
	if a != nil {
		t.Counter, t.LastUsed, t.Stale = a.To, now.UTC(), false
	}
}
