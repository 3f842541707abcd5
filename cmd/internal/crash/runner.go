package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"tokendesk/cmd/internal/crash/tracer"
)

const (
	limit    = time.Minute // for one point
	perWorld = 8           // points are worth a world of their own
)

// options of a run.
type options struct {
	bin    string
	every  int // try each k-th point
	random int // and so many moments
	seed   uint64
	jobs   int
	first  bool   // end at the first loss
	only   string // if not empty: try points of this kind only
	// environment is added to the daemon's.
	environment []string
	log         *log.Logger
}

// loss is a point from which the desk did not recover.
type loss struct {
	at  string
	err error
}

// tally is what came of one scenario.
type tally struct {
	scenario string
	calls    int // that the operation makes
	kinds    map[string]int
	points   int // where the daemon was killed
	torn     int // of them: with half a page written
	unsynced int // of them: with unsynced writes lost
	random   int // of them: at a random moment
	twice    int // of them: and once more while it started again
	put      int // of them: and an old copy of the vault put in its place at once, which
	refused  int // was refused as old, and not harmless
	late     int // old copies put back after recovery: all were refused
	leaked   int // counters that a killed operation left in the TPM, at most
	losses   []loss
	took     time.Duration
}

// outcome is what came of an attempt.
type outcome struct {
	tracer.Report
	put, refused, late bool // see tally
	leaked             int
}

// runner tries one scenario at every point.
type runner struct {
	options
	s        Scenario
	duration time.Duration // of the act, untroubled
	start    time.Duration // of the daemon

	mu    sync.Mutex
	tally tally
}

