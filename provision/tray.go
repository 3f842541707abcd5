package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tokendesk/device"
)

// Kinds of Progress of one key among several. It has a Device.
const (
	Ready ProgressKind = "ready" // what the key types from now on is captured
	Away  ProgressKind = "away"  // it was pulled, or cannot be used: Text says why
)

// Typed is a code that a touch of one of several keys has given, whichever slot it came from.
type Typed struct {
	Device device.ID
	Code   string
}

// Reasons for a tray to end that are no failure of a key.
var (
	// ErrEnough ends a tray in order, as the cause of its context: what is typed already is still handed on.
	ErrEnough = errors.New("the officer has ended it")

	errAllDone = errors.New("every key is done")
)

const (
	// drainTime is how long a keyboard is read before it is given back: for what has come already. A line that has begun by then is
	// read to its end.
	drainTime = 50 * time.Millisecond
	// drainMost is how long that goes on for a key that types without a pause.
	drainMost = time.Second
	// reopenPause is the least time between two tries to open a key: its bus may tell late that it was pulled. It doubles with each
	// try, up to longestReopenPause, until the key is open.
	reopenPause        = 100 * time.Millisecond
	longestReopenPause = 3 * time.Second
)

// heard is what a listener has to say of its key: it has typed a code, or the progress told.
type heard struct {
	device device.ID
	code   string
	told   Progress
}

// Tray holds several inserted keys open and hands on every code that any of them types, until each has said of all devices
// that they are done; a key that is done is listened to until then. It ends with device.ErrNoTouch when nothing was typed for
// TouchTimeout, without error when ctx was ended with the cause ErrEnough, and with the first error of each. No other
// work can have the keys meanwhile; one that is worked on already is told as Away and left out, and one that is pulled is
// taken again when it returns. Each and tell are called by one goroutine, and none is left when it returns.
func (r *Runner) Tray(ctx context.Context, devices []device.ID, each func(Typed) (done bool, err error), tell Tell) error {
	listening, end := context.WithCancelCause(ctx)
	defer end(nil)
	said := make(chan heard)
	waiting := map[device.ID]bool{}
	var listeners sync.WaitGroup
	var refused error
	for _, id := range devices {
		if waiting[id] {
			continue
		}
		release, err := r.claimDevice(id)
		if err != nil {
			refused = err
			tell(Progress{Kind: Away, Device: id, Text: err.Error()})
			continue
		}
		waiting[id] = true
		listeners.Go(func() {
			defer release()
			r.listen(listening, id, said)
		})
	}
	if len(waiting) == 0 {
		if refused == nil {
			refused = refuse("insert them, and repeat", "there are no keys to listen to")
		}
		return refused
	}
	go func() { listeners.Wait(); close(said) }()

	timeout := r.TouchTimeout
	if timeout == 0 {
		timeout = DefaultTouchTimeout
	}
	idle := time.AfterFunc(timeout, func() {
		end(fmt.Errorf("%w: no key was touched for %v", device.ErrNoTouch, timeout))
	})
	defer idle.Stop()
	var failed error
	for h := range said {
		if h.code == "" {
			if h.told.Kind == Note { // it has typed something
				idle.Reset(timeout)
			}
			tell(h.told)
			continue
		}
		if failed != nil {
			continue
		}
		idle.Stop() // what is done with a code may take its time
		var done bool
		done, failed = each(Typed{h.device, h.code})
		idle.Reset(timeout)
		switch {
		case failed != nil:
			end(failed)
		case done:
			if delete(waiting, h.device); len(waiting) == 0 {
				end(errAllDone)
			}
		}
	}
	switch cause := context.Cause(listening); {
	case failed != nil:
		return failed
	case len(waiting) == 0, errors.Is(cause, ErrEnough):
		return nil
	case cause == nil: // a key that was pulled cannot be awaited
		return device.ErrGone
	default:
		return cause
	}
}

// claimDevice keeps other work off all tokens of a device.
func (r *Runner) claimDevice(id device.ID) (release func(), err error) {
	one, err := r.Claim(device.SlotToken(id, 1))
	if err != nil {
		return nil, err
	}
	two, err := r.Claim(device.SlotToken(id, 2))
	if err != nil {
		one()
		return nil, err
	}
	return func() { one(); two() }, nil
}

// listen says what a key types, and opens it again when it returns, until ctx ends.
func (r *Runner) listen(ctx context.Context, id device.ID, said chan<- heard) {
	tell := func(kind ProgressKind, text string) {
		said <- heard{device: id, told: Progress{Kind: kind, Device: id, Text: text}}
	}
	pause, away := reopenPause, "" // why it could not be opened, as told last
	for ctx.Err() == nil {
		// Slot 1 stands for the key: what either slot types comes out of one keyboard.
		err := r.Open(ctx, device.SlotToken(id, 1), func(t device.HOTPToken, _ bool) error {
			pause, away = reopenPause, ""
			tell(Ready, "the key is ready")
			for {
				code, err := t.Code(ctx)
				switch {
				case ctx.Err() != nil:
					drain(ctx, t, func(code string) { said <- heard{device: id, code: code} })
					return err
				case errors.Is(err, device.ErrNotACode):
					tell(Note, "that was not a code")
				case err != nil:
					return err
				default:
					said <- heard{device: id, code: code}
				}
			}
		})
		if ctx.Err() != nil {
			return
		}
		if err.Error() != away {
			away = err.Error()
			tell(Away, away)
		}
		if r.Await == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longestReopenPause)
		if r.Await(ctx, id) != nil {
			return
		}
	}
}

// drain hands on the codes that a key has typed already, and waits for no other.
func drain(ctx context.Context, t device.HOTPToken, surplus func(code string)) {
	ctx, end := context.WithTimeout(context.WithoutCancel(ctx), drainMost)
	defer end()
	for ctx.Err() == nil {
		rest, enough := context.WithTimeout(ctx, drainTime)
		code, err := t.Code(rest)
		enough()
		switch {
		case err == nil:
			surplus(code)
		case !errors.Is(err, device.ErrNotACode):
			return
		}
	}
}
