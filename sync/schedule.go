package syncer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// attempt is the next entry to work on.
type attempt struct {
	change   vault.Change
	owner    string        // of the token
	seed     secret.Secret // zero unless codes may be accepted; wiped after use
	obsolete string        // why nothing is left to deliver
	renewed  bool          // a token of that name is in the vault again, with a later seed
	why      turn
}

// order is the change as the connector gets it. Whose the token may be there is what the vault says by now: an entry that is
// delivered once more, after later ones, must not take offence at what those have done. An Advance that carries no seed, as no
// codes may be accepted, is a Put: it sees to that as well, at a provider that has missed the cut-off. Of a Remove whose name
// is taken again only the cut-off is left: the new token's Put, which waits for it, goes over the old one, and does not
// have to wait for every provider then.
func (a *attempt) order() vault.Change {
	c := a.change
	if c.Kind == vault.Advance && a.seed.IsZero() {
		c.Kind = vault.Put
	}
	if c.Kind == vault.Remove && a.renewed {
		c.Kind = vault.Unassign
	}
	if c.Kind == vault.Put || c.Kind == vault.Enable || c.Kind == vault.Advance {
		c.User = a.owner
	}
	return c
}

// schedule says of entries in one transaction whether they can go.
type schedule struct {
	tx      *vault.Tx
	open    unrecorded // what the transaction may not know yet
	now     time.Time
	longest time.Duration // no pause is longer
}

// consider tells what is to be done with an entry now, or what holds it back. It opens no seed.
func (s *schedule) consider(c vault.Change) (a attempt, token vault.Token, h Hold, err error) {
	a.change = c
	if s.open.of(c.Seq) != nil {
		return a, token, Hold{Kind: byOutcome}, nil
	}
	switch {
	case !c.Kind.CutOff():
		if token, a.obsolete, err = superseded(s.tx, c); err != nil || a.obsolete != "" {
			return a, token, Hold{}, err
		}
	case c.Kind == vault.Remove:
		if a.renewed, err = renewed(s.tx, c); err != nil {
			return a, token, Hold{}, err
		}
	}
	for _, hold := range []func(vault.Change) (Hold, error){s.byEarlier, s.byAnother, s.byCutOff, s.byOfficer, s.byPause} {
		if h, err = hold(c); err != nil || h.Kind != "" {
			return a, token, h, err
		}
	}
	return a, token, Hold{}, nil
}

// holds is everything that holds an entry back.
func (s *schedule) holds(c vault.Change) (all []Hold, err error) {
	for _, hold := range []func(vault.Change) (Hold, error){s.byOfficer, s.byPause, s.byEarlier, s.byAnother, s.byCutOff} {
		h, err := hold(c)
		if err != nil {
			return nil, err
		}
		if h.Kind != "" {
			all = append(all, h)
		}
	}
	return all, nil
}

// byEarlier: everything but a cut-off waits for the earlier entries of its token.
func (s *schedule) byEarlier(c vault.Change) (Hold, error) {
	if c.Kind.CutOff() {
		return Hold{}, nil
	}
	seq := uint64(0)
	for {
		var err error
		if seq, err = s.tx.NextOf(c.Token, seq); err != nil || seq == 0 || seq >= c.Seq {
			return Hold{}, err
		}
		if !s.open.removed(seq) {
			return Hold{Kind: HeldByEarlier, Seq: seq}, nil
		}
	}
}

// byCutOff: a user gets a token only after what was to be taken from them.
func (s *schedule) byCutOff(c vault.Change) (Hold, error) {
	if c.Kind != vault.Assign {
		return Hold{}, nil
	}
	seq, err := s.tx.CutOffOf(c.User)
	if err != nil || seq == 0 || seq >= c.Seq {
		return Hold{}, err
	}
	return Hold{Kind: HeldByCutOff, Seq: seq}, nil
}

// byAnother: what takes the place of another token, or of another user, waits until that one is cut off. A cut-off waits for nothing.
func (s *schedule) byAnother(c vault.Change) (Hold, error) {
	if h, err := s.byReplaced(c); err != nil || h.Kind != "" {
		return h, err
	}
	if c.After == 0 || c.Kind.CutOff() || s.open.removed(c.After) {
		return Hold{}, nil
	}
	first, err := s.tx.ChangeAt(c.After)
	if errors.Is(err, vault.ErrNotFound) || err == nil && first.Closed {
		return Hold{}, nil
	}
	return Hold{Kind: HeldByAnother, Seq: c.After}, err
}

