package openldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// cutWait is how long a cut-off waits for the counters of other providers. It never waits for anything else.
const cutWait = 500 * time.Millisecond

// cutOff makes an Unassign or Disable.
func (c *Connector) cutOff(ctx context.Context, ch vault.Change) (syncer.Observation, error) {
	views, left, err := c.shut(ctx, ch)
	if err != nil {
		return syncer.Observation{}, err
	}
	o, err := c.merge(views)
	if err != nil && len(left) > 0 {
		return o, withheld(left, plain(err))
	}
	return o, err
}

// shut makes a cut-off at every provider at once, also at those that could not be reached a moment ago, and says why some were
// left out. It closes the door by removing the secret, for users too that cannot be seen, and then, unless it is a Disable,
// frees the token of those that can.
//
// A provider that is left out may have an opening that it has told nobody of yet. Where the others found nothing to
// remove, they are written all the same, so that theirs is the newer entry when it returns.
func (c *Connector) shut(ctx context.Context, ch vault.Change) (views []*view, left []error, err error) {
	seen, err := c.cutAt(ctx, ch, c.providers, nil)
	if err != nil {
		return nil, nil, err
	}
	left, locked := slices.Concat(seen.gone, seen.locked), len(seen.locked) > 0
	if len(left) > 0 && len(seen.views) > 0 {
		if seen, err = c.cutAt(ctx, ch, providersOf(seen.views), seen.views); err != nil {
			return nil, nil, err
		}
		left, locked = slices.Concat(left, seen.gone, seen.locked), locked || len(seen.locked) > 0
	}
	if len(seen.views) == 0 || locked {
		return nil, nil, together(left)
	}
	if len(left) > 0 && !slices.ContainsFunc(seen.views, func(v *view) bool { return v.entry.exists }) {
		return nil, nil, withheld(left, fmt.Sprintf("the others do not have token %s, and nothing written there would last against what is to come", ch.Token.Central()))
	}
	return seen.views, left, nil
}

// cutAt makes a cut-off at some providers, and for good where there are views of an earlier round.
func (c *Connector) cutAt(ctx context.Context, ch vault.Change, of []*provider, earlier []*view) (survey, error) {
	before := &round{missing: len(of), complete: make(chan struct{}), views: make(map[*provider]*view)}
	for _, v := range earlier {
		before.views[v.provider] = v
	}
	errs, views := make([]error, len(of)), make([]*view, len(of))
	c.each(of, func(i int, p *provider) {
		defer before.leave(p)
		if len(earlier) > 0 && earlier[i].lasts {
			views[i] = earlier[i]
			return
		}
		errs[i] = p.do(ctx, func(s *session) (err error) {
			views[i], err = s.cut(ctx, ch, before, len(earlier) > 0)
			return err
		})
	})
	var after survey
	for i, err := range errs {
		if err != nil && !errors.Is(err, syncer.ErrUnavailable) {
			return after, of[i].naming(err)
		}
		after.add(of[i], views[i], err)
	}
	return after, nil
}

// cut makes the change at one provider and returns what is there afterwards. For good means that it is written even if it
// is there already.
func (s *session) cut(ctx context.Context, ch vault.Change, before *round, forGood bool) (*view, error) {
	r := request{token: ch.Token, aspects: theSecret}
	frees := ch.Kind != vault.Disable
	if frees {
		r.aspects = everything
	}
	v := s.look(r)
	if v.entryErr != nil {
		return nil, v.entryErr
	}
	if ch.Kind == vault.Remove && s.others(v.entry) {
		return v, nil // nothing of this desk's is there to be removed
	}
	lasts, closed := s.removeSecret(v, before.levelled(ctx, v), forGood)
	var unlinked error
	if frees {
		unlinked = s.unlink(v)
		lasts = lasts && slices.ContainsFunc(v.owners, func(u user) bool { return strings.EqualFold(u.name, ch.User) })
		if unlinked == nil && forGood {
			unlinked = s.release(ch)
		}
	}
	if closed != nil {
		return nil, closed // it weighs more
	}
	if unlinked != nil {
		return nil, unlinked
	}
	v = s.look(request{token: ch.Token, aspects: everything})
	v.lasts = lasts
	switch {
	case v.entryErr != nil:
		return nil, v.entryErr
	case v.secretErr != nil:
		return nil, v.secretErr
	case v.ownersErr != nil:
		return nil, v.ownersErr
	case frees && len(v.owners) > 0:
		return nil, s.notConfirmed(ch, names(v.owners)+" still has it")
	case v.present:
		return nil, s.notConfirmed(ch, "the secret is still there")
	case ch.Kind == vault.Remove: // damage goes with the entry
		return v, nil
	}
	return v, v.entry.damaged
}

