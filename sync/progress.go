package syncer

import (
	"fmt"
	"time"

	"tokendesk/vault"
)

// Progress is how far the outbox has come since it last had nothing to deliver or, if that was before, since this process began.
type Progress struct {
	Done      int       // changes delivered or dropped
	Left      int       // changes that wait, without those that are parked
	PerSecond float64   // over the last seconds; 0 while nothing is being delivered
	Until     time.Time // when none will be left at that pace; zero while nothing is being delivered
}

// Progress costs one look at the vault's counts.
func (o *Outbox) Progress() (Progress, error) {
	left, err := o.toDeliver()
	if err != nil {
		return Progress{}, fmt.Errorf("cannot tell how far the outbox is: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	p := Progress{Done: o.pace.done, Left: left, PerSecond: o.pace.perSecond(time.Now())}
	if p.PerSecond > 0 {
		p.Until = time.Now().Add(time.Duration(float64(left) / p.PerSecond * float64(time.Second)))
	}
	return p, nil
}

func (o *Outbox) toDeliver() (n int, err error) {
	err = o.v.View(func(tx *vault.Tx) error {
		c := tx.Counts()
		n = c.Waiting - c.Parked
		return nil
	})
	return n, err
}

const (
	paceMarks = 16
	paceEvery = 500 * time.Millisecond
)

// pace is how many entries were done when, measured by a clock that nobody sets.
type pace struct {
	done  int
	over  bool // nothing was left, so that the next one counts from nothing
	marks []mark
}

type mark struct {
	at   time.Time
	done int
}

// perSecond is that since the oldest mark.
func (p *pace) perSecond(now time.Time) float64 {
	if len(p.marks) == 0 {
		return 0
	}
	took := now.Sub(p.marks[0].at).Seconds()
	if took <= 0 {
		return 0
	}
	return float64(p.done-p.marks[0].done) / took
}

// begin marks that something is being delivered.
func (o *Outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pace.marks) > 0 {
		return
	}
	if o.pace.over {
		o.pace = pace{}
	}
	o.pace.marks = append(o.pace.marks, mark{time.Now(), o.pace.done})
}

// advance counts outcomes.
func (o *Outbox) advance(done outcomes) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := &o.pace
	for i := range done {
		if !done[i].failed() {
			p.done++
		}
	}
	if n := len(p.marks); n > 0 && time.Since(p.marks[n-1].at) >= paceEvery {
		if n == paceMarks {
			p.marks = append(p.marks[:0], p.marks[1:]...)
		}
		p.marks = append(p.marks, mark{time.Now(), p.done})
	}
}

// rest marks that nothing is being delivered any more.
func (o *Outbox) rest() {
	left, err := o.toDeliver()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pace.marks = nil
	o.pace.over = o.pace.over || err == nil && left == 0
}
