package trace

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"tokendesk/device"
)

// Recorder writes down what goes over one opening of a device. It is used by one goroutine at a time.
type Recorder struct {
	Header // may be completed while it records
	// KeepForeign says that the token has no secrets, so that whatever it types is kept.
	KeepForeign bool

	steps      []Step // the last one is under way
	programmed Operation
	foreign    bool
}

// NewRecorder begins a record with its opening: the first calls are those that make a session and find the token in it.
func NewRecorder(h Header) *Recorder {
	return &Recorder{Header: h, steps: []Step{{Operation: Operation{Verb: Open}}}}
}

// Opened ends the opening; err is what it has failed with. Do does so by itself after one that has succeeded.
func (r *Recorder) Opened(err error) {
	s := &r.steps[0]
	if s.Outcome != "" {
		return
	}
	s.Outcome = "ok"
	if err != nil {
		s.Outcome = "fails " + failure(err)
	}
}

// Do asks the token for something. It fails as the token does, with ErrForeign if what it has typed may be a secret, and
// before it asks if the operation names what is not published.
func (r *Recorder) Do(ctx context.Context, t device.HOTPToken, o Operation) (result Result, err error) {
	if err := o.check(); err != nil {
		return result, fmt.Errorf("cannot record this: %w", err)
	}
	r.Opened(nil)
	r.steps = append(r.steps, Step{Operation: o})
	result, r.last().Outcome, err = o.on(ctx, t)
	switch o.Verb {
	case Program:
		r.programmed = o
	case Code:
		if r.tainted(result.Code) {
			r.foreign = true
			return Result{}, errors.Join(ErrForeign, err)
		}
	}
	return result, err
}

// tainted tells whether the last step, one for a code, has shown something that is no code of the seed that was programmed.
func (r *Recorder) tainted(code string) bool {
	if r.KeepForeign {
		return false
	}
	if code != "" {
		return r.programmed.Seed == "" || !r.programmed.gives(code)
	}
	return slices.ContainsFunc(r.last().Calls, func(c Call) bool { return c.Kind == Key && len(c.Got) > 0 })
}

// Trace returns what was recorded. It fails with ErrForeign if that may hold a secret.
func (r *Recorder) Trace() (*Trace, error) {
	if r.foreign {
		return nil, ErrForeign
	}
	r.Opened(nil)
	return &Trace{Header: r.Header, Steps: r.steps}, nil
}

func (r *Recorder) last() *Step { return &r.steps[len(r.steps)-1] }

func (r *Recorder) note(c Call, err error) {
	if err != nil {
		c.Err, c.Got, c.Status = named(err), nil, 0
	}
	c.Sent, c.Got = bytes.Clone(c.Sent), bytes.Clone(c.Got)
	if c.Kind == Get && err == nil {
		c.Times = 1
	}
	calls := &r.last().Calls
	if n := len(*calls); n > 0 && (*calls)[n-1].again(c) {
		(*calls)[n-1].Times += c.Times
		return
	}
	*calls = append(*calls, c)
}

// Report returns a report that hands everything to inner and notes it.
func (r *Recorder) Report(inner device.Report) device.Report { return &recordedReport{inner, r} }

// Card returns a card that hands everything to inner and notes it.
func (r *Recorder) Card(inner device.Card) device.Card { return &recordedCard{inner, r} }

func (r *Recorder) draw(p []byte) {
	rand.Read(p) // it never fails (crypto/rand)
	r.note(Call{Kind: Draw, Got: p}, nil)
}

type recordedReport struct {
	device.Report
	recorder *Recorder
}

func (r *recordedReport) SetFeature(p []byte) error {
	err := r.Report.SetFeature(p)
	r.recorder.note(Call{Kind: Set, Sent: p}, err)
	return err
}

func (r *recordedReport) GetFeature(p []byte) error {
	err := r.Report.GetFeature(p)
	r.recorder.note(Call{Kind: Get, Got: p}, err)
	return err
}

func (r *recordedReport) ReadInput(p []byte, timeout time.Duration) (int, error) {
	n, err := r.Report.ReadInput(p, timeout)
	r.recorder.note(Call{Kind: Key, Got: p[:n]}, err)
	return n, err
}

// Draw implements device.Drawer.
func (r *recordedReport) Draw(p []byte) { r.recorder.draw(p) }

type recordedCard struct {
	device.Card
	recorder *Recorder
}

func (c *recordedCard) Transmit(apdu []byte) ([]byte, uint16, error) {
	data, status, err := c.Card.Transmit(apdu)
	c.recorder.note(Call{Kind: APDU, Sent: apdu, Got: data, Status: status}, err)
	return data, status, err
}

// Reset has the card reset when it is closed, where it can.
func (c *recordedCard) Reset() {
	if r, ok := c.Card.(interface{ Reset() }); ok {
		r.Reset()
	}
}

// Draw implements device.Drawer.
func (c *recordedCard) Draw(p []byte) { c.recorder.draw(p) }
