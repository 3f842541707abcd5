package openldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/vault/secret"
)

// request says what is to be read of a token besides its entry.
type request struct {
	token   device.TokenID
	user    string        // for theUser, and to be told from other owners
	seed    secret.Secret // for theSecret: to be compared with; zero asks for presence only
	origin  origin        // of that seed
	known   []user        // entries that the name is known to stand for
	aspects aspect
}

type aspect int

const (
	theSecret  aspect = 1 << iota // whether there is one, and this one
	theOwners                     // whose entries link the token
	theUser                       // the entry of that user
	everything = theSecret | theOwners
)

// view is what one provider shows of a token.
type view struct {
	provider *provider
	request
	entry   entry
	present bool // a secret is there
	same    bool // and it is the one that was asked for
	owners  []user
	named   []user // the entries that the user's name stands for; of theUser there is one
	lasts   bool   // a cut-off was written just before, and so is newer than what another provider may bring
	anew    bool   // that there is no secret is to be written, even if it is there already

	entryErr, secretErr, ownersErr, userErr error
}

// look reads a view. All requests are under way at once, but that the secret is compared after its entry was read.
func (s *session) look(r request) *view {
	v := &view{provider: s.provider, request: r}
	var wg sync.WaitGroup
	if r.aspects&theOwners != 0 {
		wg.Go(func() {
			v.owners, v.ownersErr = s.linked(s.tokenDN(r.token))
			if v.ownersErr == nil && r.user != "" && r.aspects&theUser == 0 && stranger(v.owners, r.known) != nil {
				v.named, v.ownersErr = s.users(s.cfg.userFilter(r.user), 2)
			}
		})
	}
	if r.aspects&theUser != 0 {
		wg.Go(func() {
			var u user
			u, v.userErr = s.user(r.user)
			v.named = []user{u}
		})
	}
	v.entry, v.entryErr = s.token(r.token)
	if r.aspects&theSecret != 0 {
		s.compare(v)
	}
	wg.Wait()
	if v.entryErr == nil && !v.entry.exists && errors.Is(v.secretErr, syncer.ErrRefused) {
		v.secretErr = nil // nothing to compare with
	}
	return v
}

// compare asks about the secret. If it is the one that was asked for and the entry is about another, the secret may have come
// after the entry was read, and its counter, read before, must not be taken for that of this seed: so that is read again.
func (s *session) compare(v *view) {
	for range races {
		v.present, v.same, v.secretErr = s.secretIs(v.entry.dn, v.seed)
		if !v.same || v.entryErr != nil || v.entry.origin == v.origin {
			return
		}
		before := v.entry.csn
		if v.entry, v.entryErr = s.token(v.token); v.entry.csn == before {
			return
		}
	}
}

// err is why the view is no good.
func (v *view) err() error {
	for _, err := range []error{v.userErr, v.ownersErr, v.entryErr, v.entry.damaged, v.secretErr} {
		if err != nil {
			return err
		}
	}
	return nil
}

// silent is the error with which the provider stopped answering, if it did.
func (v *view) silent() error {
	for _, err := range []error{v.entryErr, v.secretErr, v.ownersErr, v.userErr} {
		if errors.Is(err, syncer.ErrUnavailable) {
			return err
		}
	}
	return nil
}

// survey is what providers show at one time.
type survey struct {
	views  []*view             // of those that answered, in configured order
	gone   []error             // of those that cannot be reached
	locked []error             // of those that do not let the desk in
	failed map[*provider]error // both, by provider
}

// survey reads views from providers at the same time.
func (c *Connector) survey(ctx context.Context, providers []*provider, r request) survey {
	views, errs := make([]*view, len(providers)), make([]error, len(providers))
	c.each(providers, func(i int, p *provider) {
		errs[i] = p.do(ctx, func(s *session) error {
			views[i] = s.look(r)
			return views[i].silent()
		})
	})
	var s survey
	for i, err := range errs {
		s.add(providers[i], views[i], err)
	}
	return s
}

func (s *survey) add(p *provider, v *view, err error) {
	if err != nil && s.failed == nil {
		s.failed = make(map[*provider]error)
	}
	if err != nil {
		s.failed[p] = err
	}
	switch locked := (*lockedOutError)(nil); {
	case err == nil:
		s.views = append(s.views, v)
	case errors.As(err, &locked):
		s.locked = append(s.locked, err)
	default:
		s.gone = append(s.gone, err)
	}
}

// each runs f for every provider at the same time, and returns when all have ended.
func (c *Connector) each(providers []*provider, f func(int, *provider)) {
	if len(providers) == 1 {
		f(0, providers[0])
		return
	}
	var wg sync.WaitGroup
	for i, p := range providers {
		wg.Go(func() { f(i, p) })
	}
	wg.Wait()
}

// refusal is why nothing can be said from the survey: nobody answered, or somebody did with an error.
func (s *survey) refusal() error {
	if len(s.views) == 0 {
		return together(append(s.gone, s.locked...))
	}
	for _, v := range s.views {
		if err := v.err(); err != nil {
			return v.provider.naming(err)
		}
	}
	return nil
}

// naming says which of several providers an error is about.
func (p *provider) naming(err error) error {
	if len(p.providers) == 1 || err == nil {
		return err
	}
	return fmt.Errorf("%s: %w", p.name, err)
}

// merge makes one observation of several views.
func (c *Connector) merge(views []*view) (o syncer.Observation, err error) {
	newest := 0
	for _, v := range views {
		if v.entry.origin.sameDesk(c.own(0)) {
			newest = max(newest, v.entry.origin.generation)
		}
	}
	for _, v := range views {
		if v.entry.exists && len(v.owners) > 1 {
			return o, v.provider.naming(fmt.Errorf("%w: token %s is linked by several users (%s), and each can log in with it: remove %s from all but one", syncer.ErrRefused, v.token.Central(), names(v.owners), attrLink))
		}
		if !v.entry.exists {
			continue
		}
		if newest == 0 || v.entry.origin.generation == newest && v.entry.origin.sameDesk(c.own(0)) {
			o.Counter = max(o.Counter, v.entry.next)
		}
		o.Exists, o.Enabled = true, o.Enabled || v.present
		if o.Owner == "" {
			o.Owner = names(v.owners)
		}
	}
	return o, nil
}

// newestOf is the view of the provider whose entry was written last; the first one of equals. A
// provider that has missed a write must not hand its old entry on.
func newestOf(views []*view) *view {
	return slices.MaxFunc(views, func(a, b *view) int {
		switch {
		case a.entry.exists != b.entry.exists && a.entry.exists:
			return 1
		case a.entry.exists != b.entry.exists:
			return -1
		case a.entry.csn > b.entry.csn:
			return 1
		case a.entry.csn < b.entry.csn:
			return -1
		}
		return 0
	})
}

// own is this desk's origin of a seed.
func (c *Connector) own(generation int) origin { return origin{generation, c.cfg.Desk} }

// stranger finds one of the owners who is none of the others.
func stranger(owners, others []user) *user {
	for i, o := range owners {
		if !slices.ContainsFunc(others, func(u user) bool { return sameDN(u.dn, o.dn) }) {
			return &owners[i]
		}
	}
	return nil
}
