package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"tokendesk/cmd/internal/guest/job"
)

// bootLimit is how long the guest may take until the command runs: ten times what it takes.
const bootLimit = 2 * time.Minute

var errNotUp = fmt.Errorf("the guest did not come up within %s", bootLimit)

// supervise runs qemu in a directory and follows the guest's reports to the last one.
func supervise(ctx context.Context, dir string, args []string, log *os.File, files ...*os.File) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	qemu := program(ctx, "qemu-system-x86_64", args...)
	qemu.Dir, qemu.Stderr, qemu.ExtraFiles = dir, log, files
	reports, err := qemu.StdoutPipe()
	if err != nil {
		return ownFailed, err
	}
	if err := qemu.Start(); err != nil {
		return ownFailed, startError(qemu, err)
	}
	up := time.AfterFunc(bootLimit, func() { cancel(errNotUp) })
	defer up.Stop()
	f := follower{out: os.Stdout, begin: time.Now(), up: up}
	last, err := f.follow(reports)
	v := verdict{last: last, follow: err, cause: context.Cause(ctx), started: !f.started.IsZero(), log: log}
	if last.Event != "" || err != nil {
		cancel(nil) // the guest has nothing to save
	}
	v.qemu = qemu.Wait()
	f.tell(os.Stderr)
	return v.decide()
}

// follower passes the command's output on.
type follower struct {
	out                   io.Writer
	up                    *time.Timer // stopped when the command runs
	begin, started, ended time.Time
}

// follow reads reports up to the last one, which it returns; none if they end before.
func (f *follower) follow(reports io.Reader) (job.Report, error) {
	for lines := bufio.NewReader(reports); ; {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return job.Report{}, nil
		}
		if err != nil {
			return job.Report{}, err
		}
		r, err := job.Parse(text)
		if err != nil {
			return job.Report{}, err
		}
		switch r.Event {
		case job.Started:
			f.started = time.Now()
			f.up.Stop()
		case job.Output:
			if _, err := f.out.Write(r.Data); err != nil {
				return job.Report{}, err
			}
		default:
			f.ended = time.Now()
			return r, nil
		}
	}
}

// tell says where the time went.
func (f *follower) tell(to io.Writer) {
	if f.started.IsZero() || f.ended.IsZero() {
		return
	}
	fmt.Fprintf(to, "guest: up after %.1f s, command %.1f s, gone after %.1f s\n",
		f.started.Sub(f.begin).Seconds(), f.ended.Sub(f.started).Seconds(), time.Since(f.ended).Seconds())
}
