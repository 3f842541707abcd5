package vhci

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

func TestControl(t *testing.T) {
	k := plugIn(t, newGadget())
	if status := k.controlOut(0x21, writeStored, 0x0300, 0, []byte("a feature report")); status != 0 {
		t.Fatal(status)
	}
	for _, c := range []struct {
		length uint16
		want   string
	}{{100, "a feature report"}, {16, "a feature report"}, {8, "a featur"}, {0, ""}} {
		if got, status := k.controlIn(0xA1, readStored, 0x0300, 0, c.length); got != c.want || status != 0 {
			t.Fatalf("%d bytes: %q, %d", c.length, got, status)
		}
	}
	// A request without data may come as a transfer of either direction.
	if status := k.controlOut(0x80, readStored, 0, 0, nil); status != 0 {
		t.Fatal(status)
	}
	if _, status := k.controlIn(0x80, 6, 0x0600, 0, 10); status != statusStalled {
		t.Fatalf("refused: %d", status)
	}
	if _, status := k.controlIn(0x80, vanish, 0, 0, 10); status != statusGone {
		t.Fatalf("gone: %d", status)
	}
	if status := k.controlOut(0x00, vanish, 0, 0, nil); status != statusGone {
		t.Fatalf("gone: %d", status)
	}
	// Room and request may differ; the smaller counts.
	n := k.submit(true, 0, 3, Setup{0xA1, readStored, 0, 0, 8}, nil)
	k.expect(true, returned{returnSubmit, n, 0, "a f"})
	n = k.submit(true, 0, 1<<31-1, Setup{0xA1, readStored, 0, 0, 4}, nil)
	k.expect(true, returned{returnSubmit, n, 0, "a fe"})
	if err := k.pull(); err != nil {
		t.Fatal(err)
	}
}

func TestInterrupt(t *testing.T) {
	g := newGadget()
	k := plugIn(t, g)
	first, second := k.ask(1, 8), k.ask(1, 8)
	g.packets <- []byte("one")
	g.packets <- []byte("two")
	k.expect(true, returned{returnSubmit, first, 0, "one"})
	k.expect(true, returned{returnSubmit, second, 0, "two"})
	g.packets <- []byte("three") // it waits until somebody asks
	k.expect(true, returned{returnSubmit, k.ask(1, 8), 0, "three"})
	g.packets <- []byte("too long")
	k.expect(true, returned{returnSubmit, k.ask(1, 7), statusOverflow, ""})
	g.packets <- nil
	k.expect(true, returned{returnSubmit, k.ask(1, 8), 0, ""})
	for range 2 {
		k.expect(true, returned{returnSubmit, k.ask(3, 8), statusStalled, ""})
	}
	// A control transfer is not held up by an interrupt transfer that waits.
	k.ask(1, 8)
	if _, status := k.controlIn(0x80, 6, 0, 0, 8); status != statusStalled {
		t.Fatal(status)
	}
	if err := k.pull(); err != nil {
		t.Fatal(err)
	}
}

func TestOtherEndpoints(t *testing.T) {
	k := plugIn(t, newGadget())
	n := k.submit(false, 2, 0, Setup{}, make([]byte, maxOut))
	k.expect(false, returned{returnSubmit, n, statusStalled, ""})
	// An endpoint whose device is gone is silent; its transfers can be withdrawn.
	silent := k.ask(15, 8)
	n = k.unlink(silent)
	k.expect(false, returned{returnUnlink, n, statusWithdrawn, ""})
	if err := k.pull(); err != nil {
		t.Fatal(err)
	}
}

func TestBulkOut(t *testing.T) {
	k := plugIn(t, newGadget())
	k.expect(false, returned{returnSubmit, k.submit(false, 3, 0, Setup{}, []byte("a message")), 0, ""})
	if got, status := k.controlIn(0xA1, readStored, 0, 0, 100); got != "a message" || status != 0 {
		t.Fatalf("the device has got %q, %d", got, status)
	}
	k.expect(false, returned{returnSubmit, k.submit(false, 4, 0, Setup{}, nil), statusGone, ""})
	if err := k.pull(); err != nil {
		t.Fatal(err)
	}
}

