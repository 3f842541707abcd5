package nitrokey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// ask sends a command and waits for its answer, again if it arrives damaged, or is lost and does no harm twice. It fails with a
// result if the device says that it has not carried it out.
func (s *Session) ask(ctx context.Context, c command, payload []byte) (data [dataSize]byte, err error) {
	for range sendTries {
		var r report
		if r, err = s.command(ctx, c, payload); err == nil {
			data, err = s.carryOut(ctx, &r)
		}
		clear(r[:])
		if !errors.Is(err, resultDamaged) && !(errors.Is(err, errUnheard) && c.harmless()) {
			return data, err
		}
	}
	if errors.Is(err, resultDamaged) {
		err = fmt.Errorf("%w: %v", device.ErrCorrupt, err)
	}
	return data, err
}

// command makes a command, when the device is ready for one. It is another one than the command before, also than one of another
// session: a Storage still shows the answer to that for a while.
func (s *Session) command(ctx context.Context, c command, payload []byte) (report, error) {
	if err := s.settle(ctx); err != nil {
		return report{}, err
	}
	for {
		s.mark++
		if r := newReport(c, payload, s.mark); r.crc() != s.shown {
			return r, nil
		}
	}
}

// carryOut sends a command once.
func (s *Session) carryOut(ctx context.Context, r *report) (data [dataSize]byte, err error) {
	a, err := s.exchange(ctx, r)
	if err != nil {
		return data, err
	}
	if res := a.result(); res != resultOK {
		return data, res
	}
	return [dataSize]byte(a.data()), nil
}

// exchange sends a command and waits for its answer.
func (s *Session) exchange(ctx context.Context, r *report) (answer, error) {
	s.ready = false
	if err := s.report.SetFeature(r[:]); err != nil {
		return answer{}, err
	}
	a, err := s.await(ctx, func(a *answer) error {
		switch {
		case a.busy():
			return errBusy
		case !a.sound():
			return device.ErrCorrupt
		case !a.to(r):
			return errUnheard
		case r.command().ofStorage() && (a.state() == storageBusy || a.state() == storageProgress):
			return errBusy
		}
		return nil
	})
	s.ready, s.shown = err == nil, r.crc()
	return a, err
}

// settle waits until a command of before is over, which somebody else may have sent: a Pro that is busy drops another one
// without a word.
func (s *Session) settle(ctx context.Context) error {
	if s.ready {
		return ctx.Err()
	}
	a, err := s.await(ctx, func(a *answer) error {
		if a.busy() {
			return errBusy
		}
		return nil
	})
	defer clear(a.report[:])
	s.ready, s.shown = err == nil, a.echo()
	return err
}

// await looks at the device until good has nothing against what it shows. It fails with what good said last if that takes too
// long.
func (s *Session) await(ctx context.Context, good func(*answer) error) (a answer, err error) {
	defer func() {
		if err != nil {
			clear(a.report[:])
		}
	}()
	began, wait := time.Now(), shortPoll
	for {
		if err := ctx.Err(); err != nil {
			return a, err
		}
		if err := s.report.GetFeature(a.report[:]); err != nil {
			return a, err
		}
		problem := good(&a)
		if problem == nil {
			return a, nil
		}
		limit := answerTimeout
		if errors.Is(problem, errUnheard) {
			limit = heardTimeout
		}
		if time.Since(began) > limit {
			return a, problem
		}
		if err := pause(ctx, wait); err != nil {
			return a, err
		}
		wait = min(2*wait, s.poll)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
