package provision_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/provision"
	"tokendesk/vault"
)

// player plays random actions, and knows what each should lead to.
type player struct {
	*bench
	*rand.Rand
	m     believed
	want  map[situation]map[provision.Action]outcome
	names []device.TokenID
	tried map[string]int // how often which action succeeded, and was refused
	slapd *theDirectory  // the central service, if there is a real one
}

func newPlayer(t *testing.T, seed uint64) *player {
	p := &player{bench: newBench(t), Rand: rand.New(rand.NewPCG(seed, 6)), want: expectations(), tried: map[string]int{}}
	p.m = believed{map[device.TokenID]*shadow{}, map[device.TokenID]int{}, map[device.TokenID]central{}}
	p.names = []device.TokenID{slot1, slot2}
	for i := range 6 {
		p.names = append(p.names, device.SlotToken(device.YubiKeyID(serial+device.Serial(i+1)), 1))
	}
	return p
}

var people = []string{"alice", "bob", "carol"}

// anyOf picks a user. A real service takes one token for each, so that there it is one who has none, and is promised none.
func (p *player) anyOf(users ...string) string {
	user := users[p.IntN(len(users))]
	if p.slapd == nil || user == "" {
		return user
	}
	taken := map[string]bool{}
	for _, s := range p.m.tokens {
		taken[s.owner] = true
		taken[s.user] = taken[s.user] || s.job != ""
	}
	for {
		if user = p.slapd.users[p.IntN(len(p.slapd.users))]; !taken[user] {
			return user
		}
	}
}

// play does one thing, and returns what was wrong with it.
func (p *player) play() []string {
	id := p.names[p.IntN(len(p.names))]
	s := p.m.tokens[id]
	onKey := id.Device() == slot1.Device()
	switch {
	case s == nil && onKey:
		return p.playEnroll(id)
	case s == nil:
		return p.stock(id)
	case s.job != "" && p.IntN(3) > 0:
		return p.playResolve(id, s)
	case onKey && s.enrolled && p.IntN(4) == 0:
		return p.playPlan(id, s)
	}
	return p.playOrder(id)
}

// stock puts a token into the vault and the outbox as an enroll does, without a key.
func (p *player) stock(id device.TokenID) []string {
	owner := p.anyOf("", "alice", "bob", "carol")
	g := p.m.buried[id] + 1
	p.put(vault.Token{ID: id, Status: vault.Active, Owner: owner, Digits: 6, Generation: g})
	p.update(func(tx *vault.Tx) error {
		_, err := tx.Enqueue(vault.Change{Kind: vault.Put, Token: id, User: owner, Generation: g, Digits: 6})
		if err == nil && owner != "" {
			_, err = tx.Enqueue(vault.Change{Kind: vault.Assign, Token: id, User: owner, Generation: g, Digits: 6})
		}
		return err
	})
	p.m.tokens[id] = &shadow{situation: situation{vault.Active, owner}, generation: g}
	return nil
}

// pull has the key go away in the middle of its next write, now and then.
func (p *player) pull() (pulled bool) {
	p.beforeProgram = nil
	if pulled = p.IntN(3) == 0; pulled {
		p.fault(emulator.FaultUnplugAtChunk, p.IntN(8))
	}
	return pulled
}

func (p *player) playEnroll(id device.TokenID) []string {
	owner := p.anyOf("", "alice", "bob")
	g := p.m.buried[id] + 1
	e := enrollment(id, owner)
	e.Overwrite = true
	pulled := p.pull()
	err := p.enroll(p.t.Context(), e)
	s := &shadow{situation: situation{vault.Active, owner}, generation: g, enrolled: true}
	if pulled {
		s.situation, s.generation, s.job, s.user, s.next = situation{vault.Pending, ""}, 0, "enroll", owner, g
	}
	p.m.tokens[id] = s
	return p.ended("enroll", id, err, pulled)
}

// ended checks that a plan has ended as it had to, and brings back the key.
func (p *player) ended(what string, id device.TokenID, err error, pulled bool) []string {
	p.tried[what]++
	if pulled {
		p.key.Insert()
		if !errors.Is(err, device.ErrGone) {
			return []string{fmt.Sprintf("%s of %s with the key pulled: %v", what, id, err)}
		}
	} else if err != nil {
		return []string{fmt.Sprintf("%s of %s: %v", what, id, err)}
	}
	return nil
}