// removeSecret has the entry take what others know of it along: once replicated, it is theirs as well. But no damage to the
// entry keeps its secret. It tells whether it has written.
func (s *session) removeSecret(v *view, level func(*ldap.ModifyRequest, entry), forGood bool) (wrote bool, err error) {
	dn := v.entry.dn
	for range races {
		if !v.entry.exists || !forGood && v.secretErr == nil && !v.present && !s.doubt[dn] {
			return false, nil
		}
		m := ldap.NewModifyRequest(dn, assertion(v.entry.csn))
		s.noSecret(m, forGood)
		level(m, v.entry)
		err := s.modifyToken(m)
		if !ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultAssertionFailed) {
			if err == nil || !isAnswer(err) {
				return true, s.explain("remove the secret from", dn, err)
			}
			break
		}
		if v = s.look(v.request); v.entryErr != nil {
			return false, v.entryErr
		}
	}
	m := ldap.NewModifyRequest(dn, nil)
	s.noSecret(m, forGood)
	err = s.modifyToken(m)
	if ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultNoSuchObject) {
		return false, nil
	}
	return true, s.explain("remove the secret from", dn, err)
}

// noSecret fails where there is none, so that nothing is written then; unless a write that brings one may still be under
// way, here or at a provider that is left out.
func (s *session) noSecret(m *ldap.ModifyRequest, forGood bool) {
	if forGood || s.doubt[m.DN] {
		m.Replace(attrSecret, nil)
		return
	}
	m.Delete(attrSecret, nil)
}

func (s *session) unlink(v *view) error {
	if v.ownersErr != nil {
		return v.ownersErr
	}
	for _, o := range v.owners {
		m := ldap.NewModifyRequest(o.dn, nil)
		m.Delete(attrLink, []string{o.link})
		err := s.conn.Modify(m)
		if err != nil && !ldap.IsErrorAnyOf(err, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultNoSuchObject) {
			return s.explain("remove the token from", o.dn, err)
		}
	}
	return nil
}

// release writes the entry of the change's user as one that had the token, unless it links another one. The class comes
// along: without it this entry, once it replaces the linked one, would let the bare password in.
func (s *session) release(ch vault.Change) error {
	if ch.User == "" {
		return nil
	}
	token := s.tokenDN(ch.Token)
	found, err := s.users(s.cfg.userFilter(ch.User), 2)
	if err != nil {
		return err
	}
	for _, u := range found {
		if u.link != "" && !sameDN(u.link, token) {
			continue
		}
		m := ldap.NewModifyRequest(u.dn, asserting("(|(!("+attrLink+"=*))("+attrLink+"="+ldap.EscapeFilter(token)+"))"))
		if !u.class {
			m.Add("objectClass", []string{classUser})
		}
		m.Replace(attrLink, nil)
		err := s.conn.Modify(m)
		switch {
		case ldap.IsErrorAnyOf(err, ldap.LDAPResultAssertionFailed, ldap.LDAPResultNoSuchObject):
		case ldap.IsErrorWithCode(err, ldap.LDAPResultAttributeOrValueExists):
			return fmt.Errorf("%w: %s changed under the write", syncer.ErrUnavailable, u.dn)
		case err != nil:
			return s.explain("remove the token from", u.dn, err)
		}
	}
	return nil
}

// round gathers what all providers showed before the first write of a cut-off.
type round struct {
	mu       sync.Mutex
	views    map[*provider]*view
	left     map[*provider]bool
	missing  int
	complete chan struct{}
}

// leave counts a provider as done; it may be called again.
func (r *round) leave(p *provider) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left == nil {
		r.left = make(map[*provider]bool)
	}
	if r.left[p] {
		return
	}
	r.left[p] = true
	if r.missing--; r.missing == 0 {
		close(r.complete)
	}
}

// levelled waits for the others, within reason, and returns what has a modification of the entry bring along: the highest
// counter of its seed, and what the newest entry says besides.
func (r *round) levelled(ctx context.Context, v *view) func(*ldap.ModifyRequest, entry) {
	r.mu.Lock()
	r.views[v.provider] = v
	r.mu.Unlock()
	r.leave(v.provider)
	alarm := time.NewTimer(cutWait)
	defer alarm.Stop()
	select {
	case <-r.complete:
	case <-alarm.C:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := v
	for _, o := range r.views {
		if o.entry.exists && o.entry.csn > newest.entry.csn {
			newest = o
		}
	}
	next := uint64(0)
	for _, o := range r.views {
		if o.entry.exists && o.entry.origin == newest.entry.origin {
			next = max(next, o.entry.next)
		}
	}
	return func(m *ldap.ModifyRequest, e entry) {
		switch {
		case e.damaged != nil:
		case e.origin == newest.entry.origin:
			raiseTo(m, e, next)
		default: // it has missed a reseed
			m.Replace(attrCounter, formatCounter(next))
			m.Replace(attrParams, present(newest.entry.params))
			m.Replace(attrNote, newest.entry.notes)
		}
	}
}
