package devicetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/device/keyboard"
	"tokendesk/device/otpslot"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

var (
	seedOne = secret.New([]byte("12345678901234567890")) // RFC 4226, appendix D
	seedTwo = secret.New([]byte("98765432109876543210"))
	codeOne = secret.New([]byte{1, 2, 3, 4, 5, 6})
	codeTwo = secret.New([]byte{6, 5, 4, 3, 2, 1})
	none    secret.Secret
)

func (b *bench) program(s *otpslot.Slot, c device.HOTPConfig) {
	b.Helper()
	if err := s.Program(b.Context(), c); err != nil {
		b.Fatal(err)
	}
}

// captured waits for a code while the key is touched.
func (b *bench) captured(s *otpslot.Slot, long bool) (string, error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	type result struct {
		code string
		err  error
	}
	results := make(chan result, 1)
	go func() {
		code, err := s.Code(ctx)
		results <- result{code, err}
	}()
	if err := b.Touch(b.Context(), long); err != nil {
		cancel()
		<-results
		b.Fatal(err)
	}
	r := <-results
	return r.code, r.err
}

// expectCode touches slot 2 and expects a code.
func (b *bench) expectCode(s *otpslot.Slot, want, what string) {
	b.Helper()
	if got, err := b.captured(s, true); err != nil || got != want {
		b.Fatalf("%s: code %q, not %q, %v", what, got, want, err)
	}
}

func (b *bench) expectRejected(err error, what string) {
	b.Helper()
	if rejected, ok := errors.AsType[*device.RejectedError](err); !ok || len(rejected.Reasons) == 0 {
		b.Fatalf("%s: %v", what, err)
	}
}

func (b *bench) status(s *otpslot.Session) otpslot.Status {
	b.Helper()
	status, err := s.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return status
}

func identity(b *bench) {
	s, r := b.session()
	status := b.status(s)
	if status.Firmware != b.Firmware || status.Sequence != 0 || status.Configured(1) || status.Configured(2) {
		b.Fatalf("the status of an empty key is %+v", status)
	}
	if n, err := s.Serial(b.Context()); err != nil || n != b.Serial {
		b.Fatalf("serial %v, not %v, %v", n, b.Serial, err)
	}
	b.program(b.slot(s, 2), device.HOTPConfig{Seed: seedOne, Digits: 6})
	r.Close()
	s, _ = b.session() // which has not learned the serial yet
	for number, configured := range map[int]bool{1: false, 2: true} {
		state, err := b.slot(s, number).Describe(b.Context())
		want := device.State{Serial: b.Serial, Firmware: b.Firmware, Configured: configured}
		if err != nil || state != want {
			b.Fatalf("slot %d is %+v, not %+v, %v", number, state, want, err)
		}
	}
}

func programAndTouch(b *bench) {
	s, _ := b.session()
	for number, long := range map[int]bool{1: false, 2: true} {
		slot := b.slot(s, number)
		for _, c := range []device.HOTPConfig{
			{Seed: seedOne, Digits: 6, Enter: true},
			{Seed: seedTwo, Digits: 8},
			{Seed: seedOne, Digits: 8, TokenIdentifier: true, Enter: true, StartCounter: 16},
			{Seed: seedTwo, Digits: 6, TokenIdentifier: true, StartCounter: device.MaxStartCounter},
		} {
			b.program(slot, c)
			for n := range uint64(2) {
				want := hotpscan.Code(c.Seed, c.Digits, c.StartCounter+n)
				if got, err := b.captured(slot, long); err != nil || got != want {
					b.Fatalf("slot %d, %+v, touch %d: code %q, not %q, %v", number, c, n+1, got, want, err)
				}
			}
		}
	}
}

