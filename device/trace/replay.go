package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Drivers make sessions, as those of package drivers do.
type Drivers struct {
	OverReport func(device.Info, device.Report) device.Session
	OverCard   func(context.Context, device.Card) (device.Session, error)
}

// Replay asks a driver for everything that the trace was recorded of. It fails with a *DifferError if the driver makes another
// call, leaves one out, or comes to something else. Waiting takes its time.
func (t *Trace) Replay(ctx context.Context, d Drivers) error {
	p := &player{}
	var token device.HOTPToken
	for i, s := range t.Steps {
		p.begin(s)
		outcome, err := "ok", error(nil)
		if i == 0 {
			if token, err = t.open(ctx, d, p); err != nil {
				outcome = "fails " + failure(err)
			}
		} else {
			_, outcome, err = s.on(ctx, token)
		}
		if why := p.end(s, outcome); why != nil {
			return errors.Join(why, err)
		}
		if token != nil {
			continue
		}
		if i < len(t.Steps)-1 {
			return fmt.Errorf("the opening fails, as the trace says, and %d steps follow it", len(t.Steps)-1)
		}
	}
	return nil
}

func (t *Trace) open(ctx context.Context, d Drivers, p *player) (device.HOTPToken, error) {
	if !t.card() {
		session := d.OverReport(device.Info{Vendor: t.Vendor, Product: t.Product}, replayedReport{p})
		return session.Token(ctx, t.Token)
	}
	session, err := d.OverCard(ctx, replayedCard{p})
	if err != nil {
		return nil, err
	}
	return session.Token(ctx, t.Token)
}

// player gives the answers of a trace, as long as what is asked does not differ.
type player struct {
	calls   []Call
	at      int   // the next one
	served  int   // how often it was made, of a run of looks
	differs error // the first difference; from there on nothing works
	line    int   // of the end of the step
	outcome string
}

func (p *player) begin(s Step) { *p = player{calls: s.Calls, line: s.line, outcome: "is " + s.Outcome} }

// end checks that everything was done.
func (p *player) end(s Step, outcome string) error {
	p.leaveLooks("")
	switch {
	case p.differs != nil:
		return p.differs
	case p.at < len(p.calls):
		c := p.calls[p.at]
		return &DifferError{c.line, c.String(), "is " + outcome}
	case outcome != s.Outcome:
		return &DifferError{s.line, "is " + s.Outcome, "is " + outcome}
	}
	return nil
}

// leaveLooks passes by the rest of a run of looks: how many they are does not matter. Another kind of call ends it.
func (p *player) leaveLooks(kind Kind) {
	if p.at == len(p.calls) {
		return
	}
	c := p.calls[p.at]
	if c.Kind != kind && (p.served > 0 || c.quiet()) {
		p.at, p.served = p.at+1, 0
	}
}

// looksOfRun is after how many looks a device that was not ready is: more would make a driver that looks less often give up.
const looksOfRun = 2

// fits tells whether what a call has got fits into n bytes, or fills them.
func (c Call) fits(n int) bool {
	switch {
	case c.Err != "" || c.Kind == Set || c.Kind == APDU:
		return true
	case c.Kind == Key:
		return len(c.Got) <= n
	}
	return len(c.Got) == n
}

// next is what the trace has for a call; made is that as it would be in the trace, with room for what it gets.
func (p *player) next(made Call) (Call, error) {
	if p.differs != nil {
		return Call{}, p.differs
	}
	p.leaveLooks(made.Kind)
	if p.at < len(p.calls) && p.calls[p.at].Kind == made.Kind {
		c := p.calls[p.at]
		if !bytes.Equal(c.Sent, made.Sent) || !c.fits(len(made.Got)) {
			return Call{}, p.differ(made)
		}
		if p.served++; p.served >= min(c.Times, looksOfRun) {
			p.at, p.served = p.at+1, 0
		}
		return c, nil
	}
	if p.at > 0 && p.calls[p.at-1].looks() && p.calls[p.at-1].Kind == made.Kind { // it looks once more
		return p.calls[p.at-1], nil
	}
	return Call{}, p.differ(made)
}

func (p *player) differ(made Call) error {
	did := string(made.Kind) // that, and how much was asked for, is all that is known of a look
	if len(made.Sent) > 0 {
		did = made.String()
	} else if len(made.Got) > 0 {
		did = fmt.Sprintf("%s of %d bytes", made.Kind, len(made.Got))
	}
	e := &DifferError{p.line, p.outcome, did}
	if p.at < len(p.calls) {
		e.Line, e.Want = p.calls[p.at].line, p.calls[p.at].String()
	}
	p.differs = e
	return e
}

// failed is the error of a call.
func (c Call) failed() error {
	if c.Err == "" {
		return nil
	}
	err, _ := called(c.Err)
	return fmt.Errorf("as recorded: %w", err)
}

type replayedReport struct{ player *player }

func (r replayedReport) SetFeature(b []byte) error {
	c, err := r.player.next(Call{Kind: Set, Sent: b})
	if err != nil {
		return err
	}
	return c.failed()
}

func (r replayedReport) GetFeature(b []byte) error {
	c, err := r.player.next(Call{Kind: Get, Got: b})
	if err != nil {
		return err
	}
	copy(b, c.Got)
	return c.failed()
}

func (r replayedReport) ReadInput(b []byte, timeout time.Duration) (int, error) {
	c, err := r.player.next(Call{Kind: Key, Got: b})
	switch {
	case err != nil:
		return 0, err
	case c.quiet():
		time.Sleep(timeout)
		return 0, nil
	}
	return copy(b, c.Got), c.failed()
}

func (r replayedReport) Close() error { return nil }

// Draw implements device.Drawer.
func (r replayedReport) Draw(b []byte) { r.player.draw(b) }

func (p *player) draw(b []byte) {
	clear(b)
	c, _ := p.next(Call{Kind: Draw, Got: b}) // if it differs the next call says so
	copy(b, c.Got)
}

type replayedCard struct{ player *player }

func (r replayedCard) Transmit(apdu []byte) ([]byte, uint16, error) {
	c, err := r.player.next(Call{Kind: APDU, Sent: apdu})
	if err != nil {
		return nil, 0, err
	}
	return bytes.Clone(c.Got), c.Status, c.failed()
}

func (r replayedCard) Close() error { return nil }

// Draw implements device.Drawer.
func (r replayedCard) Draw(b []byte) { r.player.draw(b) }
