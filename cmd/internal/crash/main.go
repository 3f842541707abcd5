// Command crash proves that a crash at any moment costs nothing: it kills the real daemon, as it ships, at every
// system call by which an operation writes, syncs, speaks to the TPM, a key or the directory, and looks what is left after
// a restart.
//
//	crash [-bin DIR] [-scenario NAME] [-kind KIND] [-every K] [-random N] [-seed S]
//
// A scenario is recorded once; then each of its calls is a point. The daemon is killed before the call has an effect,
// with all before it done; at calls on files also with a random part of what was not synced taken back, and at
// page writes with half of the page written. Random moments come on top, for half of which the restart is killed too.
//
// After each point the vault opens or can be made, what was reported is there, what was not can be finished, all of the
// vault is checked, and nothing lies beside it. A copy of its file from before the operation is then refused as old. At
// some points that copy is put in place while the daemon is dead: it is refused, or the operation had no effect yet.
//
// What is not tried: kills of the TPM, and rollbacks within one epoch. It needs root, swtpm and slapd. It ends with 1
// if anything is lost.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"tokendesk/cmd/internal/crash/tracer"
)

func main() {
	tracer.Main()
	o := options{log: log.New(os.Stderr, "", log.Ltime)}
	var only string
	flag.StringVar(&o.bin, "bin", ".bin", "directory of tokendesk, tokendeskd and tokenemu")
	flag.StringVar(&only, "scenario", "", "try only these `NAMES`, separated by commas")
	flag.StringVar(&o.only, "kind", "", "try only calls on this `KIND`, such as \"TPM increment\"")
	flag.IntVar(&o.every, "every", 1, "try each `K`-th point only")
	flag.IntVar(&o.random, "random", 0, "also kill at `N` random moments, of all scenarios together")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of what is random")
	flag.IntVar(&o.jobs, "jobs", 4, "try so many points at a time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, only, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, only string, out io.Writer) error {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	if o.every < 1 || o.jobs < 1 {
		return fmt.Errorf("-every and -jobs are 1 or more")
	}
	o.log.Printf("seed %d", o.seed)
	tallies, err := o.tryAll(ctx, chosen)
	if err != nil {
		return err
	}
	points, lost := 0, 0
	for _, t := range tallies {
		points += t.points
		lost += len(t.losses)
	}
	table(out, tallies)
	fmt.Fprintf(out, "%d crash points, %d recovered, %d lost\n", points, points-lost, lost)
	if lost > 0 {
		return fmt.Errorf("%d lost; repeat with -seed %d", lost, o.seed)
	}
	return nil
}

// abreast is how many scenarios are tried at a time: what begins and ends one leaves room for another.
const abreast = 2

// tryAll tries scenarios, and shares random moments out among them. The first error ends all.
func (o options) tryAll(ctx context.Context, chosen []Scenario) ([]tally, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tallies := make([]tally, len(chosen))
	random := o.random
	o.jobs = max(1, o.jobs/min(abreast, len(chosen)))
	places := make(chan struct{}, abreast)
	var going sync.WaitGroup
	for i, s := range chosen {
		o := o
		o.random = random*(i+1)/len(chosen) - random*i/len(chosen)
		going.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if ctx.Err() != nil {
				return
			}
			var err error
			if tallies[i], err = o.try(ctx, s); err != nil {
				stop(err)
			}
		})
	}
	going.Wait()
	return tallies, context.Cause(ctx)
}

func choose(only string) (chosen []Scenario, err error) {
	all := scenarios()
	if only == "" {
		return all, nil
	}
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no scenario %q", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// table shows what was tried, and every loss.
func table(out io.Writer, tallies []tally) {
	fmt.Fprintf(out, "%-14s %5s %6s %5s %8s %6s %5s %8s %7s %5s %6s %7s  %s\n",
		"scenario", "calls", "killed", "torn", "unsynced", "random", "twice", "old copy", "refused", "later", "lost", "seconds", "calls on")
	var sum tally
	for _, t := range tallies {
		var kinds []string
		for _, k := range slices.Sorted(maps.Keys(t.kinds)) {
			kinds = append(kinds, fmt.Sprintf("%s %d", k, t.kinds[k]))
		}
		row(out, t, strings.Join(kinds, ", "))
		sum.scenario, sum.leaked, sum.losses = "all", max(sum.leaked, t.leaked), append(sum.losses, t.losses...)
		for at, n := range map[*int]int{
			&sum.calls: t.calls, &sum.points: t.points, &sum.torn: t.torn, &sum.unsynced: t.unsynced, &sum.random: t.random,
			&sum.twice: t.twice, &sum.put: t.put, &sum.refused: t.refused, &sum.late: t.late,
		} {
			*at += n
		}
		sum.took += t.took
	}
	row(out, sum, "")
	for _, t := range tallies {
		for _, l := range t.losses {
			fmt.Fprintf(out, "LOST %s at %s: %v\n", t.scenario, l.at, l.err)
		}
	}
	fmt.Fprintf(out, "old copies of the vault: %d put in place at the kill, of which %d were refused and the others were of before the operation; %d after recovery, all refused\n",
		sum.put, sum.refused, sum.late)
	fmt.Fprintf(out, "a killed init, restore or move-in leaves at most %d counters without a vault in the TPM\n", sum.leaked)
}

func row(out io.Writer, t tally, kinds string) {
	fmt.Fprintf(out, "%-14s %5d %6d %5d %8d %6d %5d %8d %7d %5d %6d %7.1f  %s\n", t.scenario, t.calls, t.points, t.torn, t.unsynced, t.random, t.twice,
		t.put, t.refused, t.late, len(t.losses), t.took.Seconds(), kinds)
}