// byReplaced: what opens a token waits for the cut-off of the one that it replaces, whoever has left word of it.
func (s *schedule) byReplaced(c vault.Change) (Hold, error) {
	if c.Kind != vault.Put && c.Kind != vault.Assign && c.Kind != vault.Enable {
		return Hold{}, nil
	}
	t, err := s.tx.Token(c.Token)
	if errors.Is(err, vault.ErrNotFound) || err == nil && t.Replaces == "" {
		return Hold{}, nil
	}
	if err != nil {
		return Hold{}, err
	}
	waiting, err := s.tx.ChangesOf(t.Replaces)
	for _, first := range waiting {
		if first.Kind == vault.Unassign && first.Seq < c.Seq && !s.open.removed(first.Seq) {
			return Hold{Kind: HeldByAnother, Seq: first.Seq}, err
		}
	}
	return Hold{}, err
}

func (s *schedule) byOfficer(c vault.Change) (Hold, error) {
	if !c.Parked {
		return Hold{}, nil
	}
	h := Hold{Kind: HeldParked, By: c.ParkedBy, Reason: c.Reason}
	if h.Reason == "" {
		h.Reason = c.Problem
	}
	return h, nil
}

// byPause: a pause that ends later than any can last is one of before the clock was set back.
func (s *schedule) byPause(c vault.Change) (Hold, error) {
	if c.Parked || !c.NotBefore.After(s.now) || c.NotBefore.Sub(s.now) > s.longest {
		return Hold{}, nil
	}
	return Hold{Kind: HeldByPause, Until: c.NotBefore, Reason: c.Problem}, nil
}

// renewed tells whether a token that was removed is in the vault again. A new one counts on from the generation of the old.
func renewed(tx *vault.Tx, c vault.Change) (bool, error) {
	t, err := tx.Token(c.Token)
	if errors.Is(err, vault.ErrNotFound) {
		return false, nil
	}
	return t.Generation > c.Generation, err
}

// superseded returns the entry's token and, if the vault has moved on so that the entry asks for what is
// no longer wanted, why.
func superseded(tx *vault.Tx, c vault.Change) (t vault.Token, why string, err error) {
	t, err = tx.Token(c.Token)
	switch {
	case errors.Is(err, vault.ErrNotFound):
		return t, "the token is gone", nil
	case err != nil:
		return t, "", err
	case c.Generation != t.Generation:
		return t, fmt.Sprintf("the token is at seed generation %d", t.Generation), nil
	case c.Kind == vault.Assign && !strings.EqualFold(c.User, t.Owner):
		return t, "the token belongs to this user no longer", nil
	case c.Kind == vault.Enable && t.Status != vault.Active && !reseeding(t):
		return t, fmt.Sprintf("the token is %s", t.Status), nil
	}
	return t, "", nil
}

// seed opens what an entry is to carry: the token's own, if codes of it may be accepted. Cut-offs carry none, whatever the
// token is by now.
func (s *schedule) seed(c vault.Change, t vault.Token) (secret.Secret, error) {
	if c.Kind.CutOff() || t.Owner == "" || t.Status != vault.Active && !reseeding(t) {
		return secret.Secret{}, nil
	}
	return s.tx.Seed(t.ID, t.Generation)
}

// reseeding tells whether a token's reseed is unfinished. Until it is over, its owner goes on with the seed of before, also if
// that is only now delivered. A reissue in that state has no owner.
func reseeding(t vault.Token) bool { return t.Status == vault.Limbo && t.Owner != "" }

// replacing tells whether the token's own seed is still to be put there: until then, a counter that the
// service shows may belong to another seed.
func replacing(tx *vault.Tx, t vault.Token) (bool, error) {
	waiting, err := tx.ChangesOf(t.ID)
	return slices.ContainsFunc(waiting, func(c vault.Change) bool {
		return c.Kind == vault.Put && c.Generation == t.Generation
	}), err
}
