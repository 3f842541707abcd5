package syncer

import (
	"fmt"
	"strings"

	"tokendesk/device"
	"tokendesk/vault"
)

// differences compares a token of the vault with one provider.
func (d DeskSide) differences(p ProviderSide) (all []Difference) {
	add := func(kind DifferenceKind, format string, args ...any) {
		all = append(all, Difference{Kind: kind, Provider: p.Provider, Text: fmt.Sprintf(format, args...)})
	}
	switch {
	case p.Problem != "":
		return nil
	case !p.Exists && (d.Generation == 0 || d.Status == vault.Compromised): // never pushed, or missed by nobody
		return nil
	case !p.Exists:
		add(DiffersMissing, "it is not at %s", p.Provider)
		return all
	}
	if !strings.EqualFold(p.Owner, d.Owner) {
		add(DiffersOwner, "%s has it at %s; here %s", someone(p.Owner), p.Provider, hasIt(d.Owner))
	}
	switch accepted := d.accepted(); {
	case p.Enabled && !accepted:
		state := "it is stock"
		if d.Status != vault.Active {
			state = "it is " + string(d.Status)
		}
		add(DiffersEnabled, "its secret is at %s, and here %s: nobody may log in with it", p.Provider, state)
		all[len(all)-1].Breach = true
	case !p.Enabled && accepted:
		add(DiffersEnabled, "its secret is gone from %s: %s cannot log in there", p.Provider, d.Owner)
	}
	switch {
	case !p.Ours:
		add(DiffersSeed, "the seed at %s was not put there by this desk", p.Provider)
	case p.Generation > d.Generation:
		add(DiffersGeneration, "%s has seed generation %d, newer than %d here: this vault seems to be an old copy", p.Provider, p.Generation, d.Generation)
	case p.Generation != d.Generation:
		add(DiffersGeneration, "%s has seed generation %d, and here it is %d", p.Provider, p.Generation, d.Generation)
	case p.Counter < d.Counter:
		add(DiffersCounterBehind, "the counter is %d at %s and %d here: used codes can pass there", p.Counter, p.Provider, d.Counter)
	case p.Counter > d.Counter:
		add(DiffersCounterAhead, "the counter is %d at %s and %d here", p.Counter, p.Provider, d.Counter)
	}
	return all
}

// spare says of a token whose reseed is unfinished what is so: its owner goes on with the old seed until the new one is verified.
func (d DeskSide) spare(id device.TokenID, all []Difference) {
	if d.Status != vault.Limbo || d.Owner == "" {
		return
	}
	for i, x := range all {
		if x.Kind == DiffersEnabled && x.Breach {
			all[i].Breach = false
			all[i].Text = fmt.Sprintf("its reseed is unfinished: %s goes on with the old seed at %s", d.Owner, x.Provider)
			all[i].Pending = fmt.Sprintf("tokendesk resolve %s finishes it", id)
		}
	}
}

// unknown are the differences of a token of which the vault has nothing.
func unknown(there []ProviderSide) (all []Difference) {
	for _, p := range there {
		if !p.Exists {
			continue
		}
		whose := "it may be another desk's"
		if p.Ours {
			whose = "this desk put it there, and has no record of it"
		}
		text := fmt.Sprintf("%s has it and the vault does not: %s; %s", p.Provider, whose, p.use())
		all = append(all, Difference{Kind: DiffersUnknown, Provider: p.Provider, Text: text})
	}
	return all
}

// use says who can log in with the token at the provider.
func (p ProviderSide) use() string {
	switch {
	case p.Enabled && p.Owner != "":
		return p.Owner + " can log in with it there"
	case p.Owner != "":
		return p.Owner + " has it there, without a secret"
	}
	return "nobody can log in with it there"
}

// settler finds the outbox entry that will settle a difference.
func settler(x Difference, d DeskSide, waiting []vault.Change) (vault.Change, bool) {
	for _, c := range waiting {
		pushes := c.Generation == d.Generation && !c.Kind.CutOff()
		var settles bool
		switch x.Kind {
		case DiffersMissing, DiffersGeneration, DiffersSeed:
			settles = pushes && c.Kind == vault.Put
		case DiffersOwner:
			settles = c.Kind == vault.Unassign && d.Owner == "" || pushes && c.Kind == vault.Assign && strings.EqualFold(c.User, d.Owner)
		case DiffersEnabled:
			settles = x.Breach && c.Kind.CutOff() || !x.Breach && pushes && c.Kind != vault.Advance
		case DiffersCounterBehind:
			settles = pushes
		case DiffersCounterAhead:
			settles = pushes && c.Kind == vault.Put // the counter there may be that of another seed
		}
		if settles {
			return c, true
		}
	}
	return vault.Change{}, false
}

func someone(owner string) string {
	if owner == "" {
		return "nobody"
	}
	return owner
}

func hasIt(owner string) string {
	if owner == "" {
		return "it is stock"
	}
	return "it belongs to " + owner
}
