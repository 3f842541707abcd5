package keys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/device/drivers"
	"tokendesk/device/management"
)

// Cards is how smart cards are reached. The zero value reaches none.
type Cards struct {
	Bus device.CardBus
	// PIV selects the PIV application of an opened card, which it takes over if it succeeds.
	PIV func(ctx context.Context, card device.Card, emulated bool) (PIVCard, error)
}

// PIVCard is the PIV application of an opened card.
type PIVCard interface {
	device.PIV
	// Info is what the card has told of itself.
	Info() management.Info
	Close() error
}

// WatchCards has the registry look for smart cards as well. It is called before Run.
func (r *Registry) WatchCards(c Cards) {
	r.cards = c
	r.problems[c.Bus.Name()] = ""
}

// cardBus is a bus of smart cards.
type cardBus struct{ Cards }

func (b cardBus) Name() string { return b.Bus.Name() }

func (b cardBus) watch(ctx context.Context, added func(Key, opener), removed func(path string)) error {
	return b.Bus.Watch(ctx, func(e device.CardEvent) {
		i := e.Info
		if e.Removed {
			removed(i.Reader)
			return
		}
		added(Key{
			Bus: b.Name(), Card: CardFace{Bus: b.Name(), Reader: i.Reader, Emulated: i.Emulated},
			Info: device.Info{Path: i.Reader, Port: i.Port, Emulated: i.Emulated, Problem: i.Problem, Cure: i.Cure},
		}, card(b))
	})
}

// card opens smart cards.
type card struct{ Cards }

// look finds out whose the card is. It opens it only if that does not follow from its USB port, or something was wrong with it.
func (c card) look(ctx context.Context, p *port, key *Key) error {
	err := c.identify(ctx, p, key)
	if err != nil {
		note(ctx, key, err)
	} else {
		key.Problem, key.Cure = "", ""
	}
	return err
}

func (c card) identify(ctx context.Context, p *port, key *Key) error {
	if key.ID == "" {
		if err := p.registry.settled(ctx, p); err != nil {
			return err
		}
	}
	if key.ID == "" && key.Problem == "" {
		if k := p.registry.wholeOf(p); k.ID != "" {
			key.ID, key.Serial, key.Firmware, key.Card.PIV = k.ID, k.Serial, k.Firmware, k.ID.MayHavePIV()
			return nil
		}
	}
	for enough := (time.Time{}); ; { // between tries it is the turn of others: nobody knows yet whose card it is
		over, err := p.registry.turn(ctx, p)
		if err != nil {
			return err
		}
		if enough.IsZero() {
			enough = time.Now().Add(momentsTime)
		}
		err = c.ask(ctx, key)
		over()
		if !again(ctx, err, enough) {
			return err
		}
	}
}

// ask opens a card to find out whose it is.
func (c card) ask(ctx context.Context, key *Key) error {
	opened, err := c.Bus.Open(ctx, key.Info.Path)
	if err != nil {
		return err
	}
	defer opened.Close()
	session, err := drivers.OverCard(ctx, opened)
	if err != nil {
		return err
	}
	return c.take(ctx, session, key)
}

// take notes what a card has told of itself.
func (c card) take(ctx context.Context, s device.Session, key *Key) error {
	id, err := s.Identify(ctx)
	if err == nil {
		err = take(id, key)
	}
	if err == nil {
		key.Card.PIV = id.PIV
	}
	return err
}

// lend opens the card, makes sure whose it is, and lends it or its PIV application.
func (c card) lend(ctx context.Context, p *port, key *Key, req request) error {
	opened, err := c.open(ctx, key.Info.Path)
	if err != nil {
		note(ctx, key, err)
		return err
	}
	if req.piv != nil {
		return c.lendPIV(ctx, opened, p, key, req)
	}
	defer opened.Close()
	tapped := opened
	if req.tap.Card != nil {
		tapped = req.tap.Card(opened)
	}
	var s device.Session
	if s, err = drivers.OverCard(ctx, opened); err == nil {
		err = c.take(ctx, s, key)
	}
	if err == nil && req.tap.Card != nil {
		s, err = drivers.OverCard(ctx, tapped)
	}
	if err != nil {
		note(ctx, key, err)
		return err
	}
	key.Problem, key.Cure = "", ""
	defer func() { // whatever the work has done: it may have outlived its request
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
		defer cancel()
		if again, err := drivers.OverCard(after, opened); err == nil {
			_ = c.take(after, again, key) // if not, the next look tells why
		}
	}()
	return req.session(ctx, s, p.registry.lent(p, *key))
}

// lendPIV lends the PIV application of an opened card.
func (c card) lendPIV(ctx context.Context, opened device.Card, p *port, key *Key, req request) error {
	piv, err := c.PIV(ctx, opened, p.registry.wholeOf(p).Info.Emulated)
	if err != nil {
		opened.Close()
		note(ctx, key, err)
		return err
	}
	defer piv.Close()
	info := piv.Info()
	id := device.Identity{Serial: info.Serial, Firmware: info.Firmware, Holds: key.Holds}
	if info.Serial != 0 {
		id.ID = device.YubiKeyID(info.Serial)
	}
	if err := take(id, key); err != nil {
		note(ctx, key, err)
		return err
	}
	key.Problem, key.Cure, key.Card.PIV = "", "", true
	return req.piv(ctx, piv, p.registry.lent(p, *key))
}

