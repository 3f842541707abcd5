package otpslot_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/otpslot"
	"tokendesk/vault/secret"
)

func TestPulledAtEachChunk(t *testing.T) {
	for chunk := range 10 {
		bubble(t, fmt.Sprint(chunk), func(t *testing.T) {
			k, two, r := replacing(t)
			fault(t, k, emulator.FaultUnplugAtChunk, chunk)
			if err := two.Program(t.Context(), newConfig()); !errors.Is(err, device.ErrGone) {
				t.Fatalf("pulled in the middle: %v", err)
			}
			r.Close()
			k.Insert()
			expectOld(t, k)
		})
	}
}

func TestPulledAfterWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, two, r := replacing(t)
		fault(t, k, emulator.FaultUnplugAfterWrite, 0)
		if err := two.Program(t.Context(), newConfig()); !errors.Is(err, device.ErrGone) {
			t.Fatalf("pulled before the status could be read: %v", err)
		}
		r.Close()
		k.Insert()
		expectNew(t, k)
	})
}

// The emulator's last chunk carries CRC and command, so a write before that must not change anything; the
// wait that follows it ends in a complete write.
func TestCancelledBeforeEachWrite(t *testing.T) {
	const writes = 9 // newConfig has one chunk of zeroes that is left out
	for n := 1; n <= writes+1; n++ {
		bubble(t, fmt.Sprint(n), func(t *testing.T) {
			k, two, r := replacing(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if n > writes {
				r.before = func(write int) {
					if write == writes {
						time.AfterFunc(20*time.Millisecond, cancel) // the write takes 60
					}
				}
			} else {
				r.before = func(write int) {
					if write == n-1 {
						cancel()
					}
				}
				if n == 1 {
					cancel()
				}
			}
			start := time.Now()
			if err := two.Program(ctx, newConfig()); !errors.Is(err, context.Canceled) {
				t.Fatalf("cancelled: %v", err)
			}
			if d := time.Since(start); d > 100*time.Millisecond {
				t.Fatalf("it went on for %v", d)
			}
			if want := min(n-1, writes); r.writes != want {
				t.Fatalf("%d writes, not %d", r.writes, want)
			}
			if n > writes {
				r.Close() // takes 50 ms, so that the write is complete
				expectNew(t, k)
				return
			}
			r.Close()
			expectOld(t, k)
		})
	}
}

func TestSessionGoesOnAfterCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, two, r := replacing(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r.before = func(write int) {
			if write == 4 {
				cancel()
			}
		}
		if err := two.Program(ctx, newConfig()); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := two.Program(t.Context(), newConfig()); err != nil {
			t.Fatalf("the half frame is in the way: %v", err)
		}
		r.Close()
		expectNew(t, k)
	})
}

// expectStuck checks what becomes of op while the write flag stays.
func expectStuck(t *testing.T, name string, op func() error) {
	t.Helper()
	start := time.Now()
	err := op()
	if !errors.Is(err, device.ErrTimeout) || !strings.Contains(err.Error(), "pull the key, insert it again") {
		t.Errorf("%s: %v", name, err)
	}
	if d := time.Since(start); d > 1500*time.Millisecond {
		t.Errorf("%s took %v", name, d)
	}
}

func TestStuckFlag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(fw5)
		s, _ := open(t, k)
		one := slot(t, s, 1)
		fault(t, k, emulator.FaultStuckFlag, 0)
		expectStuck(t, "status", func() error { _, err := s.Status(t.Context()); return err })
		expectStuck(t, "serial", func() error { _, err := s.Serial(t.Context()); return err })
		expectStuck(t, "describe", func() error { _, err := one.Describe(t.Context()); return err })
		expectStuck(t, "program", func() error { return one.Program(t.Context(), newConfig()) })
		expectStuck(t, "delete", func() error { return one.Delete(t.Context(), secret.Secret{}) })
		fault(t, k, emulator.FaultClear, 0)
		if err := one.Program(t.Context(), newConfig()); err != nil {
			t.Fatalf("after it has cleared: %v", err)
		}
	})
}

func TestStuckFlagInTheMiddle(t *testing.T) {
	for _, at := range []int{1, 2, 9} {
		bubble(t, fmt.Sprint(at), func(t *testing.T) {
			k, two, r := replacing(t)
			r.before = func(write int) {
				if write == at {
					fault(t, k, emulator.FaultStuckFlag, 0)
				}
			}
			expectStuck(t, "program", func() error { return two.Program(t.Context(), newConfig()) })
			fault(t, k, emulator.FaultClear, 0)
			r.Close()
			expectOld(t, k)
		})
	}
}

func TestStuckFlagEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, two, r := replacing(t)
		s := otpslot.New(r)
		expect := func(name string, op func(ctx context.Context) error) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			start := time.Now()
			if err := op(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 310*time.Millisecond {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		}
		r.before = func(write int) {
			if write == 3 {
				fault(t, k, emulator.FaultStuckFlag, 0)
			}
		}
		expect("in the middle of a write", func(ctx context.Context) error { return two.Program(ctx, newConfig()) })
		expect("status", func(ctx context.Context) error { _, err := s.Status(ctx); return err })
		expect("serial", func(ctx context.Context) error { _, err := s.Serial(ctx); return err })
		expect("deletion", func(ctx context.Context) error { return two.Delete(ctx, codeA) })
	})
}