func (p *player) playResolve(id device.TokenID, s *shadow) []string {
	p.beforeProgram = nil
	if s.job == "enroll" && p.IntN(2) == 0 {
		if err := p.Undo(p.t.Context(), officer, id, p.tell); err != nil {
			return []string{fmt.Sprintf("undo of %s: %v", id, err)}
		}
		delete(p.m.tokens, id)
		if _, ok := p.m.buried[id]; ok {
			p.m.buried[id] = s.next
		}
		p.tried["undo"]++
		return nil
	}
	if s.job == absent {
		if p.IntN(3) == 0 {
			s.job = ""
			p.tried["give up"]++
			return p.ended("give up", id, p.Undo(p.t.Context(), officer, id, p.tell), false)
		}
		s.next = s.generation + 1
		p.tried["turn up"]++
	}
	_, err := p.Resolve(p.t.Context(), officer, id, nil, p.tell)
	p.finish(id, s)
	return p.ended("resolve", id, err, false)
}

// finish is what a plan leads to in the end.
func (p *player) finish(id device.TokenID, s *shadow) {
	if s.job == "wipe" {
		p.wiped(id, s)
		return
	}
	s.situation, s.generation, s.job = situation{vault.Active, s.user}, s.next, ""
}

func (p *player) wiped(id device.TokenID, s *shadow) {
	if s.job = ""; s.status == vault.Compromised {
		s.erased = true
		return
	}
	p.bury(id, s)
}

func (p *player) bury(id device.TokenID, s *shadow) {
	p.m.buried[id] = max(p.m.buried[id], s.generation, s.next)
	delete(p.m.tokens, id)
}

func (p *player) refused(what string, id device.TokenID, err error) []string {
	p.tried[what+" refused"]++
	var refused *provision.RefusedError
	if !errors.As(err, &refused) && !(what != "" && errors.Is(err, vault.ErrNotFound)) {
		return []string{fmt.Sprintf("%s of %s should have been refused: %v", what, id, err)}
	}
	return nil
}

// expect is what an action should lead to, by the text.
func (p *player) expect(s *shadow, a provision.Action) (outcome, bool) {
	at := s.situation
	if at.owner != "" {
		at.owner = "alice"
	}
	o, ok := p.want[at][a]
	if s.job != "" && a != provision.ActCompromise && a != provision.ActDelete {
		ok = false
	}
	if o.owner == "alice" {
		o.owner = s.owner
	}
	return o, ok
}

// playOrder gives a random order for one token or some.
func (p *player) playOrder(id device.TokenID) []string {
	all := []provision.Action{
		provision.ActEdit, provision.ActAssign, provision.ActUnassign, provision.ActDisable, provision.ActEnable, provision.ActEnable,
		provision.ActEdit, provision.ActAssign, provision.ActExpire, provision.ActCompromise, provision.ActDelete,
	}
	if s := p.m.tokens[id]; s.status == vault.Compromised {
		all = append(all, provision.ActDelete, provision.ActDelete, provision.ActDelete, provision.ActDelete)
	} else if p.IntN(3) > 0 { // else there would soon be nothing else
		all = all[:9]
	}
	o := provision.Order{Action: all[p.IntN(len(all))], Tokens: []device.TokenID{id}}
	if p.IntN(4) > 0 {
		o.Reason = "as the test wants"
	}
	by := officer
	switch o.Action {
	case provision.ActEdit:
		words, at := fmt.Sprintf("words %d", p.IntN(100)), time.Now().Add(48*time.Hour)
		o.Description, o.Expires = &words, &at
		if s := p.m.tokens[id]; s.status == vault.Compromised {
			o.Expires = nil
		}
	case provision.ActAssign:
		o.User = p.anyOf(people...)
	case provision.ActCompromise:
		o.Loss = vault.Lost
	case provision.ActExpire:
		by = provision.Desk
	default:
		for p.IntN(4) == 0 { // several, one of them perhaps twice
			o.Tokens = append(o.Tokens, p.names[p.IntN(len(p.names))])
		}
	}
	allowed := true
	for _, id := range o.Tokens {
		s := p.m.tokens[id]
		if s == nil {
			allowed = false
			continue
		}
		_, ok := p.expect(s, o.Action)
		allowed = allowed && ok
	}
	if allowed && o.Reason == "" && o.Action != provision.ActCompromise && o.Action != provision.ActExpire && p.robs(o) {
		allowed = false
	}
	if allowed && o.Action == provision.ActExpire {
		p.due(id)
	}
	_, _, err := p.Do(p.t.Context(), by, o)
	if !allowed {
		return p.refused(string(o.Action), id, err)
	}
	p.tried[string(o.Action)]++
	if err != nil {
		return []string{fmt.Sprintf("%+v: %v", o, err)}
	}
	for _, id := range o.Tokens {
		if s := p.m.tokens[id]; s != nil { // named twice, and gone already
			p.apply(id, s, o)
		}
	}
	return nil
}

