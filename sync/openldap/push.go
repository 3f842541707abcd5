package openldap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

const (
	// races is how often a write starts again because somebody wrote, or logged in, between reading and writing.
	races = 5
	// Replication mostly takes a few milliseconds.
	firstPoll, lastPoll = 5 * time.Millisecond, 80 * time.Millisecond
	// impatience is how long a provider that replication did not reach within the grace is not waited for again.
	impatience = 5 * time.Second
)

// Apply implements syncer.Connector.
func (c *Connector) Apply(ctx context.Context, ch vault.Change, seed secret.Secret) (syncer.Observation, error) {
	switch ch.Kind {
	case vault.Unassign, vault.Disable:
		return c.cutOff(ctx, ch)
	case vault.Remove:
		return syncer.Observation{}, c.remove(ctx, ch)
	case vault.Put, vault.Enable, vault.Assign:
		if err := c.writable(ch); err != nil {
			return syncer.Observation{}, err
		}
	case vault.Advance:
	default:
		return syncer.Observation{}, fmt.Errorf("%w: this connector does not know the change %q", syncer.ErrRefused, ch.Kind)
	}
	p := &push{Connector: c, ch: ch, seed: seed, target: ch.Counter, seen: make(map[*provider]uint64), wrote: make(map[*provider]uint64)}
	p.failed = make(map[*provider]error)
	if err := p.run(ctx); err != nil {
		return syncer.Observation{}, err
	}
	if len(p.locked) > 0 {
		return syncer.Observation{}, fmt.Errorf("the change was made elsewhere: %w", together(p.locked))
	}
	return c.merge(p.views)
}

// writable refuses codes of a kind that the directory has no parameters for.
func (c *Connector) writable(ch vault.Change) error {
	if _, ok := c.cfg.Params[ch.Digits]; !ok {
		return fmt.Errorf("%w: no oathHOTPParams entry is configured for codes of %d digits: create one and name it", syncer.ErrRefused, ch.Digits)
	}
	return nil
}

// push is a change, other than a cut-off, on its way to all providers.
type push struct {
	*Connector
	ch   vault.Change
	seed secret.Secret
	survey

	named  []user               // the entries that the change's user stands for
	target uint64               // the counter that every provider is to have
	seen   map[*provider]uint64 // the highest counter of this seed that a provider had
	wrote  map[*provider]uint64 // the target when the change was written there
	floor  string               // the entryCSN of what was written: older ones are from before
	over   time.Time            // when replication is no longer waited for; zero while nothing is waited for
	final  bool                 // over is past
	stale  int                  // writes that came too late
}

func (p *push) run(ctx context.Context) error {
	err := p.read(ctx, p.up(), p.first())
	p.raiseTarget(p.views)
	for done := false; ; {
		if err == nil {
			done, err = p.step(ctx)
		}
		if err = p.lift(ctx, err); err != nil || done {
			return err
		}
	}
}

// step does what is to be done next.
func (p *push) step(ctx context.Context) (done bool, err error) {
	newest := newestOf(p.views)
	if newest.entry.csn < p.floor { // the provider that was written is gone
		p.floor = ""
	}
	if err := p.refused(newest); err != nil {
		return false, err
	}
	if p.mayClose(newest) {
		return false, p.keepOpen(ctx, newest)
	}
	late := p.late()
	switch blocked := p.blocked(); {
	case blocked != nil && p.isOver(late):
		return false, blocked
	case blocked != nil:
		return false, p.wait(ctx, p.up(), p.first())
	case p.mustLast(newest) || p.missing(newest) != "":
		return false, p.writeAt(ctx, newest)
	case slices.ContainsFunc(p.views, func(v *view) bool { return v.aspects&everything != everything }):
		return false, p.read(ctx, providersOf(p.views), everything)
	case len(late) == 0:
		if _, err := p.merge(p.views); err != nil {
			return false, &partialError{err}
		}
		return true, nil
	case p.isOver(late):
		return false, p.direct(ctx)
	}
	return false, p.wait(ctx, providersOf(late), everything)
}

// first is what has to be read before a write.
func (p *push) first() aspect {
	switch p.ch.Kind {
	case vault.Advance:
		return 0
	case vault.Assign:
		return everything | theUser
	}
	return everything
}

// read replaces the views of some providers.
func (p *push) read(ctx context.Context, of []*provider, what aspect) error {
	r := request{token: p.ch.Token, seed: p.seed, origin: p.own(p.ch.Generation), known: p.named, aspects: what}
	if p.ch.Kind != vault.Advance { // for which it does not matter who has the token
		r.user = p.ch.User
	}
	now := p.Connector.survey(ctx, of, r)
	if err := ctx.Err(); err != nil {
		return p.providers[0].unavailable(err)
	}
	for _, v := range p.views {
		if !slices.Contains(of, v.provider) {
			now.views = append(now.views, v)
		}
	}
	slices.SortFunc(now.views, func(a, b *view) int {
		return slices.Index(p.providers, a.provider) - slices.Index(p.providers, b.provider)
	})
	p.views, p.gone, p.locked = now.views, now.gone, append(p.locked, now.locked...)
	maps.Copy(p.failed, now.failed)
	if err := p.refusal(); err != nil {
		return err
	}
	for _, v := range p.views {
		if !slices.Contains(of, v.provider) {
			continue
		}
		for _, u := range v.named {
			if stranger([]user{u}, p.named) != nil {
				p.named = append(p.named, u)
			}
		}
		if v.entry.exists && !p.otherSeed(v) {
			if seen := p.seen[v.provider]; v.entry.next < seen {
				p.target = max(p.target, seen) // replication has lowered it
			}
			p.seen[v.provider] = max(p.seen[v.provider], v.entry.next)
		}
	}
	return nil
}

