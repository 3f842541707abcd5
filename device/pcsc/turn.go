package pcsc

import (
	"context"
	"errors"
	"sync"
	"time"
)

// turn is whose turn it is to connect to a reader. In this process it is done by one at a time: while a reader is asked for its
// place, its card cannot be had exclusively; and pcscd answers nobody while another program's transaction lasts.
type turn struct {
	mu    sync.Mutex
	over  chan struct{} // closed when the one whose turn it is has finished; nil: it is nobody's
	since time.Time
}

var turns sync.Map // of *turn, by reader

// errHeld means that somebody is connecting to a reader for longer than moments: there is no use in waiting, too.
var errHeld = errors.New("the reader does not answer")

// takeTurn waits until nobody is connecting to a reader, and keeps others from that until over is called. It fails with errHeld,
// or with the error of ctx.
func takeTurn(ctx context.Context, reader string) (over func(), err error) {
	known, _ := turns.LoadOrStore(reader, new(turn))
	t := known.(*turn)
	for {
		taken, since := t.take()
		if taken == nil {
			return t.leave, nil
		}
		late := time.NewTimer(time.Until(since.Add(turnTime)))
		select {
		case <-taken:
			err = nil
		case <-late.C:
			err = errHeld
		case <-ctx.Done():
			err = ctx.Err()
		}
		late.Stop()
		if err != nil {
			return nil, err
		}
	}
}

// take takes the turn, or returns what is closed when it is over, and since when it is another's.
func (t *turn) take() (taken <-chan struct{}, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != nil {
		return t.over, t.since
	}
	t.over, t.since = make(chan struct{}), time.Now()
	return nil, t.since
}

func (t *turn) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.over)
	t.over = nil
}
