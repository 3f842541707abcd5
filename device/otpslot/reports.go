package otpslot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// reports is the link by frames over HID feature reports.
type reports struct {
	report    device.Report
	lastWrite time.Time
}

func (l *reports) took(before, after Status) bool { return moved(before, after) }

func (l *reports) tells(v device.Version) bool { return !v.Less(needStatus) }

func (l *reports) reclaims() bool { return true }

func (l *reports) status(ctx context.Context) (Status, error) {
	began := time.Now()
	for {
		r, err := l.get()
		if err != nil {
			return Status{}, err
		}
		switch flags := r[7]; {
		case flags == 0:
			return parseStatus([statusSize]byte(r[1:])), nil
		case flags == neoStarting || flags&flagWrite != 0:
			// busy: look again
		default: // somebody left an answer or a touch request behind
			if err := l.reset(ctx); err != nil {
				return Status{}, err
			}
		}
		if err := l.lookAgain(ctx, began); err != nil {
			return Status{}, err
		}
	}
}

func (l *reports) ask(ctx context.Context, command byte, n int) ([]byte, error) {
	if _, err := l.send(ctx, command, nil); err != nil {
		return nil, err
	}
	var data []byte
	began := time.Now()
	for {
		r, err := l.get()
		if err != nil {
			return nil, err
		}
		switch flags := r[7]; {
		case flags&(flagWrite|flagResponse) == flagResponse:
			seq := int(flags & sequenceMask)
			if seq == 0 && len(data) > 0 { // the end
				if err := l.reset(ctx); err != nil {
					return nil, err
				}
				return checkResponse(data, n)
			}
			if seq*chunkSize != len(data) || len(data) > payloadSize {
				return nil, l.abandon(ctx, device.ErrCorrupt)
			}
			data = append(data, r[:7]...)
			continue // the next chunk is there at once
		case flags == 0 && len(data) == 0:
			return nil, ErrSerialHidden // taken, and nothing to say
		case flags == 0:
			return nil, device.ErrCorrupt // ended early
		}
		if err := l.lookAgain(ctx, began); errors.Is(err, errStuck) {
			return nil, l.abandon(ctx, err)
		} else if err != nil {
			return nil, err
		}
	}
}

// abandon makes the device forget an answer that went wrong. That it cannot be reached is worse news than err.
func (l *reports) abandon(ctx context.Context, err error) error {
	if unreachable := l.reset(ctx); unreachable != nil {
		return unreachable
	}
	return err
}

// errStuck means that a flag in the status does not clear.
var errStuck = fmt.Errorf("%w: pull the key, insert it again, and repeat", device.ErrTimeout)

func (l *reports) write(ctx context.Context, command byte, payload []byte) (before, after Status, err error) {
	if before, err = l.send(ctx, command, payload); err != nil {
		return before, after, err
	}
	after, err = l.status(ctx)
	return before, after, err
}

// send writes a frame, chunk by chunk, each when the one before was taken. It returns the status that
// the device had right before the first. That the last chunk was taken is for the caller to see: looking
// for it here could swallow the first chunk of an answer.
func (l *reports) send(ctx context.Context, command byte, payload []byte) (before Status, err error) {
	reports := frame(command, payload)
	defer clear(reports)
	if before, err = l.status(ctx); err != nil {
		return before, err
	}
	for i := range reports {
		if i > 0 {
			if err := l.awaitTaken(ctx); err != nil {
				return before, err
			}
		}
		if err := l.set(ctx, reports[i][:]); err != nil {
			return before, err
		}
	}
	return before, nil
}

// awaitTaken waits until the device has taken the chunk before.
func (l *reports) awaitTaken(ctx context.Context) error {
	began := time.Now()
	for {
		r, err := l.get()
		if err != nil {
			return err
		}
		if r[7]&flagWrite == 0 {
			return nil
		}
		if err := l.lookAgain(ctx, began); err != nil {
			return err
		}
	}
}

// lookAgain pauses between two looks at the flags, the longer the more time has passed since the wait
// began: a look costs 1 to 2 ms of the bus. No look is worth it before the next write is allowed.
func (l *reports) lookAgain(ctx context.Context, began time.Time) error {
	waited := time.Since(began)
	if waited > writeTimeout {
		return errStuck
	}
	return pause(ctx, max(pollGap, waited/pollShare, time.Until(l.lastWrite.Add(writeGap))))
}

func (l *reports) reset(ctx context.Context) error {
	var r [device.ReportSize]byte
	r[device.ReportSize-1] = resetReport
	return l.set(ctx, r[:])
}

func (l *reports) set(ctx context.Context, r []byte) error {
	if err := pause(ctx, time.Until(l.lastWrite.Add(writeGap))); err != nil {
		return err
	}
	defer func() { l.lastWrite = time.Now() }()
	return l.report.SetFeature(r)
}

// get reads the 8 bytes of a feature report.
func (l *reports) get() (r [device.ReportSize - 1]byte, err error) {
	var p [device.ReportSize]byte
	if err := l.report.GetFeature(p[:]); err != nil {
		return r, err
	}
	copy(r[:], p[1:])
	return r, nil
}
