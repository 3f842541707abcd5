package openldap_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/hotpscan"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// A few hundred random changes to a few tokens, one at a time or several before the outbox gets to any: after each round the
// directory is what the vault says, and logins show it.
func TestAgreement(t *testing.T) {
	const changes = 300
	s := start(t)
	f := &fate{office: openOffice(t, config(s)), s: s, rand: rand.New(rand.NewPCG(6, 1)),
		seeds: make(map[device.TokenID]secret.Secret), had: make(map[string]bool)}
	f.d = syncer.NewDrift(f.v, f.c, syncer.DriftConfig{Wake: f.o.Wake})
	for made := 0; made < changes && !t.Failed(); {
		for range 1 + max(0, f.rand.IntN(7)-3) { // mostly one, up to four
			made++
			f.something()
		}
		f.drain()
		f.agree()
	}
	if t.Failed() {
		t.Logf("after\n%s", strings.Join(f.story[max(0, len(f.story)-12):], "\n"))
	}
	for _, m := range moves {
		if !slices.ContainsFunc(f.story, func(line string) bool { return strings.HasPrefix(line, m.name+" ") }) {
			t.Errorf("%s was never made", m.name)
		}
	}
}

// fate makes changes that come to its mind.
type fate struct {
	*office
	s       *synctest.Slapd
	d       *syncer.Drift
	rand    *rand.Rand
	seeds   map[device.TokenID]secret.Secret // of the tokens in the vault
	retired []retired
	had     map[string]bool // users who have had a token there
	story   []string
}

// retired is a seed that was replaced, or whose token was deleted.
type retired struct {
	seed secret.Secret
	next uint64
}

var agreeing = []device.TokenID{"yk-1111111/otp1", "yk-1111111/otp2", "yk-2222222/otp2", "yk-3333333/otp1"}

// move is one kind of change: when it can be made, and what it does. Where more is to be done, fate knows how.
type move struct {
	name   string
	when   func(t vault.Token) bool
	how    func(t *vault.Token, user string)
	pushes func(before vault.Token, user string) []vault.Change
}

var moves = []move{
	{name: "enroll"},
	{name: "delete", when: func(vault.Token) bool { return true }},
	{name: "reseed", when: func(t vault.Token) bool { return t.Status == vault.Active || t.Status == vault.Disabled }},
	{"assign", func(t vault.Token) bool {
		return t.Owner == "" && (t.Status == vault.Active || t.Status == vault.Disabled)
	}, func(t *vault.Token, user string) { t.Owner = user }, push(vault.Assign)},
	{"unassign", func(t vault.Token) bool { return t.Owner != "" },
		func(t *vault.Token, _ string) { t.Owner = "" }, push(vault.Unassign)},
	{"disable", func(t vault.Token) bool { return t.Status == vault.Active },
		func(t *vault.Token, _ string) { t.Status = vault.Disabled }, push(vault.Disable)},
	{"enable", func(t vault.Token) bool { return t.Status == vault.Disabled },
		func(t *vault.Token, _ string) { t.Status = vault.Active }, push(vault.Enable)},
	{"expire", func(t vault.Token) bool { return t.Status == vault.Active || t.Status == vault.Disabled },
		func(t *vault.Token, _ string) { t.Status, t.Expires = vault.Expired, time.Now() }, push(vault.Disable)},
	{"prolong", func(t vault.Token) bool { return t.Status == vault.Expired },
		func(t *vault.Token, _ string) { t.Status, t.Expires = vault.Active, time.Time{} }, push(vault.Enable)},
	{"compromise", func(t vault.Token) bool { return t.Status != vault.Compromised },
		func(t *vault.Token, _ string) {
			t.Loss = vault.Loss{Kind: vault.Stolen, Time: time.Now(), Owner: t.Owner}
			t.Status, t.Owner = vault.Compromised, ""
		}, push(vault.Unassign, vault.Disable)},
	{"advance", func(vault.Token) bool { return true },
		func(t *vault.Token, _ string) { t.Counter += 3 }, push(vault.Advance)},
	{"put", func(vault.Token) bool { return true }, func(*vault.Token, string) {}, push(vault.Put)},
}

// push leaves changes for the user to whom the token comes, or whose it was.
func push(kinds ...vault.ChangeKind) func(vault.Token, string) []vault.Change {
	return func(before vault.Token, user string) (all []vault.Change) {
		for _, k := range kinds {
			c := vault.Change{Kind: k, User: before.Owner}
			if k == vault.Assign {
				c.User = user
			}
			all = append(all, c)
		}
		return all
	}
}

// tokens are those in the vault.
func (f *fate) tokens() (all []vault.Token) {
	f.Helper()
	if err := f.v.View(func(tx *vault.Tx) (err error) {
		all, _, err = tx.Tokens(vault.Filter{})
		return err
	}); err != nil {
		f.Fatal(err)
	}
	return all
}

