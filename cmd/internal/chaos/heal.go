package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
)

const (
	healLimit  = 2 * time.Minute
	quietLimit = time.Minute
	lookAgain  = 100 * time.Millisecond
)

// heal has unfinished work resolved, and waits until nothing is left to be done. All parts run, and all lines are up.
func (s *stage) heal(ctx context.Context) error {
	begin := time.Now()
	s.say("healed; %d daemon kills, %d slapd kills, %d pauses, %d cuts", s.daemonKills.Load(), s.slapdKills.Load(), s.pauses.Load(), s.cuts.Load())
	ctx, cancel := context.WithTimeout(ctx, healLimit)
	defer cancel()
	if err := s.again(ctx, "all work is resolved", s.resolveAll); err != nil {
		return err
	}
	s.say("all work is resolved")
	for _, k := range s.keys { // more codes may have gone by than the servers look ahead
		if err := s.again(ctx, "the keys are resynced", func(ctx context.Context) error { return s.catchUp(ctx, k) }); err != nil {
			return err
		}
	}
	if err := s.again(ctx, "no change is parked", s.treatParked); err != nil {
		return err
	}
	if err := s.quiet(ctx); err != nil {
		return err
	}
	s.result.healing = time.Since(begin)
	s.say("quiet after %.1f s", s.result.healing.Seconds())
	return s.Pair.AwaitSync(ctx)
}

// again repeats until it works: what was down a moment ago may still be given a rest.
func (s *stage) again(ctx context.Context, what string, try func(context.Context) error) error {
	retry := time.NewTicker(lookAgain)
	defer retry.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if isHopeless(err) {
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, err)
		case <-retry.C:
		}
	}
}

// isHopeless tells whether to try again is no use.
func isHopeless(err error) bool {
	known := (*api.Error)(nil)
	return err != nil && (!errors.As(err, &known) || known.Code == api.Internal)
}

// resolveAll goes on with all unfinished work.
func (s *stage) resolveAll(ctx context.Context) error {
	var status api.Status
	if err := s.Client.Get(ctx, "/v1/status", nil, &status); err != nil {
		return err
	}
	for _, k := range s.keys {
		for _, work := range status.Unfinished {
			if !strings.HasPrefix(work, string(k.token())+": ") {
				continue
			}
			if err := s.AwaitKeys(ctx, k.serial); err != nil {
				return err
			}
			if err := s.work(ctx, k, k.path("/resolve"), api.Resolve{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// catchUp resyncs a key that is somebody's.
func (s *stage) catchUp(ctx context.Context, k *key) error {
	t, found, err := s.look(ctx, k)
	if err != nil || !found || t.Owner == "" || t.Status != "active" {
		return err
	}
	if err := s.AwaitKeys(ctx, k.serial); err != nil {
		return err
	}
	return s.work(ctx, k, k.path("/resync"), api.Codes{Capture: true})
}

// treatParked tries changes again that were refused. Nothing that is done here gives a reason for that.
func (s *stage) treatParked(ctx context.Context) error {
	var parked api.Changes
	if err := s.Client.Get(ctx, "/v1/outbox", url.Values{"state": {"parked"}}, &parked); err != nil {
		return err
	}
	for _, c := range parked.Changes {
		if !s.parked[c.Seq] {
			s.parked[c.Seq] = true
			s.fail("change %d, %s of %s for %q, is parked: %s", c.Seq, c.Kind, c.Token, c.User, c.Problem)
		}
		err := s.Client.Post(ctx, fmt.Sprintf("/v1/outbox/%d/retry", c.Seq), nil, new(api.Changes))
		if known := (*api.Error)(nil); err != nil && (!errors.As(err, &known) || known.Code != api.NotFound) {
			return err
		}
	}
	if len(parked.Changes) > 0 {
		return api.Errorf(api.Refused, "%d changes were parked", len(parked.Changes))
	}
	return nil
}

// quiet waits until the outbox is empty, and all of a reading of both servers after that found nothing to do.
func (s *stage) quiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	var last time.Time
	left := "nothing is known yet"
	for readings := 0; ; {
		var now api.Status
		if err := s.Client.Get(ctx, "/v1/status", nil, &now); err != nil {
			return fmt.Errorf("it does not come to rest: %s: %w", left, err)
		}
		if len(now.Unfinished) > 0 { // of an officer who left at the end of the chaos, after which it went on for a while
			if err := s.resolveAll(ctx); isHopeless(err) {
				return err
			}
		}
		left = unsettled(now)
		switch {
		case left != "":
			readings = -1
		case now.Central.Read == nil: // they are being read, which takes its time on a busy machine
		case readings < 0 || !now.Central.Read.Equal(last):
			readings++
			last = *now.Central.Read
		}
		if readings == 2 { // the first may have begun before the outbox was empty
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not come to rest: %s", cmp.Or(left, "the servers are not read"))
		case <-look.C:
		}
	}
}

// unsettled says what is still to be done.
func unsettled(now api.Status) string {
	c := now.Central
	switch {
	case len(now.Unfinished) > 0:
		return "unfinished: " + strings.Join(now.Unfinished, ", ")
	case c.Waiting > 0 || c.Parked > 0:
		return fmt.Sprintf("%d changes wait and %d are parked: %s", c.Waiting, c.Parked, c.Problem)
	case len(c.Missing) > 0:
		return "not read: " + strings.Join(c.Missing, ", ")
	}
	for _, r := range c.Rollbacks {
		if r.Repaired == nil {
			return fmt.Sprintf("%s is behind in %s since %s", r.Provider, r.Token, r.Noticed.Format(clock))
		}
	}
	return ""
}