func TestBadCRC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(fw5)
		s, _ := open(t, k)
		fault(t, k, emulator.FaultBadCRC, 0)
		start := time.Now()
		if n, err := s.Serial(t.Context()); !errors.Is(err, device.ErrCorrupt) {
			t.Fatalf("%v, %v", n, err)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Fatalf("it took %v", d)
		}
		if err := slot(t, s, 1).Program(t.Context(), oldConfig()); !errors.Is(err, device.ErrCorrupt) || sequence(t, s) != 0 {
			t.Fatalf("a token identifier out of a damaged answer: %v", err)
		}
		fault(t, k, emulator.FaultBadCRC, 1)
		if n, err := s.Serial(t.Context()); err != nil || n != serial {
			t.Fatalf("after one damaged answer: %v, %v", n, err)
		}
	})
}

func TestRejectedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, two, r := replacing(t)
		for _, c := range []struct {
			op   string
			code secret.Secret
			do   func(code secret.Secret) error
			want string
		}{
			{"program the slot", codeA, func(code secret.Secret) error {
				return two.Program(t.Context(), device.HOTPConfig{Seed: newSeed, Digits: 6, CurrentAccessCode: code})
			}, "another access code than the one in the vault"},
			{"program the slot", secret.Secret{}, func(code secret.Secret) error {
				return two.Program(t.Context(), device.HOTPConfig{Seed: newSeed, Digits: 6, CurrentAccessCode: code})
			}, "an access code that the desk does not know"},
			{"delete the slot", codeA, func(code secret.Secret) error { return two.Delete(t.Context(), code) }, "another access code than the one in the vault"},
		} {
			fault(t, k, emulator.FaultRejectWrite, 1)
			err := c.do(c.code)
			rejected, ok := errors.AsType[*device.RejectedError](err)
			if !ok || rejected.Op != c.op || len(rejected.Reasons) < 3 {
				t.Fatalf("%s: %v", c.op, err)
			}
			for _, words := range append(rejected.Reasons, c.want) {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%q does not name %q", err, words)
				}
			}
			fault(t, k, emulator.FaultClear, 0)
		}
		r.Close()
		expectOld(t, k)
	})
}

// A key whose status does not show what it took must not count as written; only a code can tell.
func TestLostStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, two, r := replacing(t)
		fault(t, k, emulator.FaultLostStatus, 0)
		err := two.Program(t.Context(), newConfig())
		if _, rejected := errors.AsType[*device.RejectedError](err); !rejected {
			t.Fatalf("a write without confirmation: %v", err)
		}
		fault(t, k, emulator.FaultClear, 0)
		r.Close()
		expectNew(t, k)
	})
}

func TestReclaim(t *testing.T) {
	for n := 1; n <= 6; n++ {
		bubble(t, fmt.Sprint(n), func(t *testing.T) {
			k := newKey(fw5)
			s, _ := open(t, k)
			fault(t, k, emulator.FaultReclaim, n)
			start := time.Now()
			got, err := s.Serial(t.Context())
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("it took %v", d)
			}
			if n < 6 {
				if err != nil || got != serial {
					t.Fatalf("%v, %v", got, err)
				}
				return
			}
			if !errors.Is(err, otpslot.ErrSerialHidden) || !strings.Contains(err.Error(), "repeat in a few seconds") {
				t.Fatalf("%v, %v", got, err)
			}
			if got, err := s.Serial(t.Context()); err != nil || got != serial {
				t.Fatalf("repeated: %v, %v", got, err)
			}
		})
	}
}

func TestReclaimEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(fw5)
		s, _ := open(t, k)
		fault(t, k, emulator.FaultReclaim, 6)
		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := s.Serial(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 710*time.Millisecond {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	})
}

func TestSerialHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(fw5)
		s, _ := open(t, k)
		one := slot(t, s, 1)
		fault(t, k, emulator.FaultSerialHidden, 0)
		if _, err := s.Serial(t.Context()); !errors.Is(err, otpslot.ErrSerialHidden) || !strings.Contains(err.Error(), "SERIAL_API_VISIBLE") {
			t.Fatal(err)
		}
		if _, err := one.Describe(t.Context()); !errors.Is(err, otpslot.ErrSerialHidden) {
			t.Fatal(err)
		}
		if err := one.Program(t.Context(), oldConfig()); !errors.Is(err, otpslot.ErrSerialHidden) || sequence(t, s) != 0 {
			t.Fatalf("a token identifier without a serial: %v", err)
		}
		anonymous := oldConfig()
		anonymous.TokenIdentifier = false
		if err := one.Program(t.Context(), anonymous); err != nil {
			t.Fatalf("nothing needs the serial here: %v", err)
		}
	})
}

// An answer that another program has asked for and left behind must not be taken for the status.
func TestForgottenAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(fw5)
		_, r := open(t, k)
		for _, chunk := range [][]byte{{8: 0x80}, {0, 0, 0x10, 0x6b, 0x5b, 0, 0, 0, 0x89}} {
			if err := r.SetFeature(chunk); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * time.Millisecond) // until it has been taken
		}
		s := otpslot.New(r)
		if status, err := s.Status(t.Context()); err != nil || status.Firmware != fw5 || status.Sequence != 0 {
			t.Fatalf("%+v, %v", status, err)
		}
		if n, err := s.Serial(t.Context()); err != nil || n != serial {
			t.Fatalf("%v, %v", n, err)
		}
	})
}
