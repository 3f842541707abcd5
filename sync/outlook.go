package syncer

import (
	"fmt"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// State is what a change waits for, in short.
type State string

// States.
const (
	Ready  State = "ready"  // it is delivered in its turn
	Paused State = "paused" // it failed, and is tried again later
	Held   State = "held"   // another change goes first
	Parked State = "parked" // it waits for an officer
	// Waiting is all of them but Parked, in a Filter.
	Waiting State = "waiting"
)

// Outlook is a change and what has to happen before it is delivered.
type Outlook struct {
	Change   vault.Change
	State    State
	Holds    []Hold // what holds it back; of what is Ready, at most the service itself
	Obsolete string // why it will be dropped instead, if the vault wants it no longer
}

// HoldKind is a way in which a change is held back.
type HoldKind string

// Ways of being held back.
const (
	HeldParked    HoldKind = "parked"     // By an officer or, if that is zero, the desk; for Reason
	HeldByPause   HoldKind = "pause"      // after it failed for Reason, Until then
	HeldByEarlier HoldKind = "earlier"    // Seq is an earlier change of its token
	HeldByCutOff  HoldKind = "cut-off"    // Seq is a cut-off of the user whom it assigns a token
	HeldByAnother HoldKind = "another"    // Seq, of another token or user, has to be confirmed first
	HeldByOutage  HoldKind = "outage"     // the service does not answer, for Reason; it is asked again at Until
	HeldForNone   HoldKind = "no-service" // no central service is configured

	byOutcome HoldKind = "delivered" // and not recorded yet
)

// Hold is one thing that holds a change back.
type Hold struct {
	Kind   HoldKind
	Seq    uint64
	Until  time.Time
	By     audit.Officer
	Reason string
}

// String says it in words.
func (h Hold) String() string {
	switch h.Kind {
	case HeldParked:
		if h.By == (audit.Officer{}) {
			return "the desk parked it: " + h.Reason
		}
		return fmt.Sprintf("%s parked it: %s", h.By.Name, h.Reason)
	case HeldByPause:
		return fmt.Sprintf("it is tried again at %s, after: %s", h.Until.Local().Format(time.DateTime), h.Reason)
	case HeldByEarlier:
		return fmt.Sprintf("change %d of the same token goes first", h.Seq)
	case HeldByCutOff:
		return fmt.Sprintf("change %d, which takes a token from the same user, goes first", h.Seq)
	case HeldByAnother:
		return fmt.Sprintf("change %d, of whoever had it before, or of what it replaces, is to be confirmed first", h.Seq)
	case HeldByOutage:
		return fmt.Sprintf("the central service is asked again at %s, after: %s", h.Until.Local().Format(time.DateTime), h.Reason)
	case HeldForNone:
		return "no central service is configured"
	}
	return string(h.Kind)
}

// Filter selects changes; its zero value selects all.
type Filter struct {
	State   State // or Waiting
	Token   device.TokenID
	User    string // whom it concerns, in any case of letters
	CutOffs bool   // only those that end somebody's access
	After   uint64 // only those with a greater Seq: where the last page ended
	Limit   int    // at most so many; 0 for as many as one call looks at
}

// mostListed is how many changes one call of List looks at. Tests have fewer.
var mostListed = 5000

// Show returns the outlook of a change, or vault.ErrNotFound.
func (o *Outbox) Show(seq uint64) (out Outlook, err error) {
	err = o.v.View(func(tx *vault.Tx) error {
		c, err := tx.ChangeAt(seq)
		if err == nil {
			out, err = o.outlook(tx, c)
		}
		return err
	})
	return out, err
}

// List returns a page of the changes that f selects, in the order of Seq, and the Seq to go on after; that is 0 when there are no
// more. A call looks at some thousands at most: where few of those match, the page has fewer than Limit, or none, and next
// is not 0.
func (o *Outbox) List(f Filter) (page []Outlook, next uint64, err error) {
	err = o.v.View(func(tx *vault.Tx) error {
		for range mostListed {
			c, found, err := f.following(tx)
			if err != nil || !found {
				next = 0
				return err
			}
			if f.Limit > 0 && len(page) == f.Limit {
				return nil
			}
			f.After, next = c.Seq, c.Seq
			if f.User != "" && !strings.EqualFold(f.User, c.User) || f.CutOffs && !c.Kind.CutOff() || f.State == Parked && !c.Parked || f.State == Waiting && c.Parked {
				continue
			}
			out, err := o.outlook(tx, c)
			if err != nil {
				return err
			}
			if f.State == "" || f.State == Waiting || f.State == out.State {
				page = append(page, out)
			}
		}
		return nil
	})
	return page, next, err
}

// following is the first change after f.After of the shortest list that has all that f selects.
func (f Filter) following(tx *vault.Tx) (vault.Change, bool, error) {
	var list []vault.Change
	var err error
	switch {
	case f.Token != "":
		seq, err := tx.NextOf(f.Token, f.After)
		if err != nil || seq == 0 {
			return vault.Change{}, false, err
		}
		c, err := tx.ChangeAt(seq)
		return c, err == nil, err
	case f.State == Parked:
		list, err = tx.ParkedFrom(f.After, 1)
	case f.CutOffs:
		list, err = tx.CutOffsFrom(f.After, 1)
	default:
		list, err = tx.ChangesFrom(f.After, 1)
	}
	if err != nil || len(list) == 0 {
		return vault.Change{}, false, err
	}
	return list[0], true, nil
}

func (o *Outbox) outlook(tx *vault.Tx, c vault.Change) (Outlook, error) {
	out := Outlook{Change: c, State: Ready}
	var err error
	if !c.Kind.CutOff() {
		if _, out.Obsolete, err = superseded(tx, c); err != nil {
			return out, err
		}
	}
	s := schedule{tx: tx, now: o.now(), longest: o.backoff.Max}
	if out.Holds, err = s.holds(c); err != nil {
		return out, err
	}
	switch {
	case len(out.Holds) == 0:
	case out.Holds[0].Kind == HeldParked:
		out.State = Parked
	case out.Holds[0].Kind == HeldByPause:
		out.State = Paused
	default:
		out.State = Held
	}
	if away := o.away(); away.problem != "" {
		out.Holds = append(out.Holds, Hold{Kind: HeldByOutage, Until: away.again, Reason: away.problem})
	}
	if o.c == nil {
		out.Holds = append(out.Holds, Hold{Kind: HeldForNone})
	}
	return out, nil
}