// typed touches the key and returns all that it types, which ends with a silence.
func (b *bench) typed(r device.Report, long bool) string {
	b.Helper()
	const silence = 300 * time.Millisecond
	type result struct {
		text string
		err  error
	}
	results := make(chan result, 1)
	go func() {
		var d keyboard.Decoder
		var text string
		p := make([]byte, keyboard.ReportSize)
		for wait := patience; ; wait = silence {
			n, err := r.ReadInput(p, wait)
			if n == 0 || err != nil {
				results <- result{text, err}
				return
			}
			text += d.Feed(p[:n])
		}
	}()
	err := b.Touch(b.Context(), long)
	got := <-results
	if err := errors.Join(err, got.err); err != nil {
		b.Fatal(err)
	}
	return got.text
}

func typedText(b *bench) {
	s, r := b.session()
	two := b.slot(s, 2)
	for end, enter := range map[string]bool{"": false, "\n": true} {
		for start, identifier := range map[string]bool{"": false, fmt.Sprintf("ubhe%08d", b.Serial): true} {
			b.program(two, device.HOTPConfig{Seed: seedOne, Digits: 8, TokenIdentifier: identifier, Enter: enter})
			if got, want := b.typed(r, true), start+hotpscan.Code(seedOne, 8, 0)+end; got != want {
				b.Errorf("%q was typed, not %q", got, want)
			}
		}
	}
}

func seedLengths(b *bench) {
	s, _ := b.session()
	two := b.slot(s, 2)
	for _, n := range []int{1, 15, 16, 17, 19, 20} {
		seed := secret.Random(n)
		b.program(two, device.HOTPConfig{Seed: seed, Digits: 8, Enter: true})
		b.expectCode(two, hotpscan.Code(seed, 8, 0), fmt.Sprintf("a seed of %d bytes", n))
	}
	for _, n := range []int{0, 21} {
		if err := two.Program(b.Context(), device.HOTPConfig{Seed: secret.Random(n), Digits: 8}); err == nil {
			b.Errorf("a seed of %d bytes was taken", n)
		}
	}
}

func accessCode(b *bench) {
	s, r := b.session()
	two := b.slot(s, 2)
	config := func(current, next secret.Secret) device.HOTPConfig {
		return device.HOTPConfig{Seed: seedOne, Digits: 6, Enter: true, CurrentAccessCode: current, NewAccessCode: next}
	}
	b.program(two, config(none, codeOne))
	b.expectRejected(two.Program(b.Context(), config(none, none)), "a rewrite without the access code")
	b.expectRejected(two.Program(b.Context(), config(codeTwo, codeTwo)), "a rewrite with another access code")
	b.expectRejected(two.Delete(b.Context(), codeTwo), "a deletion with another access code")
	b.expectCode(two, hotpscan.Code(seedOne, 6, 0), "after refused writes")
	b.program(b.slot(s, 1), config(none, none)) // the other slot is not protected
	r.Close()
	b.pull()
	b.insert()
	s, _ = b.session()
	two = b.slot(s, 2)
	b.expectRejected(two.Program(b.Context(), config(none, none)), "a rewrite after pulling")
	b.program(two, config(codeOne, codeTwo))
	b.expectRejected(two.Program(b.Context(), config(codeOne, codeOne)), "a rewrite with the access code of before")
	b.program(two, config(codeTwo, none)) // leaving out the new one removes the protection
	b.program(two, config(none, none))
	b.program(two, config(codeOne, none)) // where there is none, any will do
}

func deletion(b *bench) {
	s, _ := b.session()
	one, two := b.slot(s, 1), b.slot(s, 2)
	b.program(one, device.HOTPConfig{Seed: seedOne, Digits: 6, Enter: true})
	b.program(two, device.HOTPConfig{Seed: seedTwo, Digits: 6, Enter: true, NewAccessCode: codeOne})
	b.expectRejected(two.Delete(b.Context(), none), "a deletion without the access code")
	for range 2 { // what is not there cannot be protected either
		if err := two.Delete(b.Context(), codeOne); err != nil {
			b.Fatal(err)
		}
		if status := b.status(s); !status.Configured(1) || status.Configured(2) {
			b.Fatalf("after the deletion of slot 2: %+v", status)
		}
	}
	if got, err := b.captured(one, false); err != nil || got != hotpscan.Code(seedOne, 6, 0) {
		b.Fatalf("slot 1 after the deletion of slot 2: %q, %v", got, err)
	}
	for range 2 {
		if err := one.Delete(b.Context(), none); err != nil {
			b.Fatal(err)
		}
	}
	if status := b.status(s); status.Configured(1) || status.Configured(2) {
		b.Fatalf("after the deletion of both: %+v", status)
	}
	b.program(two, device.HOTPConfig{Seed: seedTwo, Digits: 6}) // its access code went with it
}

