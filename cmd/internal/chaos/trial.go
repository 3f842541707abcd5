package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tokendesk/cmd/internal/api"
)

// trial proves by logins that both servers have every token as the desk says it is:
//
//   - tokendesk drift reports agreement.
//   - An active token's next code lets its owner in at one server and, once the desk has read both, is refused by both;
//     and so at the other server. It lets nobody else in.
//   - The next code of any other token lets nobody in, anywhere.
//   - No code that was ever accepted is accepted again.
func (s *stage) trial(ctx context.Context) error {
	s.agreement(ctx)
	for round := range 2 {
		if err := s.round(ctx, round); err != nil {
			return err
		}
	}
	s.replay()
	s.agreement(ctx)
	s.told()
	return nil
}

// agreement has the desk compare itself with both servers.
func (s *stage) agreement(ctx context.Context) {
	out, err := s.Command(ctx, "tokendesk", "drift").CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil || !strings.Contains(text, "desk and central service agree on ") || strings.Contains(text, "Not read") {
		s.fail("tokendesk drift: %v: %s", err, text)
	}
	s.say("tokendesk drift: %s", text)
}

// round has each key typed once, and its code tried at both servers, at one of them first.
func (s *stage) round(ctx context.Context, first int) error {
	var used []login
	for _, k := range s.keys {
		t, found, err := s.look(ctx, k)
		if err != nil {
			return err
		}
		if err := s.AwaitKeys(ctx, k.serial); err != nil {
			return err
		}
		typed, err := s.Touch(ctx, k.serial, slot == 2, 1)
		if err != nil {
			return err
		}
		if !found && (len(typed) == 0 || typed[0] == "") {
			continue // a key whose enroll was called off types nothing
		}
		if len(typed) != 1 || len(typed[0]) != digits {
			return fmt.Errorf("key %s typed %q", k.serial, typed)
		}
		for _, user := range s.users {
			if user == t.Owner && t.Status == "active" {
				continue
			}
			for at := range s.Providers() {
				if s.try(k.token(), user, typed[0], at).accepted {
					s.fail("server %d lets %s in with %s, which is %q's and %s", at+1, user, k.token(), t.Owner, t.Status)
				}
			}
		}
		if t.Owner == "" || t.Status != "active" {
			continue
		}
		s.result.open++
		l := s.try(k.token(), t.Owner, typed[0], first)
		if !l.accepted {
			s.fail("server %d does not let %s in with the next code of %s", first+1, t.Owner, k.token())
		}
		used = append(used, l)
	}
	if err := s.quiet(ctx); err != nil {
		return err
	}
	for _, l := range used {
		for at := range s.Providers() {
			if s.try(l.token, l.user, l.code, at).accepted {
				s.fail("server %d takes a code of %s again that server %d took, after the desk has levelled them", at+1, l.token, first+1)
			}
		}
	}
	return nil
}

// replay tries all codes again that were accepted, each for who used it and for who has the token now.
func (s *stage) replay() {
	s.mu.Lock()
	past := append([]login(nil), s.logins...)
	s.mu.Unlock()
	tried := map[string]bool{}
	for _, l := range past {
		if !l.accepted || tried[l.code] {
			continue
		}
		tried[l.code] = true
		users := []string{l.user}
		for _, k := range s.keys {
			if k.token() == l.token && k.owner != "" && k.owner != l.user {
				users = append(users, k.owner)
			}
		}
		for _, user := range users {
			for at := range s.Providers() {
				if s.try(l.token, user, l.code, at).accepted {
					s.fail("server %d lets %s in with a code of %s that was used at %s", at+1, user, l.token, l.from.Format(clock))
				}
			}
		}
	}
	s.result.replayed = len(tried)
	s.say("%d used codes are refused by both servers", len(tried))
}

// told lists what officers heard most often instead of what they wanted.
func (s *stage) told() {
	s.mu.Lock()
	texts := slices.SortedFunc(maps.Keys(s.refusals), func(a, b string) int {
		return cmp.Or(s.refusals[b]-s.refusals[a], strings.Compare(a, b))
	})
	s.mu.Unlock()
	for _, text := range texts[:min(len(texts), 12)] {
		s.say("told %d times: %s", s.refusals[text], text)
	}
}

// acts reads the audit trail.
func (s *stage) acts(ctx context.Context) (all []api.Act, err error) {
	for from := uint64(1); from > 0; {
		var page api.Acts
		if err := s.Client.Get(ctx, "/v1/audit", map[string][]string{"from": {fmt.Sprint(from)}, "limit": {"1000"}}, &page); err != nil {
			return nil, err
		}
		all, from = append(all, page.Acts...), page.Next
	}
	return all, nil
}
