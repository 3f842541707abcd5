package pcsc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ebfe/scard"

	"tokendesk/device"
)

// Card is an open card. It is used by one goroutine at a time.
type Card struct {
	context *scard.Context // its own, since a context does one thing at a time
	card    *scard.Card
	reset   bool
	err     error                           // why it answers no more
	patient func(apdu []byte) time.Duration // how long it may take to answer
	// remaining: the selected application gives the rest of answers by SEND REMAINING.
	remaining bool

	mu     sync.Mutex // one call at a time, even if one that was given up is still under way
	closed bool
}

var _ device.Card = (*Card)(nil)

// Open implements device.CardBus. Its errors are a *device.CureError, except that of ctx.
func (b Bus) Open(ctx context.Context, reader string) (device.Card, error) { return open(ctx, reader) }

func open(ctx context.Context, reader string) (*Card, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	type result struct {
		card *Card
		err  error
	}
	done := make(chan result)
	over, err := takeTurn(limited, reader)
	if err != nil {
		return nil, notInTime(ctx)
	}
	go func() {
		defer over()
		c, err := connect(reader)
		select {
		case done <- result{c, err}:
		case <-limited.Done(): // nobody waits for it any more
			if c != nil {
				c.Close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.card, r.err
	case <-limited.Done():
		return nil, notInTime(ctx)
	}
}

// notInTime is why a card could not be connected to: ctx has ended, or another program's transaction lasts.
func notInTime(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return busy(holders("/proc"))
}

func connect(reader string) (*Card, error) {
	c, err := establish()
	if err != nil {
		return nil, err
	}
	card, err := c.Connect(reader, scard.ShareExclusive, scard.ProtocolT1)
	if err == nil {
		return &Card{context: c, card: card, patient: patience}, nil
	}
	c.Release()
	if !isHangUp(err) {
		return nil, explain(err)
	}
	again, why := establish()
	if why != nil {
		return nil, why
	}
	again.Release()
	return nil, denied("access_card")
}

// Transmit implements device.Card. A card that says nothing for 20 s, or 3 minutes if it is to generate a key, is
// mute; from then on it cannot be used.
func (c *Card) Transmit(apdu []byte) ([]byte, uint16, error) {
	if c.err != nil {
		return nil, 0, c.err
	}
	exchange := c.exchange
	if c.remaining && !isSelect(apdu) {
		exchange = oathExchange(exchange)
	}
	data, status, err := converse(apdu, exchange)
	if err != nil && !errors.Is(err, errAPDU) && c.err == nil {
		c.err = err
	}
	if err == nil && isSelect(apdu) && status == statusOK {
		c.remaining = hasRemaining(apdu, data)
	}
	return data, status, err
}

// exchange moves one APDU. PC/SC has no way to give up a command, so that one without answer is left alone.
func (c *Card) exchange(apdu []byte) ([]byte, error) {
	type result struct {
		answer []byte
		err    error
	}
	done := make(chan result, 1)
	own := append([]byte(nil), apdu...) // the caller wipes its own when this returns
	go func() {
		answer, err := c.call(own)
		clear(own)
		done <- result{answer, err}
	}()
	late := time.NewTimer(c.patient(apdu))
	defer late.Stop()
	select {
	case r := <-done:
		return r.answer, r.err
	case <-late.C:
		return nil, mute()
	}
}

func (c *Card) call(apdu []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	answer, err := c.card.Transmit(apdu)
	if err == nil && len(answer) < 2 {
		err = errShort
	}
	if err != nil {
		return nil, c.explain(err)
	}
	return answer, nil
}

// insGenerate is GENERATE ASYMMETRIC KEY PAIR (ISO/IEC 7816-8), which takes longest.
const insGenerate = 0x47

func patience(apdu []byte) time.Duration {
	if apdu[1] == insGenerate {
		return generateTime
	}
	return answerTime
}

var errClosed = errors.New("the card was closed")

// errShort is an answer without status word: some readers' drivers give an empty one if the card is pulled meanwhile.
var errShort = fmt.Errorf("%w: it has no status", device.ErrCorrupt)

// explain says why a command has failed. If pcscd calls it "not transacted" the card was pulled, or it is mute. pcscd
// notices some time later that it was pulled.
func (c *Card) explain(err error) error {
	if !errors.Is(err, scard.ErrNotTransacted) && err != errShort {
		return explain(err)
	}
	for end := time.Now().Add(goneTime); time.Now().Before(end); time.Sleep(goneTime / 30) {
		if _, now := c.card.Status(); now != nil && !errors.Is(explain(now), device.ErrMute) {
			return explain(now)
		}
	}
	if err == errShort {
		return err
	}
	return mute()
}

// Reset makes Close reset the card, so that it forgets what was selected and who has proven a secret.
func (c *Card) Reset() { c.reset = true }

// Close implements device.Card.
func (c *Card) Close() error {
	if !c.mu.TryLock() { // a command has been given up, and is still under way
		go c.close()
		return nil
	}
	c.mu.Unlock()
	return c.close()
}

func (c *Card) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	how := scard.LeaveCard
	if c.reset {
		how = scard.ResetCard
	}
	err := c.card.Disconnect(how)
	if e := c.context.Release(); err == nil {
		err = e
	}
	if err == nil {
		return nil
	}
	if err = explain(err); errors.Is(err, device.ErrGone) || errors.Is(err, ErrNoService) {
		return nil // then nobody has it
	}
	return err
}
