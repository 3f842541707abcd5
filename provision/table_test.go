package provision_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/vaulttest"
)

// expected is what each action makes of a token in each state, written down apart from the table: the status afterwards ("gone"
// if the token is), the owner afterwards ("-" for none), and what the central service is told. What is not listed is refused.
// A line of the form "state owner" begins a state.
const expected = `
pending stock
  edit        pending - nothing
  wipe        gone - remove
  compromise  compromised - disable
  delete      gone - remove
pending owned
  edit        pending alice nothing
  unassign    pending - unassign
  wipe        gone - unassign,remove
  compromise  compromised - unassign,disable
  delete      gone - remove
active stock
  test        active - advance
  resync      active - advance
  edit        active - nothing
  assign      active bob assign
  disable     disabled - disable
  expire      expired - disable
  reseed      active - put
  reissue     active bob put,assign
  wipe        gone - remove
  compromise  compromised - disable
  delete      gone - remove
active owned
  test        active alice advance
  resync      active alice advance
  edit        active alice nothing
  unassign    active - unassign
  disable     disabled alice disable
  expire      expired alice disable
  reseed      active alice put
  reissue     active bob unassign,put,assign
  wipe        gone - unassign,remove
  compromise  compromised - unassign,disable
  delete      gone - remove
disabled stock
  test        disabled - advance
  resync      disabled - advance
  edit        disabled - nothing
  enable      active - enable
  wipe        gone - remove
  compromise  compromised - disable
  delete      gone - remove
disabled owned
  test        disabled alice advance
  resync      disabled alice advance
  edit        disabled alice nothing
  unassign    disabled - unassign
  enable      active alice enable
  wipe        gone - unassign,remove
  compromise  compromised - unassign,disable
  delete      gone - remove
limbo stock
  edit        limbo - nothing
  wipe        gone - remove
  compromise  compromised - disable
  delete      gone - remove
limbo owned
  edit        limbo alice nothing
  unassign    limbo - unassign
  wipe        gone - unassign,remove
  compromise  compromised - unassign,disable
  delete      gone - remove
expired stock
  edit        active - enable
  wipe        gone - remove
  compromise  compromised - disable
  delete      gone - remove
expired owned
  edit        active alice enable
  unassign    expired - unassign
  wipe        gone - unassign,remove
  compromise  compromised - unassign,disable
  delete      gone - remove
compromised stock
  edit        compromised - nothing
  wipe        compromised - nothing
  delete      gone - remove
`

// situation is a token before an action.
type situation struct {
	status vault.Status
	owner  string
}

// outcome is what an action leads to.
type outcome struct {
	status string // "gone"
	owner  string
	pushes string
}

func (o outcome) String() string {
	return fmt.Sprintf("%s of %q, pushed %q", o.status, o.owner, o.pushes)
}

// expectations reads the text.
func expectations() map[situation]map[provision.Action]outcome {
	all := map[situation]map[provision.Action]outcome{}
	var at situation
	for line := range strings.Lines(expected) {
		f := strings.Fields(line)
		switch len(f) {
		case 2:
			at = situation{status: vault.Status(f[0])}
			if f[1] == "owned" {
				at.owner = "alice"
			}
			all[at] = map[provision.Action]outcome{}
		case 4:
			o := outcome{f[1], strings.Trim(f[2], "-"), f[3]}
			if o.pushes == "nothing" {
				o.pushes = ""
			}
			all[at][provision.Action(f[0])] = o
		}
	}
	return all
}

var allActions = []provision.Action{
	provision.ActTest, provision.ActResync, provision.ActEdit, provision.ActAssign, provision.ActUnassign, provision.ActDisable, provision.ActEnable,
	provision.ActExpire, provision.ActReseed, provision.ActReissue, provision.ActWipe, provision.ActCompromise, provision.ActDelete,
}

// token is one in a situation.
func (s situation) token(id device.TokenID) vault.Token {
	t := vault.Token{ID: id, Serial: serial, Status: s.status, Owner: s.owner, Digits: 6, Counter: 5, Generation: 1}
	switch s.status {
	case vault.Pending:
		t.Generation = 0
	case vault.Compromised:
		t.Loss = vault.Loss{Kind: vault.Lost, Time: time.Now(), Owner: "carol"}
	}
	return t
}

