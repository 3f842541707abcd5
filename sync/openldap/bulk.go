package openldap

import (
	"context"
	"fmt"
	"slices"
	"sync"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
	"tokendesk/vault/secret"
)

// pageSize is how many entries are asked for at a time (RFC 2696). Servers let nobody but their administrator have more
// than 500 in one answer unless told otherwise.
const pageSize = 500

// compares is how many requests of an inventory are under way at once.
const compares = 32

var tokenFilter = "(objectClass=" + classToken + ")"

// Counters implements syncer.Connector: one paged search, over a connection of its own. Entries whose counter is damaged count as
// 0. LastUsed is zero with OpenLDAP 2.5 and 2.6, whose overlay knows oathLastLogin and does not write it.
func (c *Connector) Counters(ctx context.Context, provider string, page func([]syncer.Reading) error) error {
	return c.bulk(ctx, provider, func(s *session) error {
		return s.pages(c.cfg.TokensBase, ldap.ScopeSingleLevel, tokenFilter, func(entries []*ldap.Entry) error {
			readings := make([]syncer.Reading, 0, len(entries))
			for _, e := range entries {
				readings = append(readings, c.reading(e))
			}
			return page(readings)
		}, attrCounter, attrNote, attrLastLogin)
	})
}

// Inventory implements syncer.Connector: one paged search for whoever links a token, one for the tokens, and a compare for
// each of them, over a connection of its own.
func (c *Connector) Inventory(ctx context.Context, provider string, page func([]syncer.Entry) error) error {
	return c.bulk(ctx, provider, func(s *session) error {
		owners := make(map[string]string) // by the token's central name
		err := s.pages(c.cfg.PeopleBase, ldap.ScopeWholeSubtree, "("+attrLink+"=*)", func(entries []*ldap.Entry) error {
			for _, e := range entries {
				u := c.userOf(e)
				token := c.central(u.link)
				if owners[token] != "" {
					u.name = owners[token] + ", " + u.name
				}
				owners[token] = u.name
			}
			return nil
		}, attrLink, c.userAttr)
		if err != nil {
			return err
		}
		return s.pages(c.cfg.TokensBase, ldap.ScopeSingleLevel, tokenFilter, func(entries []*ldap.Entry) error {
			enabled, err := s.haveSecrets(entries)
			if err != nil {
				return err
			}
			all := make([]syncer.Entry, 0, len(entries))
			for i, e := range entries {
				r := c.reading(e)
				all = append(all, syncer.Entry{Reading: r, Owner: owners[r.Central], Enabled: enabled[i]})
			}
			return page(all)
		}, attrCounter, attrNote, attrLastLogin)
	})
}

func (c *Connector) bulk(ctx context.Context, name string, f func(*session) error) error {
	i := slices.Index(c.Providers(), name)
	if i < 0 {
		return fmt.Errorf("%w: there is no provider %q: there are %q", syncer.ErrRefused, name, c.Providers())
	}
	p := c.providers[i]
	return p.naming(p.apart(ctx, f))
}

// reading is what an entry says. Its name is that by which the desk would look for it.
func (c *Connector) reading(e *ldap.Entry) syncer.Reading {
	o := originOf(e.GetAttributeValues(attrNote))
	next, err := parseCounter(e.GetAttributeValue(attrCounter))
	if err != nil {
		next = 0
	}
	r := syncer.Reading{Central: c.central(e.DN), Counter: next, Generation: o.generation}
	r.Ours = o.generation > 0 && o.sameDesk(c.own(0))
	if used, err := ber.ParseGeneralizedTime([]byte(e.GetAttributeValue(attrLastLogin))); err == nil {
		r.LastUsed = used.UTC()
	}
	return r
}

// pages reads all entries that match, pageSize at a time.
func (s *session) pages(base string, scope int, filter string, page func([]*ldap.Entry) error, attrs ...string) error {
	var stopped error
	err := s.rawPages(base, scope, filter, func(entries []*ldap.Entry) error {
		stopped = page(entries)
		return stopped
	}, attrs...)
	if stopped != nil {
		return stopped
	}
	return s.explain("read everything below", base, err)
}

// rawPages is pages with the server's own errors.

func (s *session) rawPages(base string, scope int, filter string, page func([]*ldap.Entry) error, attrs ...string) error {
	paging := ldap.NewControlPaging(pageSize)
	for {
		r, err := s.conn.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, filter, attrs, []ldap.Control{paging}))
		if err != nil {
			return err
		}
		if err := page(r.Entries); err != nil {
			return err
		}
		answer, ok := ldap.FindControl(r.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(answer.Cookie) == 0 {
			return nil
		}
		paging.SetCookie(answer.Cookie)
	}
}

// haveSecrets tells of each entry whether it has a secret.
func (s *session) haveSecrets(entries []*ldap.Entry) ([]bool, error) {
	found, errs := make([]bool, len(entries)), make([]error, len(entries))
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(compares, len(entries)) {
		wg.Go(func() {
			for i := range work {
				found[i], _, errs[i] = s.secretIs(entries[i].DN, secret.Secret{})
			}
		})
	}
	for i := range entries {
		work <- i
	}
	close(work)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
