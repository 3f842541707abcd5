package syncer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Choice is what a repair makes of changes that were made in the server's own tools.
type Choice string

// Choices. Neither ever lowers a counter.
const (
	PutBack  Choice = "put-back"  // the providers become what the vault says
	TakeOver Choice = "take-over" // the vault becomes what the providers say, where that opens nothing
)

// Plan is a repair: what will be done, and what will not.
type Plan struct {
	Choice  Choice `json:"choice"`
	Steps   []Step `json:"steps"`
	Skipped []Skip `json:"skipped,omitempty"`
	Digest  string `json:"digest"` // of everything that the steps will do
}

// Step is what will be done about one token.
type Step struct {
	Token  device.TokenID `json:"token"`
	Do     string         `json:"do"`
	Why    string         `json:"why"`
	Breach bool           `json:"breach,omitempty"` // it closes what stands open there

	row   Row
	here  here
	there []act
}

// Skip is a row that differs and gets no step.
type Skip struct {
	Token   device.TokenID `json:"token,omitempty"`
	Central string         `json:"central"`
	Why     string         `json:"why"` // and what to do
}

// here is what becomes of the token in the vault.
type here struct {
	release bool   // it loses its owner
	assign  string // it gets this one
	disable bool
	raise   bool // its counter goes up to the highest of the providers'
}

// act is a change for the central service.
type act struct {
	kind vault.ChangeKind
	user string
}

// Plan says what a repair of rows would do. It changes nothing.
func (d *Drift) Plan(rows []Row, choice Choice) (Plan, error) {
	if choice != PutBack && choice != TakeOver {
		return Plan{}, fmt.Errorf("there is no repair %q: choose %s or %s", string(choice), PutBack, TakeOver)
	}
	p := Plan{Choice: choice}
	for _, r := range rows {
		if len(r.Differences) == 0 {
			continue
		}
		s, why := d.step(r, choice)
		if why != "" {
			p.Skipped = append(p.Skipped, Skip{r.Token, r.Central, why})
			continue
		}
		p.Steps = append(p.Steps, s)
	}
	p.Digest = p.digest()
	return p, nil
}

// binding is what an officer agrees to: all but the counters, which move with every login, and only ever up.
func (s Step) binding() (h here, there []act) {
	h = s.here
	h.raise = false
	for _, a := range s.there {
		if a.kind != vault.Advance {
			there = append(there, a)
		}
	}
	return h, there
}

// digest is over what will be done, and not over its reasons.
func (p Plan) digest() string {
	h := sha256.New()
	text := func(s string) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	text("tokendesk repair v1")
	text(string(p.Choice))
	for _, s := range p.Steps {
		changed, there := s.binding()
		if changed == (here{}) && len(there) == 0 {
			continue
		}
		text(string(s.Token))
		text(fmt.Sprintf("%d %t %t %d", s.row.generation(), changed.release, changed.disable, len(there)))
		text(changed.assign)
		for _, a := range there {
			text(string(a.kind))
			text(a.user)
		}
	}
	return audit.Digest(h.Sum(nil)).String()
}

// step plans one token, or says why nothing is done about it.
func (d *Drift) step(r Row, choice Choice) (s Step, skip string) {
	s = Step{Token: r.Token, row: r}
	switch {
	case r.Deleted != nil:
		return s.remove()
	case r.Desk == nil && r.Token != "":
		return s, "the vault does not know it: remove it there, or enroll the key or import the fob here, which replaces its seed; if another desk has it, leave it to that one"
	case r.Desk == nil:
		return s, "it is no token that a desk has put there: look what it is, and remove it if nobody needs it"
	case r.Unfinished != "":
		return s, fmt.Sprintf("an unfinished %s comes first: tokendesk resolve %s", r.Unfinished, r.Token)
	}
	j := divergence{Row: r, perUser: d.c.Capabilities().TokensPerUser}
	if len(j.open()) == 0 {
		return s, j.pending()
	}
	cut := j.cutOffs()
	blocked := j.blocked()
	switch {
	case len(cut) > 0 && (blocked != "" || choice == TakeOver):
		s.there, s.Breach = cut, j.breach()
	case blocked != "":
		return s, blocked
	case choice == PutBack:
		s.there = j.putBack()
		s.Breach = j.breach()
	default:
		s.here, s.there, skip = j.takeOver()
	}
	if skip != "" {
		return s, skip
	}
	if j.has(DiffersCounterAhead) {
		s.here.raise = true
	}
	if len(s.there) == 0 && j.has(DiffersCounterBehind) {
		s.there = []act{{vault.Advance, r.Desk.Owner}}
	}
	if len(s.there) == 0 && s.here == (here{}) {
		return s, "nothing helps but a look at the token itself"
	}
	s.Do, s.Why = s.words(), j.reasons()
	return s, ""
}

// divergence looks at the differences of a row that nothing else will settle.
type divergence struct {
	Row
	perUser int
}

func (j divergence) open() (all []Difference) {
	for _, x := range j.Differences {
		if x.Pending == "" {
			all = append(all, x)
		}
	}
	return all
}

// pending is what will settle all differences.
func (j divergence) pending() string {
	if len(j.Differences) == 0 {
		return "nothing differs"
	}
	return j.Differences[0].Pending
}

func (j divergence) has(k DifferenceKind) bool {
	return slices.ContainsFunc(j.open(), func(x Difference) bool { return x.Kind == k })
}

func (j divergence) breach() bool {
	return slices.ContainsFunc(j.open(), func(x Difference) bool { return x.Breach })
}

func (j divergence) reasons() string {
	var all []string
	for _, x := range j.open() {
		all = append(all, x.Text)
	}
	return strings.Join(all, "; ")
}