func (p *player) apply(id device.TokenID, s *shadow, o provision.Order) {
	w, ok := p.expect(s, o.Action)
	if !ok { // named twice
		return
	}
	if w.status == "gone" {
		p.bury(id, s)
		return
	}
	if s.job != "" {
		s.generation, s.job = max(s.generation, 0), ""
	}
	s.status, s.owner = vault.Status(w.status), w.owner
	if o.Action == provision.ActAssign {
		s.owner = o.User
	}
}

// robs tells whether an order takes somebody's last active token.
func (p *player) robs(o provision.Order) bool {
	left, loses := map[string]int{}, map[string]bool{}
	for id, s := range p.m.tokens {
		if s.status != vault.Active || s.owner == "" {
			continue
		}
		if slices.Contains(o.Tokens, id) && (o.Action == provision.ActDisable || o.Action == provision.ActUnassign || o.Action == provision.ActDelete) {
			loses[s.owner] = true
		} else {
			left[s.owner]++
		}
	}
	for user := range loses {
		if left[user] == 0 {
			return true
		}
	}
	return false
}

// compare checks that all agree. A central service that is none gets behind now and then.
func (p *player) compare() []string {
	if p.slapd != nil {
		return append(p.m.agreeHere(p.bench), p.slapd.agree(p)...)
	}
	wrong := p.m.agree(p.bench)
	if p.IntN(3) > 0 {
		p.keepUp()
	}
	return wrong
}

// run plays some actions, and stops at the first that leaves something wrong.
func (p *player) run(actions int) []string {
	for i := range actions {
		wrong := p.play()
		if len(wrong) == 0 {
			wrong = p.compare()
		}
		if len(wrong) > 0 {
			return append(wrong, fmt.Sprintf("after %d actions", i))
		}
	}
	return nil
}

// Whatever officers do, and whenever a key is pulled: what happens is what is expected, and the vault and what the central
// service is told agree after every single action.
func TestRandomActionsAgree(t *testing.T) {
	p := newPlayer(t, 1)
	for _, wrong := range p.run(2000) {
		t.Error(wrong)
	}
	if err := p.Vault.Check(); err != nil {
		t.Error(err)
	}
	var all []string
	for what, n := range p.tried {
		all = append(all, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(all)
	t.Log(strings.Join(all, ", "))
	for _, what := range append([]string{"enroll", "resolve", "undo"}, "edit", "assign", "unassign", "disable", "enable", "expire", "reseed", "reissue", absent, "turn up", "give up", "wipe",
		"compromise", "delete", "assign refused", "enable refused", "disable refused") {
		if p.tried[what] < 5 {
			t.Errorf("%s was tried %d times", what, p.tried[what])
		}
	}
}

// The same actions notice errors in the table.
func TestRandomActionsNoticeErrorsInTheTable(t *testing.T) {
	for name, mutate := range map[string]func([]provision.Rule){
		"disable tells nobody": func(rules []provision.Rule) {
			for i := range rules {
				if rules[i].Action == provision.ActDisable {
					rules[i].Pushes = nil
				}
			}
		},
		"unassign leaves the owner": func(rules []provision.Rule) {
			for i := range rules {
				if rules[i].Action == provision.ActUnassign {
					rules[i].Frees = false
				}
			}
		},
		"a disabled token can be assigned": func(rules []provision.Rule) {
			for i := range rules {
				if rules[i].Action == provision.ActAssign {
					rules[i].From = []vault.Status{vault.Active, vault.Disabled}
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer provision.Mutate(mutate)()
			if wrong := newPlayer(t, 2).run(2000); len(wrong) == 0 {
				t.Error("nothing was noticed")
			}
		})
	}
}
