package keeper

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"tokendesk/provision"
)

// Works is the work with keys that is going on. Its zero value is ready.
type Works struct {
	mu    sync.Mutex
	going map[*going]bool
	shut  chan struct{} // while the vault is locked or replaced; closed when that is over
	idle  chan struct{} // meanwhile; closed when the last work has ended
}

type going struct {
	what      string
	interrupt context.CancelCauseFunc
}

// errInterrupted is why work ends that was in somebody's way.
var errInterrupted = errors.New("an officer had the vault locked")

// Begin begins a work, after whatever shuts works out. It ends when end is called; its context, if an officer insists.
func (w *Works) Begin(ctx context.Context, what string) (_ context.Context, end func(), err error) {
	for {
		w.mu.Lock()
		shut := w.shut
		if shut == nil {
			break
		}
		w.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
	defer w.mu.Unlock()
	ctx, interrupt := context.WithCancelCause(ctx)
	g := &going{what, interrupt}
	if w.going == nil {
		w.going = map[*going]bool{}
	}
	w.going[g] = true
	return ctx, func() { interrupt(nil); w.end(g) }, nil
}

func (w *Works) end(g *going) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.going, g)
	if len(w.going) == 0 && w.idle != nil {
		close(w.idle)
	}
}

// Going names the work that is going on.
func (w *Works) Going() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names()
}

func (w *Works) names() (all []string) {
	for g := range w.going {
		all = append(all, g.what)
	}
	slices.Sort(all)
	return all
}

// Stop shuts works out until reopen is called. What is going on is interrupted with force, and waited for; without, it is
// the reason for a refusal.
func (w *Works) Stop(ctx context.Context, force bool) (reopen func(), err error) {
	idle, err := w.close(force)
	if err != nil {
		return nil, err
	}
	select {
	case <-idle:
		return w.reopen, nil
	case <-ctx.Done():
		w.reopen()
		return nil, ctx.Err()
	}
}

// close shuts works out. What it returns is closed when the last one has ended.
func (w *Works) close(force bool) (idle <-chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.going) > 0 && !force {
		return nil, &provision.RefusedError{
			Reason: "work is going on: " + strings.Join(w.names(), ", "),
			Next:   "wait until it has finished; to interrupt it, and resolve it later: tokendesk vault lock --force",
		}
	}
	w.shut, w.idle = make(chan struct{}), make(chan struct{})
	if len(w.going) == 0 {
		close(w.idle)
	}
	for g := range w.going {
		g.interrupt(errInterrupted)
	}
	return w.idle, nil
}

func (w *Works) reopen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.shut)
	w.shut, w.idle = nil, nil
}