// Others look at a card as well, when it is inserted and whenever its state changes, and have it for moments.
const (
	momentsGap  = 50 * time.Millisecond
	momentsTime = time.Second
)

// open opens a card, which somebody else may be looking at.
func (c card) open(ctx context.Context, reader string) (device.Card, error) {
	for enough := time.Now().Add(momentsTime); ; {
		opened, err := c.Bus.Open(ctx, reader)
		if !again(ctx, err, enough) {
			return opened, err
		}
	}
}

// again waits for a moment if a card was busy and it is not enough yet: a card that it took long to find busy is not had for
// moments.
func again(ctx context.Context, err error, enough time.Time) bool {
	if !errors.Is(err, device.ErrBusy) || time.Now().Add(momentsGap).After(enough) {
		return false
	}
	select {
	case <-time.After(momentsGap):
		return true
	case <-ctx.Done():
		return false
	}
}

// ErrForeign means that a card is of no make that the desk knows.
var ErrForeign = management.ErrNotYubiKey

// hopeless tells whether another look at a card would find the same.
func hopeless(err error) bool { return errors.Is(err, ErrForeign) }

// ErrNoCards means that the desk looks for no smart cards.
var ErrNoCards = errors.New("this desk looks for none")

// UsePIV lends the PIV application of the key named id to fn, exclusively: meanwhile nobody uses the key's OTP application. It
// ends when the card is gone or ctx ends. A card that was just plugged in is waited for. It fails with a *NoCardError if the
// key is inserted and shows no card.
func (r *Registry) UsePIV(ctx context.Context, id device.ID, fn func(context.Context, device.PIV, Key) error) error {
	p, err := r.seek(ctx, func() (*port, time.Time, error) { return r.findCard(id) })
	if err != nil {
		return err
	}
	return r.ask(id, p, request{ctx: ctx, piv: fn, result: make(chan error, 1)})
}

// NoCardError says that a key is inserted, and that no smart card of it is seen although cards are looked for.
type NoCardError struct {
	ID       device.ID
	Problems []string // of cards that might be its own, with their cures
}

func (e *NoCardError) Error() string {
	text := fmt.Sprintf("%s shows no smart card that the desk knows", e.ID)
	if cure := device.Makes[e.ID.Family()].CardCure; cure != "" {
		text = fmt.Sprintf("%s shows no smart card: %s", e.ID, cure)
	}
	if len(e.Problems) > 0 {
		text += " (" + strings.Join(e.Problems, "; ") + ")"
	}
	return text
}

// UnreachableError says that a key is inserted, and why its smart card is not seen if it has one.
type UnreachableError struct {
	ID      device.ID
	Problem string // of PC/SC, with its cure
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the smart card of %s cannot be reached: %s", e.ID, e.Problem)
}

// Unwrap lets it count as an unplugged device.
func (e *UnreachableError) Unwrap() error { return device.ErrGone }

// findCard returns the card of the key named id, or until when it may yet be seen.
func (r *Registry) findCard(id device.ID) (found *port, until time.Time, err error) {
	key, soon, err := r.findKey(id)
	if err != nil {
		return nil, soon, err
	}
	if hasForeignCard(key.key) {
		return nil, until, &NoCardError{ID: id}
	}
	problem := r.cardProblem()
	switch card := r.other(key); {
	case r.cards.Bus == nil:
		return nil, until, &device.CureError{Err: fmt.Errorf("no smart card of %s can be seen: %w", id, ErrNoCards), Cure: "say devices.pcsc = true in its configuration"}
	case key.isCard():
		found = key
	case card != nil && card.announced:
		found = card
	case problem != "":
		return nil, until, &UnreachableError{id, problem}
	}
	if found != nil && found.key.Info.Problem != "" { // nobody opens it
		return nil, until, &device.CureError{Err: errors.New(found.key.Problem), Cure: found.key.Cure}
	}
	if found != nil {
		return found, until, nil
	}
	none := &NoCardError{ID: id}
	until = key.plugged.Add(cardComes)
	if m, known := device.FindModel(key.key.Info.Vendor, key.key.Info.Product); known && !m.Has(device.CCID) {
		until = time.Time{}
	}
	for _, p := range r.ports {
		switch {
		case !p.isCard() || !mayBeOne(key, p):
		case !p.announced:
			until = time.Now().Add(newPatience)
		case p.key.ID == "":
			none.Problems = append(none.Problems, p.key.Trouble())
		}
	}
	return nil, until, none
}

// cardProblem is why no card is seen; empty if nothing is wrong.
func (r *Registry) cardProblem() string {
	if r.cards.Bus == nil {
		return ""
	}
	return r.problems[r.cards.Bus.Name()]
}
