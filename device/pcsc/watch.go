package pcsc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebfe/scard"

	"tokendesk/device"
)

const (
	// plugAndPlay is the name of what changes when readers come and go.
	plugAndPlay = `\\?PnP?\Notification`
	// settle is how long after a wait has begun the readers are listed once more: one that came between the last listing
	// and the wait is not told by it.
	settle = 100 * time.Millisecond
	// again is how often a wait is cancelled anew until it has ended; one that has not begun takes no notice.
	again = 20 * time.Millisecond
)

// watch follows readers and what is in them.
type watch struct {
	bus     Bus
	tell    func(device.CardEvent)
	place   func(reader string) (port string, emulated bool)
	waits   *scard.Context
	asks    *scard.Context // while the other waits
	readers map[string]*reader
}

// reader is a reader as it was last told.
type reader struct {
	state scard.StateFlag
	card  device.CardInfo // zero: none

	asked    bool // for what follows, when its card was inserted: once, whatever the answer
	port     string
	emulated bool
}

func newWatch(b Bus, fn func(device.CardEvent)) (*watch, error) {
	w := &watch{bus: b, tell: fn, place: place, readers: map[string]*reader{}}
	var err error
	if w.waits, err = establish(); err != nil {
		return nil, err
	}
	if w.asks, err = establish(); err != nil {
		w.waits.Release()
		return nil, err
	}
	return w, nil
}

func (w *watch) close() {
	w.waits.Release()
	w.asks.Release()
}

func (w *watch) run(ctx context.Context) error {
	for {
		names, err := list(w.waits)
		if err != nil {
			return lost(ctx, err)
		}
		w.update(names)
		states := []scard.ReaderState{{Reader: plugAndPlay}}
		for name, r := range w.readers {
			states = append(states, scard.ReaderState{Reader: name, CurrentState: r.state})
		}
		err = w.wait(ctx, states, names)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, scard.ErrCancelled), errors.Is(err, scard.ErrTimeout), errors.Is(err, scard.ErrUnknownReader):
			continue // the readers are others by now
		case err != nil:
			return lost(ctx, err)
		}
		for _, s := range states[1:] {
			w.look(s, count(names, s.Reader))
		}
	}
}

// lost says why nothing is seen any more.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return explain(err)
}

// list names the readers, in their order. Two readers may have one name.
func list(c *scard.Context) ([]string, error) {
	names, err := c.ListReaders()
	if errors.Is(err, scard.ErrNoReadersAvailable) {
		return nil, nil
	}
	return names, err
}

func count(names []string, name string) (n int) {
	for _, other := range names {
		if other == name {
			n++
		}
	}
	return n
}

// wait returns when something has changed. It is cancelled when ctx ends, or when the readers are found to be others than
// those that it waits for.
func (w *watch) wait(ctx context.Context, states []scard.ReaderState, names []string) error {
	ended, cancelled := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(cancelled)
		once := time.NewTimer(settle)
		defer once.Stop()
		select {
		case <-ended:
			return
		case <-ctx.Done():
		case <-once.C:
			if now, err := list(w.asks); err == nil && slices.Equal(now, names) {
				select {
				case <-ended:
					return
				case <-ctx.Done():
				}
			}
		}
		for tick := time.NewTicker(again); ; {
			w.waits.Cancel()
			select {
			case <-ended:
				tick.Stop()
				return
			case <-tick.C:
			}
		}
	}()
	err := w.waits.GetStatusChange(states, -1)
	close(ended)
	<-cancelled
	return err
}

// update forgets readers that are gone. New ones are unaware of their cards at first, so that the next wait tells.
func (w *watch) update(names []string) {
	for name, r := range w.readers {
		if !slices.Contains(names, name) {
			w.set(r, device.CardInfo{})
			delete(w.readers, name)
		}
	}
	for _, name := range names {
		if w.readers[name] == nil {
			w.readers[name] = &reader{state: scard.StateUnaware}
		}
	}
}

// counter is the part of a reader's state that pcscd counts insertions and removals in.
const counter = scard.StateFlag(0xFFFF0000)

// look takes over what a wait has told of one reader.
func (w *watch) look(s scard.ReaderState, readers int) {
	r := w.readers[s.Reader]
	before, now := r.state, s.EventState&^scard.StateChanged
	r.state = now
	absent := now&(scard.StateUnknown|scard.StateUnavailable) != 0 || now&scard.StatePresent == 0
	if absent || before&counter != now&counter { // or it was pulled and inserted again, perhaps another one
		w.set(r, device.CardInfo{})
		r.asked = false
	}
	if absent || now&scard.StateExclusive != 0 && r.card.Reader != "" { // of a card that somebody has open nothing new is learnt
		return
	}
	if !r.asked {
		r.port, r.emulated = w.place(s.Reader)
		r.asked = true
	}
	w.set(r, w.describe(r, s, readers))
}

// set tells what is new of the card in a reader.
func (w *watch) set(r *reader, card device.CardInfo) {
	if r.card == card {
		return
	}
	if r.card.Reader != "" {
		w.tell(device.CardEvent{Info: r.card, Removed: true})
	}
	if r.card = card; card.Reader != "" {
		w.tell(device.CardEvent{Info: card})
	}
}

// describe says what is known of a card without opening it.
func (w *watch) describe(r *reader, s scard.ReaderState, readers int) device.CardInfo {
	info := device.CardInfo{Reader: s.Reader, Port: r.port}
	info.Emulated = r.emulated || slices.ContainsFunc(w.bus.Emulated, func(name string) bool {
		return name != "" && strings.HasPrefix(s.Reader, name)
	})
	switch {
	case readers > 1:
		info.Problem = fmt.Sprintf("%d readers have the name %q, and pcscd reaches only one of them", readers, s.Reader)
		info.Cure = "pull all but one"
	case s.EventState&scard.StateMute != 0:
		info.Problem, info.Cure = device.Cure(mute())
	case len(s.Atr) > 0 && !isToken(s.Reader, s.Atr):
		info.Problem, info.Cure = "the card is no YubiKey", "insert a YubiKey; the desk leaves other cards alone"
	}
	return info
}

// isToken looks for the name of a YubiKey in what the reader is called, which is a part of it, and in the historical bytes of the
// answer to reset, which all of them have (yubikit, core/smartcard: "YubikeyNEO", "Yubikey 4", "YubiKey"), or there for that of a
// Nitrokey 3 ("Nitrokey").
func isToken(reader string, atr []byte) bool {
	name := strings.ToLower(string(atr))
	return strings.Contains(name, "yubikey") || strings.Contains(name, "nitrokey") || strings.Contains(strings.ToLower(reader), "yubico")
}
