package pcsc

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/ebfe/scard"

	"tokendesk/device"
)

// transaction holds a card as another program may do it: whoever connects to it waits until end is called.
func transaction(t *testing.T, reader string) (end func()) {
	t.Helper()
	c, err := scard.EstablishContext()
	if err != nil {
		t.Fatal(err)
	}
	card, err := c.Connect(reader, scard.ShareShared, scard.ProtocolT1)
	if err != nil {
		t.Fatal(err)
	}
	if err := card.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := errors.Join(card.EndTransaction(scard.LeaveCard), card.Disconnect(scard.LeaveCard), c.Release()); err != nil {
			t.Error(err)
		}
	}
}

// What is waiting for another program's transaction is one thing per reader, however often the card is asked for.
func TestTransactionOfAnotherProgram(t *testing.T) {
	r := startRig(t, 1)
	plug(t, r.Ports[0], yubikeyATR, ok)
	observe(t, Bus{}).expect(r.Readers[0], false)
	end := transaction(t, r.Readers[0])
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := open(short, r.Readers[0]); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	left := runtime.NumGoroutine()
	begin := time.Now()
	const times = 3
	for range times {
		if _, err := open(t.Context(), r.Readers[0]); !errors.Is(err, device.ErrBusy) {
			t.Error(err)
		}
	}
	if d := time.Since(begin); d >= connectTime {
		t.Errorf("the second one and later ones, too, have waited: %v", d)
	}
	if n := runtime.NumGoroutine() - left; n >= times { // the watch has one more at times
		t.Errorf("%d goroutines are left behind", n)
	}
	known, _ := turns.Load(r.Readers[0])
	known.(*turn).mu.Lock()
	over := known.(*turn).over
	known.(*turn).mu.Unlock()
	if over == nil {
		t.Fatal("nobody is connecting")
	}
	end()
	<-over
	openCard(t, r.Readers[0])
}

func TestTurnsEndWithTheirContext(t *testing.T) {
	over, err := takeTurn(t.Context(), t.Name())
	if err != nil {
		t.Fatal(err)
	}
	if other, err := takeTurn(t.Context(), t.Name()+" another"); err != nil {
		t.Error(err)
	} else {
		other()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := takeTurn(ctx, t.Name()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	waited := make(chan error, 1)
	go func() {
		over, err := takeTurn(context.Background(), t.Name())
		if err == nil {
			over()
		}
		waited <- err
	}()
	over()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// Asking a reader for its place keeps others from the card: that is done when it is inserted, and not when somebody has closed it.
func TestPlaceIsAskedAtInsertionOnly(t *testing.T) {
	const name = "reader"
	asked, told := 0, 0
	w := &watch{readers: map[string]*reader{}, tell: func(e device.CardEvent) {
		if e.Removed {
			return
		}
		if told++; asked != told {
			t.Errorf("card %d is told after its place was asked %d times", told, asked)
		}
	}}
	w.place = func(string) (string, bool) { asked++; return "", false } // as of a reader that could not be asked
	w.update([]string{name})
	const present, absent, open = scard.StatePresent, scard.StateEmpty, scard.StatePresent | scard.StateInuse | scard.StateExclusive
	for i, s := range []struct {
		state scard.StateFlag
		asked int
	}{
		{absent, 0}, {1<<16 | present, 1}, {1<<16 | open, 1}, {1<<16 | present, 1}, // inserted, opened and closed
		{3<<16 | open, 2}, {3<<16 | present, 2}, // another one, that somebody has open from the beginning
		{4<<16 | absent, 2}, {5<<16 | present, 3},
	} {
		w.look(scard.ReaderState{Reader: name, EventState: s.state | scard.StateChanged, Atr: yubikeyATR}, 1)
		if asked != s.asked {
			t.Errorf("%d: asked %d times, not %d", i, asked, s.asked)
		}
	}
	if told != 3 {
		t.Errorf("%d cards are told", told)
	}
}
