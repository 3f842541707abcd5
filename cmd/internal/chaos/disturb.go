package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"tokendesk/sync/synctest"
)

// trouble is what one part goes through again and again: some time in order, then something that befalls it, then its cure.
type trouble struct {
	what         string
	server       int           // 1 or 2 if it is one of the servers itself
	replication  bool          // it keeps the servers from replicating
	daemon       bool          // it ends the daemon
	calm, lasts  time.Duration // at most
	befall, cure func(r *rand.Rand) error
}

func (s *stage) troubles() []trouble {
	all := []trouble{{
		what: "daemon killed", daemon: true, calm: 9 * time.Second, lasts: time.Second,
		befall: func(*rand.Rand) error {
			s.KillDaemon()
			s.daemonKills.Add(1)
			return nil
		},
		cure: func(*rand.Rand) error { return s.StartDaemon() },
	}}
	for i, p := range s.Providers() {
		paused := false
		all = append(all, trouble{
			what: fmt.Sprintf("server %d", i+1), server: i + 1, replication: true, calm: 14 * time.Second, lasts: 4 * time.Second,
			befall: func(r *rand.Rand) error {
				if paused = r.IntN(3) == 0; paused {
					s.pauses.Add(1)
					return p.Pause()
				}
				p.Kill()
				s.slapdKills.Add(1)
				return nil
			},
			cure: func(*rand.Rand) error {
				if paused {
					return p.Resume()
				}
				return p.Start()
			},
		})
	}
	lines := []string{"line to server 1", "line to server 2", "line between the servers"}
	for link := range synctest.Link(len(lines)) {
		all = append(all, trouble{
			what: lines[link], replication: link == synctest.Between, calm: 12 * time.Second, lasts: 5 * time.Second,
			befall: func(*rand.Rand) error {
				s.cuts.Add(1)
				return s.network.Down(link)
			},
			cure: func(*rand.Rand) error { return s.network.Up(link) },
		})
	}
	return all
}

// suffer has a trouble befall its part until ctx ends, and leaves it cured.
func (s *stage) suffer(ctx context.Context, t trouble, r *rand.Rand) {
	for wait(ctx, r, t.calm) {
		from := time.Now()
		err := t.befall(r)
		if err == nil {
			wait(ctx, r, t.lasts)
			err = t.cure(r)
		}
		s.mu.Lock()
		s.outages = append(s.outages, outage{t.what, t.server, t.replication, t.daemon, from, time.Now()})
		s.mu.Unlock()
		if err != nil {
			s.fail("%s: %v", t.what, err)
			return
		}
	}
}

// wait takes a random time of at most d, and tells whether ctx goes on.
func wait(ctx context.Context, r *rand.Rand, d time.Duration) bool {
	t := time.NewTimer(time.Duration(r.Int64N(int64(d))))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Who throws which dice.
const (
	diceTrouble = 1000
	diceOfficer = 2000
	diceUser    = 3000
)

const (
	officers = 2 // without a key in their hands
	userMobs = 3
)

// chaos lets everybody loose.
func (s *stage) chaos(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.length)
	defer cancel()
	var all sync.WaitGroup
	for i, k := range s.keys {
		all.Go(func() { s.tend(ctx, k, s.dice(uint64(i))) })
	}
	for i := range officers {
		all.Go(func() { s.meddle(ctx, s.dice(diceOfficer+uint64(i))) })
	}
	for i := range userMobs {
		all.Go(func() { s.logIn(ctx, s.dice(diceUser+uint64(i))) })
	}
	for i, t := range s.troubles() {
		all.Go(func() { s.suffer(ctx, t, s.dice(diceTrouble+uint64(i))) })
	}
	all.Go(func() { s.progress(ctx) })
	all.Wait()
	return nil
}

func (s *stage) progress(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.mu.Lock()
			n, told := len(s.logins), 0
			for _, times := range s.refusals {
				told += times
			}
			s.mu.Unlock()
			s.say("%d logins tried, %d times told why not; %d daemon kills, %d slapd kills, %d pauses, %d cuts",
				n, told, s.daemonKills.Load(), s.slapdKills.Load(), s.pauses.Load(), s.cuts.Load())
		}
	}
}