// at is the provider that a difference is about.
func (j divergence) at(x Difference) ProviderSide {
	for _, p := range j.There {
		if p.Provider == x.Provider {
			return p
		}
	}
	return ProviderSide{}
}

// blocked says why nothing but a cut-off can be done now.
func (j divergence) blocked() string {
	for _, c := range j.Waiting {
		if c.Kind != vault.Advance || c.Parked {
			return fmt.Sprintf("its outbox comes first: change %d (%s) waits; look again when it is through", c.Seq, c.Kind)
		}
	}
	for _, x := range j.open() {
		if x.Kind == DiffersGeneration && j.at(x).Generation > j.Desk.Generation {
			return x.Text + ": run tokendesk doctor and restore the latest backup, or reissue the key until it is beyond that generation"
		}
	}
	return ""
}

// cutOffs closes what stands open there against the vault's will. It is the same for every choice.
func (j divergence) cutOffs() (all []act) {
	owned := j.Desk.Owner != ""
	for _, x := range j.open() {
		switch {
		case x.Breach && owned:
			all = append(all, act{vault.Disable, j.Desk.Owner})
		case x.Breach, x.Kind == DiffersOwner && !owned:
			all = append(all, act{vault.Unassign, j.at(x).Owner})
		}
	}
	return distinct(all)
}

// putBack has the providers become what the vault says.
func (j divergence) putBack() []act {
	all := j.cutOffs()
	owner := j.Desk.Owner
	for _, x := range j.open() {
		if p := j.at(x); x.Kind == DiffersOwner && p.Owner != "" {
			all = append(all, act{vault.Unassign, p.Owner})
		}
	}
	if j.Desk.Generation == 0 {
		return distinct(all)
	}
	put := j.has(DiffersMissing) || j.has(DiffersSeed) || j.has(DiffersGeneration)
	if put {
		all = append(all, act{vault.Put, owner})
	}
	switch {
	case owner != "" && (j.has(DiffersOwner) || j.has(DiffersMissing)):
		all = append(all, act{vault.Assign, owner})
	case j.has(DiffersEnabled) && j.Desk.accepted() && !put:
		all = append(all, act{vault.Enable, owner})
	}
	return distinct(all)
}

// takeOver has the vault become what the providers say. There is no breach.
func (j divergence) takeOver() (h here, all []act, skip string) {
	const putBack = "put it back instead"
	owner := j.Desk.Owner
	p, unread, agreed := j.agreed()
	switch {
	case !agreed:
		return h, nil, "the providers do not agree among themselves: " + putBack + ", or mend their replication first"
	case j.has(DiffersSeed), j.has(DiffersGeneration):
		return h, nil, "the vault does not have the seed that is there: " + putBack + ", or reissue the key"
	case j.has(DiffersMissing) && owner != "":
		return here{release: true}, []act{{vault.Unassign, owner}, {vault.Put, ""}}, ""
	case j.has(DiffersMissing):
		return h, []act{{vault.Put, ""}}, ""
	case j.has(DiffersOwner) && p.Owner == "":
		return here{release: true}, []act{{vault.Unassign, owner}}, ""
	case j.has(DiffersOwner):
		switch {
		case unread:
			return h, nil, "not all providers can be read, so it is not certain that " + p.Owner + " is to have it: look again later"
		case j.Desk.Status != vault.Active || !p.Enabled:
			return h, nil, "it cannot be used at present, and taking it over could open it for " + p.Owner + ": " + putBack + ", or assign it here"
		case j.perUser > 0 && len(j.Others) >= j.perUser:
			return h, nil, fmt.Sprintf("%s has %s here, and can have %d: settle that first", p.Owner, j.Others[0], j.perUser)
		}
		return here{assign: p.Owner}, []act{{vault.Unassign, owner}, {vault.Assign, p.Owner}}, ""
	case j.has(DiffersEnabled):
		return here{disable: true}, []act{{vault.Disable, owner}}, ""
	}
	return h, nil, ""
}

// agreed is what all providers that were read have, as far as a desk could take it over.
func (j divergence) agreed() (p ProviderSide, unread, ok bool) {
	first := true
	for _, q := range j.There {
		switch {
		case q.Problem != "":
			unread = true
		case first:
			p, first = q, false
		case q.Exists != p.Exists, !strings.EqualFold(q.Owner, p.Owner), q.Enabled != p.Enabled, q.Ours != p.Ours, q.Generation != p.Generation:
			return p, unread, false
		}
	}
	return p, unread, !first
}

func distinct(all []act) (out []act) {
	for _, a := range all {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// words tell an officer what a step will do.
func (s Step) words() string {
	var all []string
	switch h := s.here; {
	case h.release:
		all = append(all, "unassign it here from "+s.row.Desk.Owner)
	case h.assign != "":
		all = append(all, fmt.Sprintf("assign it here to %s instead of %s, with its seed as it is", h.assign, s.row.Desk.Owner))
	case h.disable:
		all = append(all, "disable it here")
	}
	if s.here.raise {
		all = append(all, "raise its counter here")
	}
	for _, a := range s.there {
		all = append(all, a.words())
	}
	return strings.Join(all, ", then ")
}

func (a act) words() string {
	switch a.kind {
	case vault.Put:
		return "write it there as it is here"
	case vault.Assign:
		return "give it to " + a.user + " there"
	case vault.Unassign:
		if a.user == "" {
			return "cut it off there"
		}
		return "cut " + a.user + " off there"
	case vault.Remove:
		if a.user == "" {
			return "remove it there"
		}
		return "cut " + a.user + " off and remove it there"
	case vault.Disable:
		return "disable it there"
	case vault.Enable:
		return "enable it there"
	}
	return "raise its counter there"
}
