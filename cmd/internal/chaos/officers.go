package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
)

const (
	workLimit = 25 * time.Second // for one thing that an officer does
	unhurried = 300 * time.Millisecond
	mostCodes = 4 // of a key, typed and tried by nobody yet
)

// tend is an officer with a key in hand, who does with it whatever can be done as it is.
func (s *stage) tend(ctx context.Context, k *key, r *rand.Rand) {
	for wait(ctx, r, unhurried) {
		working, enough := context.WithTimeout(ctx, workLimit)
		k.hand.Lock()
		err := s.AwaitKeys(working, k.serial) // lest the desk, identifying it, gets what is typed
		if err == nil {
			err = s.next(working, k, r)
		}
		k.hand.Unlock()
		enough()
		s.hear(ctx, err)
	}
}

// next does one thing.
func (s *stage) next(ctx context.Context, k *key, r *rand.Rand) error {
	t, found, err := s.look(ctx, k)
	switch {
	case err != nil:
		return err
	case !found:
		return s.enroll(ctx, k, r)
	case t.Unfinished != "":
		return s.work(ctx, k, k.path("/resolve"), api.Resolve{Undo: r.IntN(5) == 0})
	}
	type deed struct {
		weight int
		do     func() error
	}
	order := func(action string) func() error { return func() error { return s.order(ctx, k, action, "") } }
	place := func(verb string) func() error {
		return func() error { return s.work(ctx, k, k.path(verb), api.Codes{Capture: true}) }
	}
	give := func() error { return s.order(ctx, k, "assign", pick(r, s.users)) }
	reissue := func() error { return s.work(ctx, k, k.path("/reissue"), api.User{User: pick(r, s.users)}) }
	var deeds []deed
	switch {
	case t.Status == "disabled":
		deeds = []deed{{6, order("enable")}, {1, order("unassign")}, {1, place("/resync")}}
	case t.Owner == "":
		deeds = []deed{{6, give}, {1, order("disable")}, {1, reissue}, {1, place("/test")}}
	default:
		deeds = []deed{{12, func() error { return s.typeCodes(ctx, k, 1+r.IntN(2)) }}, {3, place("/resync")}, {2, place("/test")},
			{2, order("disable")}, {2, order("unassign")}, {2, reissue}}
	}
	sum := 0
	for _, d := range deeds {
		sum += d.weight
	}
	n := r.IntN(sum)
	for _, d := range deeds {
		if n -= d.weight; n < 0 {
			return d.do()
		}
	}
	return nil
}

// meddle is an officer without a key, who comes in between.
func (s *stage) meddle(ctx context.Context, r *rand.Rand) {
	for wait(ctx, r, 2*time.Second) {
		k := pick(r, s.keys)
		working, enough := context.WithTimeout(ctx, workLimit)
		switch r.IntN(4) {
		case 0:
			s.hear(ctx, s.order(working, k, "disable", ""))
		case 1:
			s.hear(ctx, s.order(working, k, "unassign", ""))
		case 2:
			s.hear(ctx, s.order(working, k, "assign", pick(r, s.users)))
		default:
			s.hear(ctx, s.order(working, k, "enable", ""))
		}
		enough()
	}
}

func (s *stage) enroll(ctx context.Context, k *key, r *rand.Rand) error {
	e := api.Enroll{Device: string(k.token().Device()), App: fmt.Sprintf("otp%d", slot), Digits: digits, Enter: true, Overwrite: true}
	if r.IntN(4) > 0 {
		e.User = pick(r, s.users)
	}
	return s.work(ctx, k, "/v1/enroll", e)
}

// look returns a token as the desk has it.
func (s *stage) look(ctx context.Context, k *key) (t api.Token, found bool, err error) {
	err = s.Client.Get(ctx, k.path(""), nil, &t)
	if known := (*api.Error)(nil); errors.As(err, &known) && known.Code == api.NotFound {
		return t, false, nil
	}
	if err == nil {
		k.mu.Lock()
		k.owner = t.Owner
		k.mu.Unlock()
	}
	return t, err == nil, err
}

// order has something done with a key's token that needs no key.
func (s *stage) order(ctx context.Context, k *key, action, user string) error {
	o := api.Order{Tokens: []string{string(k.token())}, User: user, Reason: "chaos"}
	return s.Client.Post(ctx, "/v1/tokens/actions/"+action, o, new(api.Outcomes))
}

// work has the desk do something with a key, and touches it whenever it asks.
func (s *stage) work(ctx context.Context, k *key, path string, body any) error {
	var touching error
	_, err := s.Client.Work(ctx, path, body, func(p api.Progress) {
		if p.Kind == "touch" {
			touching = errors.Join(touching, s.Press(ctx, k.serial, p.Slot == 2))
		}
	})
	if touching != nil {
		return fmt.Errorf("cannot touch key %s: %w", k.serial, touching)
	}
	return err
}

// typeCodes has the key type codes for its owner to use, sooner or later.
func (s *stage) typeCodes(ctx context.Context, k *key, n int) error {
	k.mu.Lock()
	enough := len(k.codes) >= mostCodes
	k.mu.Unlock()
	if enough {
		return nil
	}
	typed, err := s.Touch(ctx, k.serial, slot == 2, n)
	if err != nil {
		return fmt.Errorf("cannot touch key %s: %w", k.serial, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, code := range typed {
		if len(code) == digits { // else the desk, looking at the key, got it
			k.codes = append(k.codes, code)
		}
	}
	return nil
}

// hear judges what an officer was told. Whatever has a name is as it should be, as long as it is one that fits.
func (s *stage) hear(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	known := (*api.Error)(nil)
	if !errors.As(err, &known) {
		if !errors.Is(err, context.DeadlineExceeded) {
			s.fail("an officer's hand: %v", err)
		}
		return
	}
	s.mu.Lock()
	s.refusals[string(known.Code)+": "+generic(known.Message)]++
	s.mu.Unlock()
	switch known.Code {
	case api.Unreachable, api.Device, api.NotVerified, api.Unfinished, api.NotFound:
	case api.Refused:
		for _, text := range fitting {
			if strings.Contains(known.Message, text) {
				return
			}
		}
		fallthrough
	default:
		s.fail("an officer was told %s: %s", known.Code, known.Message)
	}
}

// fitting are reasons for which something is refused here.
var fitting = []string{
	"another officer's work", "belongs to nobody", "belongs to", "only an active token can", "can be disabled", "can be enabled", "can be assigned", "can be unassigned", "can be reissued",
	"takes 1 token per user", "is disabled", "is in the journal; settle it first", "cannot be undone any more",
}

// generic leaves out what differs from one token to the next.
func generic(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		if strings.ContainsAny(w, "0123456789") {
			words[i] = "…"
		}
	}
	return strings.Join(words, " ")
}