// tableSays is what the table makes of an action; ok is false if it refuses.
func tableSays(s situation, a provision.Action) (o outcome, ok bool) {
	t := s.token(slot2)
	for _, r := range provision.Lifecycle() {
		owned := t.Owner != ""
		if r.Action != a || !slices.Contains(r.From, t.Status) || r.Ownership == provision.Owned && !owned || r.Ownership == provision.Stock && owned {
			continue
		}
		o = outcome{status: string(t.Status), owner: t.Owner}
		switch {
		case r.Gone:
			o.status = "gone"
		case r.To != "":
			o.status = string(r.To)
		}
		if r.Frees {
			o.owner = ""
		}
		if a == provision.ActAssign || a == provision.ActReissue {
			o.owner = "bob"
		}
		var pushes []string
		for _, k := range r.Pushes {
			if k != vault.Unassign || owned {
				pushes = append(pushes, string(k))
			}
		}
		o.pushes = strings.Join(pushes, ",")
		return o, true
	}
	return o, false
}

// disagreements compares the table with what is expected of it, over every pair of situation and action.
func disagreements() (found []string) {
	pairs := 0
	for s, want := range expectations() {
		for _, a := range allActions {
			pairs++
			w, allowed := want[a]
			got, ok := tableSays(s, a)
			if ok != allowed || ok && got != w {
				found = append(found, fmt.Sprintf("%s of %s (%q): the table says %v (%v), expected is %v (%v)", a, s.status, s.owner, got, ok, w, allowed))
			}
			if err := provision.Check(s.token(slot2), a); (err == nil) != allowed {
				found = append(found, fmt.Sprintf("%s of %s (%q): %v", a, s.status, s.owner, err))
			}
		}
		var offered, wanted []provision.Action
		for _, a := range allActions {
			if _, ok := want[a]; ok && a != provision.ActExpire {
				wanted = append(wanted, a)
			}
		}
		if offered = provision.Allowed(s.token(slot2)); !slices.Equal(offered, wanted) {
			found = append(found, fmt.Sprintf("of %s (%q) are offered %v, expected are %v", s.status, s.owner, offered, wanted))
		}
	}
	if pairs != 11*13 {
		found = append(found, fmt.Sprintf("%d pairs were compared", pairs))
	}
	return found
}

func TestTransitionTable(t *testing.T) {
	for _, d := range disagreements() {
		t.Error(d)
	}
	for _, r := range provision.Lifecycle() {
		role := provision.RoleOfficer
		if r.Action == provision.ActExpire {
			role = ""
		}
		ends := r.Gone || r.To == vault.Compromised || r.Action == provision.ActWipe
		atHand := r.Action == provision.ActWipe || r.Action == provision.ActReseed || r.Action == provision.ActReissue
		if r.Role != role || r.Permanent != ends || r.Device != atHand || r.Reason != (r.Action == provision.ActCompromise) {
			t.Errorf("%+v", r)
		}
	}
}

// Each of these is an error that somebody could make in the table, and each is seen.
func TestErrorsInTheTableAreSeen(t *testing.T) {
	row := func(rules []provision.Rule, a provision.Action) *provision.Rule {
		return &rules[slices.IndexFunc(rules, func(r provision.Rule) bool { return r.Action == a })]
	}
	for name, mutate := range map[string]func([]provision.Rule){
		"disable does not tell the central service": func(r []provision.Rule) { row(r, provision.ActDisable).Pushes = nil },
		"compromise leaves the owner":               func(r []provision.Rule) { row(r, provision.ActCompromise).Frees = false },
		"a compromised token can be enabled": func(r []provision.Rule) {
			row(r, provision.ActEnable).From = append(row(r, provision.ActEnable).From, vault.Compromised)
		},
		"an owned token can be assigned": func(r []provision.Rule) { row(r, provision.ActAssign).Ownership = provision.Any },
		"delete forgets to tell":         func(r []provision.Rule) { row(r, provision.ActDelete).Pushes = nil },
		"an expired token can be enabled": func(r []provision.Rule) {
			row(r, provision.ActEnable).From = []vault.Status{vault.Disabled, vault.Expired}
		},
		"disable is for good":                 func(r []provision.Rule) { row(r, provision.ActDisable).To = vault.Compromised },
		"a disabled token cannot be deleted":  func(r []provision.Rule) { row(r, provision.ActDelete).From = []vault.Status{vault.Active} },
		"officers have tokens expire at once": func(r []provision.Rule) { row(r, provision.ActExpire).Role = provision.RoleOfficer },
	} {
		t.Run(name, func(t *testing.T) {
			defer provision.Mutate(mutate)()
			if len(disagreements()) == 0 {
				t.Error("nobody has noticed")
			}
		})
	}
	if left := disagreements(); len(left) > 0 {
		t.Errorf("the table is not what it was: %v", left)
	}
}

