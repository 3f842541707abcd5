package provision_test

import (
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// playPlan reseeds, reissues or wipes a token.
func (p *player) playPlan(id device.TokenID, s *shadow) []string {
	a := []provision.Action{provision.ActReseed, provision.ActReissue, provision.ActReissue, provision.ActReissue, provision.ActWipe}[p.IntN(5)]
	user := p.anyOf(people...)
	expected, allowed := p.expect(s, a)
	if a == provision.ActReissue {
		allowed = allowed && user != s.owner
	}
	if a == provision.ActReissue && p.IntN(5) > 1 {
		return p.playAbsent(id, s, user, allowed)
	}
	pulled := p.pull() && allowed && !s.erased // there is nothing to write
	if !pulled {
		p.beforeProgram = nil
	}
	before := *s
	var err error
	switch a {
	case provision.ActReseed:
		_, err = p.Reseed(p.t.Context(), officer, id, "", p.tell)
		user = s.owner
	case provision.ActReissue:
		_, err = p.Reissue(p.t.Context(), officer, provision.Reissue{Token: id, User: user}, p.tell)
	case provision.ActWipe:
		_, err = p.Wipe(p.t.Context(), officer, id, "as the test wants", p.tell)
	}
	if !allowed {
		return p.refused(string(a), id, err)
	}
	s.job, s.user = string(a), user
	if a != provision.ActReseed {
		s.owner = ""
	}
	if a == provision.ActWipe {
		s.next = max(s.next, s.generation) // what was sealed for a reseed that never ended is still there
	} else if s.next = s.generation + 1; pulled {
		s.status = vault.Limbo
	}
	if !pulled {
		if p.finish(id, s); a != provision.ActWipe && (expected.status != string(s.status) || expected.owner == "" && a == provision.ActReissue) {
			return []string{fmt.Sprintf("%s of %+v: the test contradicts itself", a, before)}
		}
	}
	return p.ended(string(a), id, err, pulled)
}

// absent is the plan that waits for the device.
const absent = "reissue without device"

// playAbsent cuts the owner off, and has the rest wait.
func (p *player) playAbsent(id device.TokenID, s *shadow, user string, allowed bool) []string {
	p.beforeProgram = nil
	_, err := p.Reissue(p.t.Context(), officer, provision.Reissue{Token: id, User: user, Shape: provision.Absent}, p.tell)
	if !allowed {
		return p.refused(string(provision.ActReissue), id, err)
	}
	p.tried[absent]++
	if !errors.Is(err, provision.ErrDeviceWanted) {
		return []string{fmt.Sprintf("%s of %s: %v", absent, id, err)}
	}
	s.job, s.user, s.next, s.owner = absent, user, s.generation, ""
	return nil
}