func sequenceRules(b *bench) {
	s, _ := b.session()
	one, two := b.slot(s, 1), b.slot(s, 2)
	plain := device.HOTPConfig{Seed: seedOne, Digits: 6}
	locked := plain
	locked.NewAccessCode = codeOne
	expect := func(want byte, what string, err error) {
		b.Helper()
		if got := b.status(s).Sequence; got != want || err != nil {
			b.Fatalf("%s: the sequence is %d, not %d, %v", what, got, want, err)
		}
	}
	ctx := b.Context()
	expect(0, "two empty slots", nil)
	expect(1, "the first write", one.Program(ctx, plain))
	expect(2, "a second", two.Program(ctx, locked))
	b.expectRejected(two.Program(ctx, plain), "a write without the access code")
	expect(2, "a refused write", nil)
	expect(3, "one slot deleted", one.Delete(ctx, none))
	expect(0, "both deleted", two.Delete(ctx, codeOne))
	expect(1, "a new beginning", two.Program(ctx, plain))
}

func codesSurvive(b *bench) {
	s, r := b.session()
	two := b.slot(s, 2)
	b.program(two, device.HOTPConfig{Seed: seedOne, Digits: 8, Enter: true, TokenIdentifier: true})
	for n := range uint64(3) {
		b.expectCode(two, hotpscan.Code(seedOne, 8, n), "a code before or after pulling")
		r.Close()
		b.pull()
		b.insert()
		s, r = b.session()
		two = b.slot(s, 2)
	}
}

// A touch cannot say whose code it types: it is another slot's code, or none. The next touch is in order.
func otherSlot(b *bench) {
	s, _ := b.session()
	one, two := b.slot(s, 1), b.slot(s, 2)
	b.program(one, device.HOTPConfig{Seed: seedOne, Digits: 6, Enter: true})
	b.program(two, device.HOTPConfig{Seed: seedTwo, Digits: 8, Enter: true, TokenIdentifier: true})
	want := hotpscan.Code(seedOne, 6, 0)
	if got, err := b.captured(two, false); !errors.Is(err, device.ErrNotACode) && (err != nil || got != want) {
		b.Fatalf("the other slot typed %q, %v", got, err)
	}
	b.expectCode(two, hotpscan.Code(seedTwo, 8, 0), "the touch after that")
}

func noTouch(b *bench) {
	s, _ := b.session()
	two := b.slot(s, 2)
	b.program(two, device.HOTPConfig{Seed: seedOne, Digits: 6, Enter: true})
	ctx, cancel := context.WithTimeout(b.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := two.Code(ctx); !errors.Is(err, device.ErrNoTouch) {
		b.Fatal(err)
	}
	if d := time.Since(start); d < 50*time.Millisecond || d > 5*time.Second {
		b.Fatalf("it waited %v", d)
	}
	b.expectCode(two, hotpscan.Code(seedOne, 6, 0), "a touch after that")
}

func cancelledTouch(b *bench) {
	s, _ := b.session()
	two := b.slot(s, 2)
	b.program(two, device.HOTPConfig{Seed: seedOne, Digits: 6, Enter: true})
	ctx, cancel := context.WithCancel(b.Context())
	result := make(chan error, 1)
	go func() { _, err := two.Code(ctx); result <- err }()
	start := time.Now()
	cancel()
	err := <-result
	if d := time.Since(start); d > 5*time.Second {
		b.Fatalf("it ended %v late", d)
	}
	if !errors.Is(err, context.Canceled) || errors.Is(err, device.ErrNoTouch) {
		b.Fatal(err)
	}
	b.expectCode(two, hotpscan.Code(seedOne, 6, 0), "a touch after that")
}
