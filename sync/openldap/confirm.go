package openldap

import (
	"fmt"
	"slices"
	"strings"

	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// missing says what a view lacks of the change; nothing if it shows it.
func (p *push) missing(v *view) string {
	e, own := v.entry, p.own(p.ch.Generation)
	switch {
	case p.ch.Kind == vault.Advance && (!e.exists || e.next < p.target || p.conflict(v, p.ch) != nil):
		return "the counter was not raised"
	case p.ch.Kind == vault.Advance:
		return ""
	case !e.exists:
		return "the entry is not there"
	case p.ch.Kind == vault.Assign && !slices.ContainsFunc(v.owners, func(u user) bool { return u.class && stranger([]user{u}, p.named) == nil }):
		return "the user's entry does not link it"
	case e.origin.generation != own.generation || !e.origin.sameDesk(own):
		return "the generation is another one"
	case e.next < p.target:
		return "the counter is behind"
	case !sameDN(e.params, p.cfg.Params[p.ch.Digits]):
		return "the parameters are other ones"
	case e.serial != p.ch.Token.Central():
		return "the serial number is another one"
	case p.seed.IsZero() && v.present:
		return "the secret is still there"
	case !p.seed.IsZero() && !v.same:
		return "the secret is not the one that was written"
	}
	return ""
}

// otherLink refuses what would let somebody else use the token, or its user have two.
func (p *push) otherLink(v *view) error {
	if p.ch.Kind == vault.Assign && len(v.named) == 1 && v.named[0].link != "" && !sameDN(v.named[0].link, v.entry.dn) {
		return fmt.Errorf("%w: user %q already has token %s: unassign it first", syncer.ErrRefused, p.ch.User, p.central(v.named[0].link))
	}
	o := stranger(v.owners, p.named)
	if o == nil || p.ch.Kind == vault.Advance {
		return nil
	}
	return fmt.Errorf("%w: token %s is linked by %s there: unassign it, or remove %s from %s, and retry", syncer.ErrRefused, p.ch.Token.Central(), o.name, attrLink, o.dn)
}

func (p *push) notConfirmed(v *view) error {
	return v.provider.notConfirmed(p.ch, p.missing(v))
}

func (p *provider) notConfirmed(ch vault.Change, why string) error {
	if len(p.providers) > 1 {
		why = p.name + " does not show it: " + why
	}
	return fmt.Errorf("%w: %s of %s: %s", syncer.ErrNotConfirmed, ch.Kind, ch.Token.Central(), why)
}

// plain is a refusal without the word for it.
func plain(err error) string {
	return strings.Replace(err.Error(), syncer.ErrRefused.Error()+": ", "", 1)
}
