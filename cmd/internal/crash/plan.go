package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"tokendesk/cmd/internal/crash/tracer"
)

// attempt is one run of a scenario.
type attempt struct {
	tracer.Plan
	again time.Duration // kill also the restart, after this time; 0: do not
	old   bool          // put the file of before the operation in place while the daemon is dead
}

// record runs the scenario undisturbed and returns what is to be tried, and the world, to go on with.
func (r *runner) record(ctx context.Context) (all []attempt, st *stage, err error) {
	if st, err = newStage(ctx, r.options, r.s); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	report, err := r.point(ctx, st, attempt{})
	if err != nil {
		return nil, st, fmt.Errorf("undisturbed, it fails: %w\n%s", err, st.log())
	}
	if err := st.StopDaemon(); err != nil {
		return nil, st, err
	}
	begin := time.Now()
	if err := st.startAgain(); err != nil {
		return nil, st, err
	}
	if err := r.s.reopen(ctx, st); err != nil {
		return nil, st, err
	}
	r.start, r.tally.calls = time.Since(begin), len(report.Calls)
	if !r.s.Makes {
		if err := st.open(ctx); err != nil {
			return nil, st, err
		}
	}
	random := rand.New(rand.NewPCG(r.seed, 1))
	taken := 0
	for _, c := range report.Calls {
		r.tally.kinds[c.Kind]++
		if r.only != "" && c.Kind != r.only {
			continue
		}
		if taken++; (taken+int(r.seed))%r.every == 0 {
			all = append(all, r.attempts(c, random)...)
		}
	}
	for i := range r.random {
		a := attempt{Plan: tracer.Plan{After: 1 + time.Duration(random.Int64N(int64(r.duration))), Unsynced: true, Seed: random.Uint64()}}
		switch {
		case i%2 == 1:
			a.again = 1 + time.Duration(random.Int64N(int64(r.start)))
		case i%4 == 2:
			a.old = !r.s.Makes
		}
		all = append(all, a)
	}
	return all, st, nil
}

// attempts are all ways to kill at a call.
func (r *runner) attempts(c tracer.Call, random *rand.Rand) []attempt {
	// The number of calls on a key varies, because the daemon asks it again and again; those of other kinds do not.
	plan := tracer.Plan{On: c.Kind, Kill: r.tally.kinds[c.Kind]}
	unsynced, torn := plan, plan
	unsynced.Unsynced, unsynced.Seed, torn.Torn = true, random.Uint64(), true
	all := []attempt{{Plan: plan}}
	away := c.Kind == "key" || c.Kind == "directory"
	if !away && c.Kind != kindTPM { // the increment stands for what follows a commit
		all = append(all, attempt{Plan: unsynced})
	}
	if c.Name == "pwrite64" {
		all = append(all, attempt{Plan: torn})
	}
	// An old copy does no harm before something has left the desk.
	if !r.s.Makes && (away && random.IntN(oldEvery) == 0 || c.Kind == "outside" || c.Kind == kindIncrement || c.Name == "fdatasync") {
		all = append(all, attempt{Plan: plan, old: true})
	}
	return all
}

// oldEvery says how often an old copy is tried among calls that follow each other without a commit.
const oldEvery = 4
