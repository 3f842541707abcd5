package openldap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// lift takes back a refusal that rests on what the providers show which were reached, as long as there are others. Those
// that were only resting are asked first.
func (p *push) lift(ctx context.Context, err error) error {
	if partial := (*partialError)(nil); !errors.As(err, &partial) {
		return err
	}
	if unasked := p.unasked(); len(unasked) > 0 {
		err := p.read(ctx, unasked, p.first())
		p.raiseTarget(p.views)
		return p.lift(ctx, err)
	}
	if left := p.left(); len(left) > 0 {
		return withheld(left, plain(err))
	}
	known := slices.DeleteFunc(slices.Clone(p.views), func(v *view) bool { return v.userErr != nil })
	if len(known) > 0 && len(known) < len(p.views) {
		return fmt.Errorf("%w: the providers have not caught up with each other: %s", syncer.ErrNotConfirmed, plain(err))
	}
	return err
}

// mustLast tells whether a change that leaves the token without a secret has to be written though it is there already:
// a provider that is left out may have one, and must find the newer entry when it returns.
func (p *push) mustLast(newest *view) bool {
	_, written := p.wrote[newest.provider]
	newest.anew = p.ch.Kind != vault.Advance && p.seed.IsZero() && len(p.views) < len(p.providers) && !written
	return newest.anew
}

// mayClose tells whether an Advance may not be written as such: what brought the secret may have come only to a provider that is
// left out. Of those that were reached the entry without one would be the newer, and close the token everywhere.
func (p *push) mayClose(newest *view) bool {
	return p.ch.Kind == vault.Advance && !p.seed.IsZero() && len(p.views) < len(p.providers) && !newest.same
}

// keepOpen has the Advance wait unless the secret turns out to be there: its opening may not have come, but somebody may as well
// have closed the token in the server's own tools, and no counter is a reason to open it again.
func (p *push) keepOpen(ctx context.Context, newest *view) error {
	if newest.aspects&theSecret == 0 {
		return p.read(ctx, providersOf(p.views), everything)
	}
	return &partialError{newest.provider.naming(fmt.Errorf("%w: token %s is closed there, or has another secret", syncer.ErrRefused, p.ch.Token.Central()))}
}

// absent are the providers of which there is no view.
func (p *push) absent() []*provider {
	all, seen := slices.Clone(p.providers), providersOf(p.views)
	return slices.DeleteFunc(all, func(p *provider) bool { return slices.Contains(seen, p) })
}

// unasked are those of them that were not even asked.
func (p *push) unasked() []*provider {
	return slices.DeleteFunc(p.absent(), func(o *provider) bool { return p.failed[o] != nil })
}

// left says why they are.
func (p *push) left() (why []error) {
	for _, o := range p.absent() {
		if err := p.failed[o]; err != nil {
			why = append(why, err)
		}
	}
	return why
}
