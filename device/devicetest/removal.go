package devicetest

import (
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
	"tokendesk/sync/hotpscan"
)

// expectGone checks that every method of r says that the key is gone. The bus may have noticed a little
// earlier than the opening, so calls may go well for a moment; the first that fails must say why.
func (b *bench) expectGone(r device.Report) {
	b.Helper()
	for name, call := range map[string]func() error{
		"SetFeature": func() error { return r.SetFeature(reset()) },
		"GetFeature": func() error { return r.GetFeature(make([]byte, device.ReportSize)) },
		"ReadInput":  func() error { _, err := r.ReadInput(make([]byte, 8), time.Millisecond); return err },
	} {
		var err error
		if late := await(func() bool { err = call(); return err != nil }); late != nil {
			b.Errorf("%s still works", name)
		} else if !errors.Is(err, device.ErrGone) {
			b.Errorf("%s: %v", name, err)
		}
	}
}

func pulledDuringRead(b *bench) {
	r := b.open()
	reading, result := make(chan struct{}), make(chan error, 1)
	go func() {
		p := make([]byte, 8)
		close(reading)
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if n, err := r.ReadInput(p, patience); err != nil || n != 0 {
				result <- err
				return
			}
		}
		result <- device.ErrTimeout
	}()
	<-reading
	start := time.Now()
	b.pull()
	if err := <-result; !errors.Is(err, device.ErrGone) {
		b.Fatalf("the read ended with %v", err)
	}
	if d := time.Since(start); d > patience/2 {
		b.Errorf("the read went on for %v", d)
	}
	b.expectGone(r)
}

// Also after the key is plugged in again the old opening is dead, and a new one works.
func pulledWhileOpen(b *bench) {
	r := b.open()
	b.pull()
	b.expectGone(r)
	b.insert()
	again := b.open()
	b.expectGone(r)
	for range 2 {
		if err := r.Close(); err != nil && !errors.Is(err, device.ErrGone) {
			b.Errorf("closing what is gone: %v", err)
		}
	}
	if n, err := otpslot.New(again).Serial(b.Context()); err != nil || n != b.Serial {
		b.Fatalf("after it was plugged in again: %v, %v", n, err)
	}
}

// pulling is a report whose key is pulled right before a write.
type pulling struct {
	device.Report
	pull  func()
	after int // how many writes go well before that
}

func (r *pulling) SetFeature(p []byte) error {
	if r.after == 0 {
		r.pull()
	}
	r.after--
	return r.Report.SetFeature(p)
}

// A frame that was cut off changes nothing, and the next one is not disturbed by it.
func pulledBetweenChunks(b *bench) {
	s, r := b.session()
	old := device.HOTPConfig{Seed: seedOne, Digits: 8, Enter: true, NewAccessCode: codeOne}
	b.program(b.slot(s, 2), old)
	counter := uint64(0)
	for _, after := range []int{0, 1, 4, 8} {
		cut := otpslot.New(&pulling{r, b.pull, after})
		err := b.slot(cut, 2).Program(b.Context(), device.HOTPConfig{Seed: seedTwo, Digits: 6, CurrentAccessCode: codeOne})
		if !errors.Is(err, device.ErrGone) {
			b.Fatalf("pulled after %d chunks: %v", after, err)
		}
		b.expectGone(r)
		r.Close()
		b.insert()
		s, r = b.session()
		b.expectCode(b.slot(s, 2), hotpscan.Code(seedOne, 8, counter), fmt.Sprintf("after a cut behind %d chunks", after))
		counter++
	}
	b.program(b.slot(s, 2), device.HOTPConfig{Seed: seedTwo, Digits: 6, CurrentAccessCode: codeOne})
	b.expectCode(b.slot(s, 2), hotpscan.Code(seedTwo, 6, 0), "after a whole write")
}