// raiseTarget takes the counters of views into account that are about to be overwritten.
func (p *push) raiseTarget(views []*view) {
	for _, v := range views {
		if v.entry.exists && !p.otherSeed(v) {
			p.target = max(p.target, v.entry.next)
		}
	}
}

func (p *push) otherSeed(v *view) bool {
	if p.ch.Kind == vault.Advance {
		return p.conflict(v, p.ch) != nil
	}
	return p.holdsAnotherSeed(v, p.ch)
}

func (p *push) refused(newest *view) error {
	for _, v := range p.views {
		if err := p.newer(v, p.ch); err != nil {
			return v.provider.naming(err)
		}
	}
	err := p.conflict(newest, p.ch)
	if err == nil && !slices.ContainsFunc(p.views, func(v *view) bool { return p.otherLink(v) == nil }) {
		err = p.otherLink(newest)
	}
	if err != nil {
		return &partialError{newest.provider.naming(err)}
	}
	return nil
}

// blocked says that some providers have the token as somebody else's, or its user with another one, and some do not.
// Replication may be about to change that, so it is no refusal.
func (p *push) blocked() error {
	for _, v := range p.views {
		if err := p.otherLink(v); err != nil {
			return fmt.Errorf("%w: the providers have not caught up with each other: %s: %s", syncer.ErrNotConfirmed, v.provider.name, plain(err))
		}
	}
	return nil
}

func (p *push) late() (late []*view) {
	for _, v := range p.views {
		if p.missing(v) != "" || !p.final && v.entry.csn < p.floor {
			late = append(late, v)
		}
	}
	return late
}

// writeAt makes the change at one provider, and reads it back there.
func (p *push) writeAt(ctx context.Context, v *view) error {
	at := v.provider
	if p.first()&^v.aspects != 0 {
		return p.read(ctx, []*provider{at}, p.first())
	}
	if target, ok := p.wrote[at]; ok && target == p.target {
		return p.notConfirmed(v)
	}
	err := at.do(ctx, func(s *session) error { return s.write(v, p.ch, p.seed, p.target) })
	switch {
	case err == nil:
		p.wrote[at] = p.target
		if err := p.read(ctx, []*provider{at}, everything); err != nil {
			return err
		}
		for _, v := range p.views {
			if v.provider == at {
				p.floor = max(p.floor, v.entry.csn)
			}
		}
		p.over = time.Now().Add(p.grace)
		return nil
	case errors.Is(err, errStale):
		if p.stale++; p.stale >= races {
			return fmt.Errorf("%w: token %s changed under the write %d times: it is in use right now, or the bind identity may not read its entry", syncer.ErrUnavailable, p.ch.Token.Central(), races)
		}
	case errors.Is(err, syncer.ErrUnavailable) && len(p.views) > 1 && ctx.Err() == nil: // another one may do
		p.views = slices.DeleteFunc(p.views, func(o *view) bool { return o == v })
		p.survey.add(at, nil, err)
	default:
		return at.naming(err)
	}
	if err := p.read(ctx, providersOf(p.views), p.first()); err != nil {
		return err
	}
	p.raiseTarget(p.views)
	return nil
}

// isOver tells whether replication has had its time.
func (p *push) isOver(late []*view) bool {
	if p.over.IsZero() {
		p.over = time.Now().Add(p.grace)
	}
	patient := slices.ContainsFunc(late, func(v *view) bool { return !v.provider.isBehind() })
	return p.final || len(late) > 0 && !patient || time.Now().After(p.over)
}

// wait reads again after a moment.
func (p *push) wait(ctx context.Context, of []*provider, what aspect) error {
	pause := min(max(firstPoll, (p.grace-time.Until(p.over))/2), lastPoll)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	select {
	case <-ctx.Done():
		return p.providers[0].unavailable(ctx.Err())
	case <-tick.C:
	}
	if err := p.read(ctx, of, what); err != nil {
		return err
	}
	p.raiseTarget(p.late())
	return nil
}

// direct makes the change where replication has not brought it.
func (p *push) direct(ctx context.Context) error {
	p.final = true
	if err := p.read(ctx, providersOf(p.views), everything|p.first()); err != nil {
		return err
	}
	p.raiseTarget(p.views)
	newest, late := newestOf(p.views), p.late()
	if len(late) == 0 {
		return nil
	}
	v := late[0]
	v.provider.setBehind()
	if p.ch.Kind == vault.Advance && (v.present != newest.present || p.conflict(v, p.ch) != nil) {
		// It has missed more than this change, and must not hand on what it has.
		return fmt.Errorf("%w: %s of %s: %s has not caught up with %s: see why it does not replicate", syncer.ErrNotConfirmed, p.ch.Kind, p.ch.Token.Central(), v.provider.name, newest.provider.name)
	}
	return p.writeAt(ctx, v)
}

func providersOf(views []*view) (all []*provider) {
	for _, v := range views {
		all = append(all, v.provider)
	}
	return all
}
