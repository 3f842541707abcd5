package openldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// remove cuts the token off as an Unassign does, and then deletes its entry at every provider.
//
// A deletion leaves nothing that could be newer: a provider that returns with what it has told nobody of keeps its entry, secret
// and all, and nobody would ever replicate it away. So while any is left out, the entry without a secret stays, to
// be what that one gets, and is deleted when all can be reached.
func (c *Connector) remove(ctx context.Context, ch vault.Change) error {
	views, left, err := c.shut(ctx, ch)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		err = together(left)
	} else {
		err = c.erase(ctx, ch, views)
	}
	if err == nil || errors.Is(err, syncer.ErrNotConfirmed) { // somebody writes it meanwhile
		return err
	}
	return fmt.Errorf("%w: %w", syncer.ErrRemains, err)
}

// erase deletes what is closed everywhere, at every provider: so that, where replication brings an earlier write to a provider
// after its own deletion, the deletion that follows that write comes as well.
func (c *Connector) erase(ctx context.Context, ch vault.Change, views []*view) error {
	over := time.Now().Add(c.grace)
	for tries := 0; slices.ContainsFunc(views, func(v *view) bool { return c.mine(v.entry) }); tries++ {
		if tries >= races && time.Now().After(over) {
			return fmt.Errorf("%w: %s of %s: its entry comes back: see who writes it", syncer.ErrNotConfirmed, ch.Kind, ch.Token.Central())
		}
		if err := c.eraseAt(ctx, views); err != nil {
			return err
		}
		if err := pause(ctx, min(time.Duration(tries)*firstPoll, lastPoll)); err != nil {
			return c.providers[0].unavailable(err)
		}
		seen := c.survey(ctx, c.providers, request{token: ch.Token, aspects: theOwners})
		if len(seen.views) < len(c.providers) {
			return together(slices.Concat(seen.gone, seen.locked))
		}
		for _, v := range seen.views {
			if err := v.err(); err != nil && err != v.entry.damaged {
				return v.provider.naming(err)
			}
			if len(v.owners) > 0 && !c.others(v.entry) {
				return v.provider.notConfirmed(ch, names(v.owners)+" has it again")
			}
		}
		views = seen.views
	}
	return nil
}

// others tells whether another desk has put its own seed there, over this desk's: the entry is that desk's since.
func (c *Connector) others(e entry) bool {
	return e.exists && e.origin.desk != "" && !e.origin.sameDesk(c.own(0))
}

func (c *Connector) mine(e entry) bool { return e.exists && !c.others(e) }

// eraseAt deletes the entries that were seen, if they are still what was seen.
func (c *Connector) eraseAt(ctx context.Context, views []*view) error {
	errs := make([]error, len(views))
	c.each(providersOf(views), func(i int, p *provider) {
		if e := views[i].entry; c.mine(e) {
			errs[i] = p.naming(p.do(ctx, func(s *session) error { return s.erase(e) }))
		}
	})
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) erase(e entry) error {
	err := s.conn.Del(ldap.NewDelRequest(e.dn, assertion(e.csn)))
	switch {
	case err == nil, ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
		delete(s.doubt, e.dn) // a write that still arrives finds no entry, or one with another entryCSN
		return nil
	case ldap.IsErrorWithCode(err, ldap.LDAPResultAssertionFailed):
		return nil // somebody wrote it; it is looked at again
	}
	return s.explain("delete", e.dn, err)
}

// pause ends after d, or with ctx and its error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	return nil
}