func TestUnlink(t *testing.T) {
	g := newGadget()
	k := plugIn(t, g)
	// Withdrawn while the device has nothing: no answer but the one to the withdrawal.
	first, second := k.ask(1, 8), k.ask(1, 8)
	<-g.asked
	n := k.unlink(first)
	k.expect(false, returned{returnUnlink, n, statusWithdrawn, ""})
	g.packets <- []byte("one")
	k.expect(true, returned{returnSubmit, second, 0, "one"})
	// Withdrawn after it was answered.
	n = k.unlink(second)
	k.expect(false, returned{returnUnlink, n, 0, ""})
	// All are withdrawn; what the device says then waits for the next.
	third := k.ask(1, 8)
	<-g.asked
	n = k.unlink(third)
	k.expect(false, returned{returnUnlink, n, statusWithdrawn, ""})
	g.packets <- []byte("two")
	g.packets <- []byte("three")
	for len(g.packets) > 1 { // until the server has one in hand
		runtime.Gosched()
	}
	k.expect(true, returned{returnSubmit, k.ask(1, 8), 0, "two"})
	k.expect(true, returned{returnSubmit, k.ask(1, 8), 0, "three"})
	// Of what was never sent, or is a control transfer.
	n = k.unlink(4711)
	k.expect(false, returned{returnUnlink, n, 0, ""})
	n = k.submit(false, 0, 0, Setup{Request: writeStored}, nil)
	k.expect(false, returned{returnSubmit, n, 0, ""})
	n = k.unlink(n)
	k.expect(false, returned{returnUnlink, n, 0, ""})
	if err := k.pull(); err != nil {
		t.Fatal(err)
	}
}

// TestUnlinkRaces withdraws transfers while packets come. Whatever comes first: every packet arrives once
// and in order, and every transfer is either answered or withdrawn.
func TestUnlinkRaces(t *testing.T) {
	const count = 1000
	g := newGadget()
	k := plugIn(t, g)
	go func() {
		for i := range count {
			g.packets <- fmt.Append(nil, i)
		}
	}()
	withdrawn := 0
	for next := 0; next < count; {
		asked := k.ask(1, 8)
		if rand.IntN(2) == 0 {
			k.expect(true, returned{returnSubmit, asked, 0, fmt.Sprint(next)})
			next++
			continue
		}
		written := make(chan uint32)
		go func() { written <- k.unlink(asked) }() // an answer may have to be read first
		switch r := k.receive(true); r.command {
		case returnSubmit:
			if want := (returned{returnSubmit, asked, 0, fmt.Sprint(next)}); r != want {
				t.Fatalf("answered %+v, not %+v", r, want)
			}
			next++
			k.expect(true, returned{returnUnlink, asked + 1, 0, ""})
		default:
			if want := (returned{returnUnlink, asked + 1, statusWithdrawn, ""}); r != want {
				t.Fatalf("answered %+v, not %+v", r, want)
			}
			withdrawn++
		}
		<-written
	}
	t.Logf("%d transfers were withdrawn in time", withdrawn)
	if err := k.pull(); err != nil {
		t.Fatal(err)
	}
}

func TestManyTransfersWait(t *testing.T) {
	k := plugIn(t, newGadget())
	for range maxWaiting {
		k.ask(1, 8)
	}
	k.expect(true, returned{returnSubmit, k.ask(1, 8), statusNoRoom, ""})
	n := k.unlink(1)
	k.expect(false, returned{returnUnlink, n, statusWithdrawn, ""})
	if err := k.pull(); err != nil {
		t.Fatal(err)
	}
}

func TestNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		want  string
	}{
		"a command":        {words(0x80000001), "command 2147483649"},
		"zeros":            {words(), "command 0"},
		"an answer":        {words(returnSubmit, 1), "command 3"},
		"a direction":      {words(commandSubmit, 1, 1, 2), "direction 2"},
		"an endpoint":      {words(commandSubmit, 1, 1, 1, 16), "endpoint 16"},
		"a large endpoint": {words(commandSubmit, 1, 1, 1, 0x101), "endpoint 257"},
		"a large transfer": {words(commandSubmit, 1, 1, 0, 0, 0, 1<<31), "2147483648 bytes"},
		"isochronous":      {words(commandSubmit, 1, 1, 1, 1, 0, 8, 0, 4), "isochronous"},
	} {
		k := plugIn(t, newGadget())
		k.send(c.bytes)
		if err := <-k.ended; err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := k.c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: the connection stays open", name)
		}
	}
	for name, cut := range map[string][]byte{
		"half a header": words(commandSubmit)[:20],
		"half the data": append(words(commandSubmit, 1, 1, 0, 0, 0, 8), "four"...),
	} {
		k := plugIn(t, newGadget())
		k.send(cut)
		if err := k.pull(); err == nil {
			t.Errorf("%s was no error", name)
		}
	}
	// What is neither 0 nor a count of packets is no nonsense.
	k := plugIn(t, newGadget())
	k.send(words(commandSubmit, 1, 1, 1, 3, 0, 8, 0, notInPackets))
	k.expect(true, returned{returnSubmit, 1, statusStalled, ""})
}