// drain waits until nothing is left in the outbox: what was delivered may have left word of something else.
func (f *fate) drain() {
	f.Helper()
	for {
		var left []vault.Change
		if err := f.v.View(func(tx *vault.Tx) (err error) {
			left, err = tx.ChangesFrom(0, 0)
			return err
		}); err != nil {
			f.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		for _, c := range left {
			f.delivered(c.Seq)
		}
	}
}

// something makes one change that can be made now.
func (f *fate) something() {
	f.Helper()
	tokens := f.tokens()
	for {
		id, m := agreeing[f.rand.IntN(len(agreeing))], moves[f.rand.IntN(len(moves))]
		user := synctest.Users[f.rand.IntN(len(synctest.Users))]
		at := slices.IndexFunc(tokens, func(t vault.Token) bool { return t.ID == id })
		taken := slices.ContainsFunc(tokens, func(t vault.Token) bool { return t.Owner == user })
		switch {
		case (at < 0) != (m.name == "enroll"), at >= 0 && !m.when(tokens[at]), m.name == "assign" && taken:
			continue
		case m.name == "delete" && f.rand.IntN(2) == 0, m.name == "compromise" && f.rand.IntN(2) == 0: // or there were little else
			continue
		}
		var t vault.Token
		if at >= 0 {
			t = tokens[at]
		}
		f.story = append(f.story, fmt.Sprintf("%s %s (%s of %q, generation %d), %s", m.name, id, t.Status, t.Owner, t.Generation, user))
		switch m.name {
		case "enroll":
			f.begin(id)
		case "delete":
			f.end(t)
		case "reseed":
			f.reseed(t)
		default:
			f.alter(id, func(t *vault.Token) { m.how(t, user) }, m.pushes(t, user)...)
		}
		return
	}
}

// begin enrolls a token above what is left of an earlier one of its name.
func (f *fate) begin(id device.TokenID) {
	f.Helper()
	generation := 1
	if err := f.v.View(func(tx *vault.Tx) error {
		grave, _, err := tx.Tombstone(id)
		generation = grave.Generation + 1
		return err
	}); err != nil {
		f.Fatal(err)
	}
	f.seeds[id], _ = f.enroll(id, generation, 16*uint64(f.rand.IntN(4)))
}

// end deletes a token.
func (f *fate) end(t vault.Token) {
	f.Helper()
	f.retire(t)
	f.update(func(tx *vault.Tx) (err error) {
		if err = tx.Bury(vault.Tombstone{ID: t.ID, Generation: t.Generation, Owner: t.Owner, Status: t.Status, Officer: "olga"}); err == nil {
			_, err = leave(tx, t, []vault.Change{{Kind: vault.Remove, User: t.Owner}})
		}
		return err
	})
	f.o.Wake()
}

func (f *fate) reseed(t vault.Token) {
	f.Helper()
	f.retire(t)
	seed := secret.Random(20)
	f.seeds[t.ID] = seed
	f.update(func(tx *vault.Tx) error { return tx.SetSeed(t.ID, t.Generation+1, seed) })
	f.alter(t.ID, func(t *vault.Token) { t.Generation, t.Counter = t.Generation+1, 16*uint64(f.rand.IntN(4)) },
		vault.Change{Kind: vault.Put, User: t.Owner})
}

func (f *fate) retire(t vault.Token) {
	f.Helper()
	seen, err := f.c.Observe(f.Context(), t.ID)
	if err != nil {
		f.Fatal(err)
	}
	f.retired = append(f.retired, retired{f.seeds[t.ID], max(seen.Counter, t.Counter)})
	delete(f.seeds, t.ID)
}

// agree compares what the directory shows with what the vault says.
func (f *fate) agree() {
	f.Helper()
	tokens := f.tokens()
	for _, id := range agreeing {
		seen, err := f.c.Observe(f.Context(), id)
		if err != nil {
			f.Fatal(err)
		}
		at := slices.IndexFunc(tokens, func(t vault.Token) bool { return t.ID == id })
		if at < 0 {
			if seen != (syncer.Observation{}) {
				f.Errorf("%s was deleted, and the service shows %+v", id, seen)
			}
			continue
		}
		t := tokens[at]
		accepted := t.Status == vault.Active && t.Owner != ""
		want := syncer.Observation{Exists: true, Counter: max(seen.Counter, t.Counter), Owner: t.Owner, Enabled: accepted}
		if seen != want {
			f.Errorf("%s is %s of %q, counter %d; the service shows %+v", id, t.Status, t.Owner, t.Counter, seen)
		}
		f.had[t.Owner] = true
		for _, user := range synctest.Users {
			if mine := accepted && user == t.Owner; !mine || f.rand.IntN(2) == 0 {
				f.want(user, f.seeds[id], seen.Counter, mine, t)
			}
		}
	}
	for _, user := range synctest.Users {
		if f.had[user] && f.s.Login(user, "") == nil {
			f.Errorf("the password of %s does without a code", user)
		}
	}
	for range min(2, len(f.retired)) {
		old := f.retired[f.rand.IntN(len(f.retired))]
		f.want(synctest.Users[f.rand.IntN(len(synctest.Users))], old.seed, old.next, false, "a seed that is no more")
	}
	if _, err := f.d.Rows(f.Context(), false, func(r syncer.Row) error {
		for _, x := range r.Differences {
			if x.Kind != syncer.DiffersCounterAhead { // logins
				f.Errorf("drift: %+v", x)
			}
		}
		return nil
	}); err != nil {
		f.Fatal(err)
	}
}

func (f *fate) want(user string, seed secret.Secret, n uint64, want bool, what any) {
	f.Helper()
	if got := f.s.Login(user, hotpscan.Code(seed, 6, n)) == nil; got != want {
		f.Errorf("login of %s with code %d is accepted: %t; %+v", user, n, got, what)
	}
}
