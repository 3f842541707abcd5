package main

import (
	"errors"
	"fmt"
	"os"

	"tokendesk/cmd/internal/guest/job"
)

// verdict has what is known when qemu has ended.
type verdict struct {
	last    job.Report
	follow  error // in reading the reports
	cause   error // why the guest was ended before its last report; nil if it was not
	started bool  // whether the command ran
	qemu    error // of qemu's end
	log     *os.File
}

// decide tells the exit status and what to say about it.
func (v verdict) decide() (int, error) {
	switch v.last.Event {
	case job.Exited:
		if v.last.Code == 0 {
			return 0, nil
		}
		return v.last.Code, fmt.Errorf("the command failed with %d", v.last.Code)
	case job.Refused:
		return v.last.Code, fmt.Errorf("the command cannot be run: %s", v.last.Text)
	case job.Failed:
		return ownFailed, fmt.Errorf("the guest could not be made ready: %s", v.last.Text)
	}
	when := "before the command began"
	if v.started {
		when = "while the command ran"
	}
	switch {
	case v.follow != nil:
		return ownFailed, v.follow
	case errors.Is(v.cause, errTimeIsUp):
		return timeIsUp, fmt.Errorf("%w, %s", v.cause, when)
	case errors.Is(v.cause, errNotUp):
		return ownFailed, v.cause
	case v.cause != nil:
		return ownFailed, fmt.Errorf("interrupted %s", when)
	}
	if panicked := findPanic(v.log); panicked != "" {
		return ownFailed, fmt.Errorf("the guest panicked %s: %s", when, panicked)
	}
	if v.qemu != nil {
		return ownFailed, fmt.Errorf("qemu ended %s: %w", when, v.qemu)
	}
	return ownFailed, fmt.Errorf("the guest ended %s, without a word", when)
}
