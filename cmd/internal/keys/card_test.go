package keys_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/pcsc"
	"tokendesk/device/pcsctest"
	"tokendesk/device/pivcard"
)

// rig is the pcscd of these tests. libpcsclite asks for its socket once in a process.
var rig *pcsctest.Rig

func TestMain(m *testing.M) { os.Exit(withRig(m)) }

func withRig(m *testing.M) int {
	dir, err := os.MkdirTemp("", "td")
	if err == nil {
		defer os.RemoveAll(dir)
		rig, err = pcsctest.Start(dir, 2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Setenv("PCSCLITE_CSOCK_NAME", rig.Socket)
	code := m.Run()
	if err := rig.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// newCardKey is a key whose smart card goes into reader n.
func newCardKey(serial device.Serial, n int, absent bool) *emulator.YubiKey {
	return emulator.New(emulator.Options{
		Serial: serial, Firmware: firmware, Absent: absent, Timing: &emulator.Timing{}, VPCD: fmt.Sprintf("127.0.0.1:%d", rig.Ports[n]),
	})
}

func cards(bus device.CardBus) keys.Cards {
	return keys.Cards{Bus: bus, PIV: func(ctx context.Context, card device.Card, emulated bool) (keys.PIVCard, error) {
		return pivcard.New(ctx, card, emulated)
	}}
}

var emulatedCards = cards(pcsc.Bus{Emulated: []string{pcsctest.ReaderName}})

// until hears events up to one that is so.
func (b *bench) until(from <-chan keys.Event, what string, so func(keys.Event) bool) keys.Event {
	b.t.Helper()
	for {
		select {
		case e := <-from:
			if so(e) {
				return e
			}
			b.t.Logf("until %s: %s %+v", what, e.Kind, e.Key)
		case <-time.After(patience):
			b.t.Fatalf("never %s: %+v, %v", what, b.List(), b.BusProblems())
		}
	}
}

func whole(e keys.Event) bool {
	return e.Kind != keys.Removed && e.Key.ID == anna && e.Key.HID() && e.Key.Card.PIV && e.Key.Problem == ""
}

// describe asks the card of a key whose it is.
func (b *bench) describe(ctx context.Context, id device.ID) error {
	return b.UsePIV(ctx, id, func(ctx context.Context, p device.PIV, k keys.Key) error {
		state, err := p.Describe(ctx)
		if err != nil {
			return err
		}
		if k.ID != id || device.YubiKeyID(state.Serial) != id || !k.Info.Emulated {
			b.t.Errorf("lent %+v, which says %+v, instead of %s", k, state, id)
		}
		return nil
	})
}

// Rule D7.
func TestCardAndKeyboardAreOneKey(t *testing.T) {
	b := newCardBench(t, emulatedCards)
	key := newCardKey(10000001, 0, true)
	b.serve(key)
	heard := b.events()
	key.Insert()
	if k := b.arrives(heard, anna).Key; !k.HID() || k.Card.Bus != "" { // it is known before the card is touched
		t.Errorf("%+v", k)
	}
	k := b.next(heard, keys.Changed, anna).Key
	want := keys.CardFace{Bus: "pcsc", Reader: rig.Readers[0], Emulated: true, PIV: true}
	if k.Card != want || !k.HID() || k.Bus != "emulator" || k.Problem != "" {
		t.Errorf("%+v", k)
	}
	if list := b.List(); len(list) != 1 || !reflect.DeepEqual(list[0], k) {
		t.Errorf("%+v", list)
	}
	if err := b.describe(t.Context(), anna); err != nil {
		t.Error(err)
	}
	if err := b.program(t.Context(), anna); err != nil {
		t.Error(err)
	}
	b.until(heard, "programmed", func(e keys.Event) bool { return configured(e.Key)[1] && e.Key.Card == want })
	key.Remove()
	b.until(heard, "removed", func(e keys.Event) bool { return e.Kind == keys.Removed && e.Key.ID == anna })
	if len(b.List()) != 0 {
		t.Errorf("%+v", b.List())
	}
}

func TestFacesOfOneKeyTakeTurns(t *testing.T) {
	b := newCardBench(t, emulatedCards)
	other := newKey(10000002, false)
	b.serve(newCardKey(10000001, 0, false), other)
	heard := b.events()
	b.until(heard, "whole", whole)

	inside, leave, done := make(chan bool, 1), make(chan bool), make(chan error, 1)
	within := func() error {
		inside <- true
		<-leave
		return nil
	}
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	refused := func(err error) {
		t.Helper()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "in use by other work") {
			t.Errorf("both faces were used at a time: %v", err)
		}
	}
	go func() {
		done <- b.UsePIV(context.Background(), anna, func(context.Context, device.PIV, keys.Key) error { return within() })
	}()
	await(t, inside)
	refused(b.program(short(), anna))
	refused(b.describe(short(), anna))
	if err := b.program(t.Context(), bert); err != nil { // another key is not concerned
		t.Error(err)
	}
	leave <- true
	if err := await(t, done); err != nil {
		t.Error(err)
	}
	go func() {
		done <- b.Use(context.Background(), device.SlotToken(anna, 2), func(context.Context, device.HOTPToken, keys.Key) error { return within() })
	}()
	await(t, inside)
	refused(b.describe(short(), anna))
	waited := make(chan error, 1)
	go func() { waited <- b.describe(context.Background(), anna) }()
	leave <- true
	if err := errors.Join(await(t, done), await(t, waited)); err != nil {
		t.Error(err)
	}
}

// A card that may be of a key which is in use is not opened to find that out.
func TestACardIsNotIdentifiedWhileItsKeyMayBeInUse(t *testing.T) {
	b := newCardBench(t, emulatedCards)
	b.serve(newKey(10000002, false)) // nobody knows yet that it has no card
	heard := b.events()
	b.arrives(heard, bert)
	key := newCardKey(10000001, 0, true)
	stop := serveCard(t, key)
	defer stop()
	err := b.Use(t.Context(), device.SlotToken(bert, 2), func(ctx context.Context, _ device.HOTPToken, _ keys.Key) error {
		key.Insert()
		if err := awaitCard(ctx, rig.Readers[0]); err != nil {
			return err
		}
		select {
		case e := <-heard:
			t.Errorf("it was: %+v", e)
		case <-time.After(500 * time.Millisecond): // longer than a card is left alone at first
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if k := b.next(heard, keys.Added, anna).Key; k.HID() || k.Card.Reader != rig.Readers[0] || !k.Card.PIV || k.Problem != "" || !k.Info.Emulated {
		t.Errorf("%+v", k)
	}
}

// serveCard serves the card of a key, and nothing else of it.
func serveCard(t *testing.T, key *emulator.YubiKey) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- key.ServeCard(ctx) }()
	return func() {
		cancel()
		if err := await(t, done); err != nil {
			t.Error(err)
		}
	}
}

// awaitCard waits until pcscd has seen a card. The bus of these tests has it then, or will at once.
func awaitCard(ctx context.Context, reader string) error {
	for {
		card, err := pcsc.Bus{}.Open(ctx, reader)
		if err == nil {
			return card.Close()
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

// awaitEmpty waits until pcscd has seen that the cards of the test before are gone.
func awaitEmpty(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, reader := range rig.Readers {
		for {
			card, err := pcsc.Bus{}.Open(ctx, reader)
			if errors.Is(err, device.ErrGone) {
				break
			}
			if err == nil {
				err = card.Close()
			}
			if ctx.Err() != nil {
				t.Fatalf("%s still has a card: %v", reader, err)
			}
		}
	}
}

func TestAKeyThatIsOnlyACard(t *testing.T) {
	b := newCardBench(t, emulatedCards)
	key := newCardKey(10000001, 1, false)
	stop := serveCard(t, key)
	heard := b.events()
	if k := b.arrives(heard, anna).Key; k.HID() || k.Bus != "pcsc" || k.Info.Path != rig.Readers[1] || k.Firmware != firmware {
		t.Errorf("%+v", k)
	}
	if err := b.describe(t.Context(), anna); err != nil {
		t.Error(err)
	}
	if !b.Inserted(anna) {
		t.Error("it is not inserted")
	}
	if err := b.program(t.Context(), anna); err != nil {
		t.Error(err)
	}
	b.until(heard, "programmed through its card", func(e keys.Event) bool { return configured(e.Key)[1] })
	stop()
	b.next(heard, keys.Removed, anna)
	var gone *keys.AbsentError
	if err := b.describe(t.Context(), anna); !errors.As(err, &gone) || gone.Card {
		t.Errorf("%v", err)
	}
}

func TestTwoCardsWithOneSerialAreBothRefused(t *testing.T) {
	b := newCardBench(t, emulatedCards)
	first, second := newCardKey(10000001, 0, false), newCardKey(10000001, 1, true)
	defer serveCard(t, first)()
	defer serveCard(t, second)()
	heard := b.events()
	b.arrives(heard, anna)
	second.Insert()
	names := func(k keys.Key) bool {
		return strings.Contains(k.Problem, rig.Readers[0]) && strings.Contains(k.Problem, rig.Readers[1])
	}
	if k := b.next(heard, keys.Added, anna).Key; k.Card.Reader != rig.Readers[1] || !names(k) {
		t.Errorf("the second one: %+v", k)
	}
	if k := b.next(heard, keys.Changed, anna).Key; k.Card.Reader != rig.Readers[0] || !names(k) {
		t.Errorf("the first one: %+v", k)
	}
	var twins *keys.TwinsError
	if err := b.describe(t.Context(), anna); !errors.As(err, &twins) {
		t.Errorf("%v", err)
	}
	first.Remove()
	b.next(heard, keys.Removed, anna)
	b.next(heard, keys.Changed, anna)
	if err := b.describe(t.Context(), anna); err != nil {
		t.Error(err)
	}
}

func TestPulledCardEndsItsUse(t *testing.T) {
	b := newCardBench(t, emulatedCards)
	key := newCardKey(10000001, 0, false)
	b.serve(key)
	heard := b.events()
	b.until(heard, "whole", whole)
	err := b.UsePIV(t.Context(), anna, func(ctx context.Context, p device.PIV, _ keys.Key) error {
		key.Remove()
		await(t, ctx.Done())
		_, err := p.Describe(ctx)
		return err
	})
	if !errors.Is(err, device.ErrGone) {
		t.Errorf("%v", err)
	}
	b.until(heard, "removed", func(e keys.Event) bool { return e.Kind == keys.Removed })
	key.Insert()
	b.until(heard, "whole again", whole)
	if err := b.describe(t.Context(), anna); err != nil {
		t.Error(err)
	}
}

// A key without a card is told from one whose card cannot be seen, because one that is passed on has to be erased.
func TestNoCardIsNotAnAbsentService(t *testing.T) {
	b := newCardBench(t, emulatedCards)
	b.serve(newKey(10000002, false))
	heard := b.events()
	b.arrives(heard, bert)
	var none *keys.NoCardError
	if err := b.describe(t.Context(), bert); !errors.As(err, &none) || none.ID != bert {
		t.Errorf("%v", err)
	}
	if err := rig.Stop(); err != nil {
		t.Fatal(err)
	}
	b.hears("bus lost", "pcsc")
	err := b.describe(t.Context(), bert)
	var unreachable *keys.UnreachableError
	if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "pcscd") {
		t.Errorf("%v", err)
	}
	if err := rig.Restart(); err != nil {
		t.Fatal(err)
	}
	b.hears("bus is back", "pcsc")
	key := newCardKey(10000001, 0, false)
	defer serveCard(t, key)()
	b.next(heard, keys.Added, anna)
}

// hears waits for a line of the log after which a bus has a problem, or none any more.
func (b *bench) hears(line, bus string) {
	b.t.Helper()
	for {
		got := await(b.t, b.news)
		if got == line && (b.BusProblems()[bus] != "") == (line == "bus lost") {
			return
		}
	}
}