// Every pair is tried on a vault: what the table says happens, and what it refuses does not.
func TestEveryPairOnAVault(t *testing.T) {
	orders := []provision.Action{
		provision.ActEdit, provision.ActAssign, provision.ActUnassign, provision.ActDisable, provision.ActEnable, provision.ActExpire,
		provision.ActCompromise, provision.ActDelete,
	}
	for s, want := range expectations() {
		for _, a := range orders {
			t.Run(fmt.Sprintf("%s of %s of %q", a, s.status, s.owner), func(t *testing.T) {
				b := newVaultBench(t)
				b.put(s.token(slot2))
				o := provision.Order{Action: a, Tokens: []device.TokenID{slot2}, Reason: "as the test wants"}
				by := officer
				switch a {
				case provision.ActEdit:
					at := time.Now().Add(48 * time.Hour)
					if o.Expires = &at; s.status == vault.Compromised {
						o.Expires, o.Description = nil, &o.Reason
					}
				case provision.ActAssign:
					o.User = "bob"
				case provision.ActCompromise:
					o.Loss = vault.Stolen
				case provision.ActExpire:
					by = provision.Desk
					if _, allowed := want[a]; allowed {
						b.due(slot2)
					}
				}
				before := b.state()
				tokens, changes, err := b.Do(t.Context(), by, o)
				w, allowed := want[a]
				if !allowed {
					wantRefused(t, err, string(slot2))
					if after := b.state(); after != before || len(changes) != 0 {
						t.Errorf("refused, and yet\n%s\nis\n%s", before, after)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := b.outcome(slot2, changes); got != w {
					t.Errorf("%v, want %v", got, w)
				}
				if len(tokens) != 1 || tokens[0].ID != slot2 {
					t.Errorf("answered %+v", tokens)
				}
			})
		}
	}
}

// outcome is what has become of a token.
func (b *bench) outcome(id device.TokenID, changes []vault.Change) outcome {
	b.t.Helper()
	o := outcome{status: "gone"}
	if b.exists(id) {
		t := b.token(id)
		o.status, o.owner = string(t.Status), t.Owner
	}
	var pushes []string
	for _, c := range changes {
		pushes = append(pushes, string(c.Kind))
	}
	o.pushes = strings.Join(pushes, ",")
	return o
}

// newVaultBench is a bench without a key.
func newVaultBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t}
	b.start(vaulttest.New(t))
	return b
}

func TestATypeWithoutAnAction(t *testing.T) {
	defer provision.Forbid(provision.ActResync)()
	b := newVaultBench(t)
	b.put(situation{vault.Active, "alice"}.token(slot2))
	wantRefused(t, provision.Check(b.token(slot2), provision.ActResync), "is of type yubikey-hotp, and such a token cannot be resynced")
	if slices.Contains(provision.Allowed(b.token(slot2)), provision.ActResync) {
		t.Error("it is offered")
	}
	defer provision.Forbid(provision.ActDisable)()
	_, _, err := b.act("disable", slot2, "")
	wantRefused(t, err, "such a token cannot be disabled", "what can be done with it: test, edit, unassign, reseed, reissue, wipe, compromise, delete")
}

func TestRefusalsNameTheWayOut(t *testing.T) {
	for _, c := range []struct {
		situation
		action provision.Action
		words  []string
	}{
		{situation{vault.Disabled, ""}, provision.ActAssign, []string{"is disabled; only an active token can be assigned", "tokendesk enable"}},
		{situation{vault.Disabled, "alice"}, provision.ActReseed, []string{"only an active token can be reseeded", "tokendesk enable"}},
		{situation{vault.Expired, "alice"}, provision.ActReseed, []string{"is expired; only an active token", "--expires DATE"}},
		{situation{vault.Active, ""}, provision.ActEnable, []string{"is active; only a disabled token can be enabled", "what can be done with it: test, "}},
		{situation{vault.Active, ""}, provision.ActUnassign, []string{"is stock: it belongs to nobody"}},
		{situation{vault.Compromised, ""}, provision.ActEnable, []string{"is compromised (lost); it never comes back", "edit, wipe, delete"}},
		{situation{vault.Expired, ""}, provision.ActTest, []string{"only an active or disabled token can be tested"}},
		{situation{vault.Active, ""}, "embellish", []string{"no action \"embellish\""}},
	} {
		wantRefused(t, provision.Check(c.token(slot2), c.action), c.words...)
	}
}

// put stores a token with a seed of its generation.
func (b *bench) put(tok vault.Token) {
	b.t.Helper()
	b.update(func(tx *vault.Tx) error {
		seeds, err := tx.Generations(tok.ID)
		if err == nil && len(seeds) == 0 && tok.Generation > 0 {
			err = tx.SetSeed(tok.ID, tok.Generation, randomSeed())
		}
		return errors.Join(err, tx.PutToken(tok))
	})
}