// try runs a scenario. An error means that it could not be tried, not that something was lost.
func (o options) try(ctx context.Context, s Scenario) (tally, error) {
	begin := time.Now()
	r := &runner{options: o, s: s, tally: tally{scenario: s.Name, kinds: map[string]int{}}}
	plans, first, err := r.record(ctx)
	if err != nil {
		return r.tally, fmt.Errorf("%s: %w", s.Name, err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	queue := make(chan attempt)
	failed := make(chan error, o.jobs)
	var workers sync.WaitGroup
	for range min(o.jobs, 1+len(plans)/perWorld) {
		st := first
		first = nil
		workers.Go(func() {
			if err := r.worker(ctx, st, queue, stop); err != nil {
				failed <- err
				stop()
			}
		})
	}
feed:
	for _, p := range plans {
		select {
		case queue <- p:
		case <-ctx.Done():
			break feed
		}
	}
	close(queue)
	workers.Wait()
	close(failed)
	r.tally.took = time.Since(begin)
	for err := range failed {
		return r.tally, fmt.Errorf("%s: %w", s.Name, err)
	}
	return r.tally, nil
}

// worker tries plans in worlds of its own, a new one after each loss. st may be nil.
func (r *runner) worker(ctx context.Context, st *stage, queue <-chan attempt, stop func()) (err error) {
	defer func() {
		if st != nil {
			err = errors.Join(err, st.close())
		}
	}()
	for a := range queue {
		if ctx.Err() != nil {
			continue
		}
		if st == nil || st.used == keysOf {
			if st != nil {
				if err := st.close(); err != nil {
					return err
				}
			}
			if st, err = newStage(ctx, r.options, r.s); ctx.Err() != nil {
				return nil
			} else if err != nil {
				return err
			}
		}
		report, err := r.point(ctx, st, a)
		for a.After > 0 && err == nil && !report.Killed { // it was faster this time
			a.After /= 2
			report, err = r.point(ctx, st, a)
		}
		if ctx.Err() != nil {
			return nil // stopped by another's loss
		}
		if failed := (*harnessError)(nil); errors.As(err, &failed) {
			return fmt.Errorf("%w\n%s", err, st.log())
		}
		r.count(a, report, err)
		if err != nil {
			if r.first {
				stop()
			}
			used := st
			st = nil
			if err := used.close(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) count(a attempt, o outcome, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := &r.tally
	at := "not killed"
	if o.Killed {
		at = t.add(a, o)
	}
	if err != nil {
		t.losses = append(t.losses, loss{at, err})
		r.log.Printf("%s LOST at %s: %v", r.s.Name, at, err)
	} else if t.points%50 == 0 {
		r.log.Printf("%s: %d points so far, at %s", r.s.Name, t.points, at)
	}
}

// add counts a point and describes it.
func (t *tally) add(a attempt, o outcome) (at string) {
	at = o.Last().String()
	t.points++
	switch {
	case a.After > 0:
		t.random++
		at = fmt.Sprintf("after %s, %d calls, the last %s", a.After, len(o.Calls), at)
	case o.Torn:
		t.torn++
		at += ", half of it written"
	case a.Unsynced:
		t.unsynced++
	}
	if o.Lost > 0 {
		at += fmt.Sprintf(", %d unsynced changes lost", o.Lost)
	}
	if a.again > 0 {
		t.twice++
		at += fmt.Sprintf(", and again %s after its restart", a.again)
	}
	if o.put {
		t.put++
		at += ", and an old copy put in place"
	}
	if o.refused {
		t.refused++
	}
	if o.late {
		t.late++
	}
	t.leaked = max(t.leaked, o.leaked)
	return at
}

// harnessError says that a point could not be tried.
type harnessError struct{ error }

func (e *harnessError) Unwrap() error { return e.error }

// point prepares, acts, kills as planned, starts again and checks. Its error is a loss unless it is a harnessError.
func (r *runner) point(ctx context.Context, st *stage, a attempt) (o outcome, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := r.prepare(ctx, st); err != nil {
		return o, &harnessError{fmt.Errorf("cannot prepare: %w", err)}
	}
	a.Kinds = st.kinds()
	if err := st.tracer.Arm(a.Plan); err != nil {
		return o, &harnessError{err}
	}
	begin := time.Now()
	actErr := r.s.Act(ctx, st)
	took := time.Since(begin)
	if o.Report, err = st.tracer.Disarm(); err != nil {
		return o, &harnessError{err}
	}
	check := func(acted bool) error { return r.s.Check(ctx, st, acted) }
	switch {
	case o.Killed:
		if err := r.buried(st, &o); err != nil {
			return o, err
		}
		if a.old && st.old != nil {
			o.put = true
			if o.refused, err = st.putBack(ctx, check, actErr == nil); err != nil || !o.refused {
				return o, err
			}
		}
		if err := r.restart(ctx, st, a); err != nil {
			return o, err
		}
	case actErr != nil:
		return o, fmt.Errorf("it fails without having been killed: %w", actErr)
	default:
		r.mu.Lock()
		r.duration = max(r.duration, took)
		r.mu.Unlock()
	}
	if err := check(actErr == nil); err != nil {
		return o, err
	}
	if a.On != "key" || st.tries%oldEvery == 0 {
		if o.late, err = st.refusedNow(ctx); err != nil {
			return o, err
		}
	}
	return o, errors.Join(st.checkVault(ctx), st.swept())
}

// prepare also keeps a copy of the vault, if there is one.
func (r *runner) prepare(ctx context.Context, st *stage) error {
	st.old = nil
	st.tries++
	if err := r.s.Prepare(ctx, st); err != nil || st.old != nil {
		return err
	}
	v, err := vaultOf(ctx, st.World)
	if err != nil || v.State != stateOpen {
		return err
	}
	return st.keepOld(v)
}

// buried waits until the daemon is gone, and counts what is left in the TPM.
func (r *runner) buried(st *stage, o *outcome) error {
	if _, err := st.AwaitDaemonEnd(); err != nil {
		return &harnessError{err}
	}
	left, err := board{st.TPM}.counters()
	if err != nil {
		return &harnessError{err}
	}
	const each = 2 // of epochs, and of generations
	_, err = os.Stat(vaultFile(st.World))
	switch {
	case err == nil && len(left) != each:
		return fmt.Errorf("there are %d counters in the TPM, and one vault, which has %d", len(left), each)
	case err != nil:
		o.leaked = len(left)
	}
	return nil
}

// restart starts the daemon again, and once more if that is killed as well.
func (r *runner) restart(ctx context.Context, s *stage, a attempt) error {
	if a.again == 0 {
		if err := s.startAgain(); err != nil {
			return err
		}
		return r.s.reopen(ctx, s)
	}
	again := tracer.Plan{Kinds: s.kinds(), After: a.again, Unsynced: true, Seed: a.Seed + 1}
	if err := s.tracer.Arm(again); err != nil {
		return &harnessError{err}
	}
	startErr := s.startAgain()
	if startErr == nil {
		startErr = r.s.reopen(ctx, s)
	}
	report, err := s.tracer.Disarm()
	switch {
	case err != nil:
		return &harnessError{err}
	case !report.Killed:
		return startErr
	}
	if _, err := s.AwaitDaemonEnd(); err != nil {
		return &harnessError{err}
	}
	if err := s.startAgain(); err != nil {
		return err
	}
	return r.s.reopen(ctx, s)
}

func (s *stage) startAgain() error {
	if err := s.StartDaemon(); err != nil {
		return fmt.Errorf("the daemon does not start again: %w", err)
	}
	return nil
}
