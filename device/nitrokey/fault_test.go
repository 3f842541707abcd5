package nitrokey_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/nitrokeypro"
	"tokendesk/device/nitrokey"
	"tokendesk/vault/secret"
)

// otherCode is the first code of otherSeed (oathtool --hotp).
const otherCode = "583327"

// holds tells what is in slot 1 by its next code, which is the first one of a seed.
func holds(t *testing.T, k *nitrokeypro.Token) string {
	t.Helper()
	_, one := open(t, k)
	if !describe(t, one).Configured {
		return "nothing"
	}
	code, err := one.Code(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	switch code {
	case codes[0]:
		return "new"
	case otherCode:
		return "old"
	}
	return "something else"
}

// interrupt runs do with a fault at its first step, then at its second one, until one comes too late; check sees what do
// returned, and whether the fault came in time.
func interrupt(t *testing.T, o nitrokeypro.Options, arm func(step int, k *nitrokeypro.Token, r *tap) (struck func() bool),
	do func(device.HOTPToken, *nitrokey.Session) error, check func(step int, k *nitrokeypro.Token, err error),
) {
	t.Helper()
	for step := 1; step < 200; step++ {
		k := newToken(o)
		_, one := open(t, k)
		old := config()
		old.Seed = otherSeed
		program(t, one, old)
		r := &tap{Report: k.Open()}
		struck := arm(step, k, r)
		s, one := over(t, k, r)
		err := do(one, s)
		if !struck() {
			if err != nil {
				t.Errorf("nothing happened: %v", err)
			}
			return
		}
		check(step, k, err)
	}
	t.Error("it never ends")
}

func pullAtCall(step int, k *nitrokeypro.Token, r *tap) func() bool {
	r.before = func(call int) {
		if call == step {
			k.PowerDown()
		}
	}
	return func() bool { return r.calls >= step }
}

func pullAtCommand(f nitrokeypro.Fault) func(int, *nitrokeypro.Token, *tap) func() bool {
	return func(step int, k *nitrokeypro.Token, _ *tap) func() bool {
		if err := k.SetFault(f, step); err != nil {
			panic(err)
		}
		return func() bool { return len(k.Faults()) == 0 }
	}
}

// TestPulled pulls devices before each report either way, and before and after each command.
func TestPulled(t *testing.T) {
	deeds := map[string]struct {
		do  func(device.HOTPToken, *nitrokey.Session) error
		can string // what the slot can hold then
	}{
		"program": {func(one device.HOTPToken, _ *nitrokey.Session) error {
			return one.Program(context.Background(), config())
		}, "old new"},
		"delete": {func(one device.HOTPToken, _ *nitrokey.Session) error {
			return one.Delete(context.Background(), adminPIN)
		}, "old nothing"},
		"unlock": {func(one device.HOTPToken, _ *nitrokey.Session) error {
			return one.Unlock(context.Background(), adminPIN)
		}, "old"},
		"identify": {func(_ device.HOTPToken, s *nitrokey.Session) error {
			_, err := s.Identify(context.Background())
			return err
		}, "old"},
	}
	arms := map[string]func(int, *nitrokeypro.Token, *tap) func() bool{
		"report": pullAtCall,
		"before": pullAtCommand(nitrokeypro.FaultPullBefore),
		"after":  pullAtCommand(nitrokeypro.FaultPullAfter),
	}
	for kind, o := range kinds(t) {
		for deed, d := range deeds {
			for name, arm := range arms {
				bubble(t, kind+"/"+deed+"/"+name, func(t *testing.T) {
					interrupt(t, o, arm, d.do, func(step int, k *nitrokeypro.Token, err error) {
						// A write of a Pro that was confirmed stays so, whatever happens to what is tidied up.
						if err != nil {
							expectError(t, err, device.ErrGone)
						}
						k.PowerUp()
						got := holds(t, k)
						if !strings.Contains(d.can, got) || err == nil && !strings.HasSuffix(d.can, got) {
							t.Errorf("step %d: the slot holds %s, error %v", step, got, err)
						}
						if k.AdminTries() != nitrokeypro.MaxTries {
							t.Errorf("step %d: it has cost a try", step)
						}
					})
				})
			}
		}
	}
}

// TestCodeLost sees to it that a code whose answer is lost is one that was passed over, and no more.
func TestCodeLost(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		program(t, one, config())
		setFault(t, k, nitrokeypro.FaultPullAfter, 1)
		_, err := one.Code(t.Context())
		expectError(t, err, device.ErrGone)
		k.PowerUp()
		_, one = open(t, k)
		expectCodes(t, one, codes[1])
		setFault(t, k, nitrokeypro.FaultPullBefore, 1)
		_, err = one.Code(t.Context())
		expectError(t, err, device.ErrGone)
		k.PowerUp()
		_, one = open(t, k)
		expectCodes(t, one, codes[2])
	})
}

func TestTornWrite(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		old := config()
		old.Seed = otherSeed
		program(t, one, old)
		setFault(t, k, nitrokeypro.FaultTornWrite, 0)
		c := config()
		c.StartCounter = 7
		expectError(t, one.Program(t.Context(), c), device.ErrGone)
		k.PowerUp()
		if got := holds(t, k); got != "something else" {
			t.Errorf("the slot holds %s, want the old seed with the new counter", got)
		}
		_, one = open(t, k)
		program(t, one, config())
		expectCodes(t, one, codes[0])
	})
}

func TestDamagedAnswers(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		setFault(t, k, nitrokeypro.FaultBadCRC, 20)
		program(t, one, config())
		expectCodes(t, one, codes[0])
		setFault(t, k, nitrokeypro.FaultBadCRC, 0)
		_, err := one.Code(t.Context())
		expectError(t, err, device.ErrCorrupt)
		expectError(t, one.Program(t.Context(), config()), device.ErrCorrupt)
		setFault(t, k, nitrokeypro.FaultClear, 0)
		expectCodes(t, one, codes[2])
	})
}

func TestStuck(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		program(t, one, config())
		setFault(t, k, nitrokeypro.FaultStuckBusy, 0)
		_, err := one.Code(t.Context())
		expectError(t, err, device.ErrTimeout)
		expectError(t, one.Program(t.Context(), config()), device.ErrTimeout)
		_, again := open(t, k)
		_, err = again.Describe(t.Context())
		expectError(t, err, device.ErrTimeout)
		setFault(t, k, nitrokeypro.FaultClear, 0)
		expectCodes(t, one, codes[0])
	})
}

// TestDropped loses each command: those that change nothing are sent again, others fail.
func TestDropped(t *testing.T) {
	for kind, o := range kinds(t) {
		bubble(t, kind, func(t *testing.T) {
			interrupt(t, o, pullAtCommand(nitrokeypro.FaultDrop),
				func(one device.HOTPToken, _ *nitrokey.Session) error { return one.Program(t.Context(), config()) },
				func(step int, k *nitrokeypro.Token, err error) {
					if err != nil {
						expectError(t, err, device.ErrTimeout)
					}
					if got := holds(t, k); err == nil && got != "new" || err != nil && got != "old" && got != "new" {
						t.Errorf("step %d: the slot holds %s, error %v", step, got, err)
					}
				})
		})
	}
}

// TestStatuses has each command refused with each status. None of it may pass for success, nor cost a try.
func TestStatuses(t *testing.T) {
	for kind, o := range kinds(t) {
		bubble(t, kind, func(t *testing.T) {
			for status := 1; status < 16; status++ {
				interrupt(t, o, func(step int, k *nitrokeypro.Token, r *tap) func() bool {
					sets, struck := 0, false
					r.before = nil
					r.Report = &setTap{Report: r.Report, before: func([]byte) {
						if sets++; sets == step {
							struck = true
							setFault(t, k, nitrokeypro.FaultStatus, status)
						}
					}}
					return func() bool { return struck }
				}, func(one device.HOTPToken, _ *nitrokey.Session) error {
					return one.Program(t.Context(), config())
				}, func(step int, k *nitrokeypro.Token, err error) {
					got := holds(t, k)
					if err == nil && got != "new" || err != nil && got != "old" && got != "new" {
						t.Errorf("status %d at step %d: the slot holds %s, error %v", status, step, got, err)
					}
					var pin *device.PINError
					if k.AdminTries() != nitrokeypro.MaxTries || errors.As(err, &pin) {
						t.Errorf("status %d at step %d: %d tries are left, error %v", status, step, k.AdminTries(), err)
					}
				})
			}
		})
	}
}

// TestCardAway is about devices that cannot ask the smart card in them, and say so with a number of tries that no card has.
func TestCardAway(t *testing.T) {
	for _, tries := range []byte{16, 77, 88, 255} {
		for kind, o := range kinds(t) {
			bubble(t, fmt.Sprint(kind, tries), func(t *testing.T) {
				k := newToken(o)
				_, one := over(t, k, &liar{Report: k.Open(), lie: func(p []byte) {
					switch p[2] {
					case 0x09:
						p[8] = tries
					case 0x2E:
						p[8+22+19] = tries
					}
				}})
				err := one.Unlock(t.Context(), adminPIN)
				var pin *device.PINError
				if _, cure := device.Cure(err); cure == "" || errors.As(err, &pin) {
					t.Errorf("error %v, want one with a cure that says nothing of the PIN", err)
				}
			})
		}
	}
}

// TestNotJudged is about a device that refuses a PIN without asking its card.
func TestNotJudged(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := over(t, k, &liar{Report: k.Open(), lie: func(p []byte) {
			if p[2] == 0x07 {
				p[7] = 4
			}
		}})
		err := one.Unlock(t.Context(), adminPIN)
		var pin *device.PINError
		if err == nil || errors.As(err, &pin) {
			t.Errorf("error %v, want one that says nothing of the PIN", err)
		}
	})
}

// liar is a report whose answers are changed, and have a checksum that fits.
type liar struct {
	device.Report
	lie func(p []byte)
}

func (r *liar) GetFeature(p []byte) error {
	if err := r.Report.GetFeature(p); err != nil {
		return err
	}
	if p[1] == 0 && sum(p[1:]) == binary.LittleEndian.Uint32(p[61:]) {
		r.lie(p)
		binary.LittleEndian.PutUint32(p[61:], sum(p[1:]))
	}
	return nil
}

// TestLies has devices give codes that are none, and take seeds that were not sent.
func TestLies(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		program(t, one, config())
		_, one = over(t, k, &liar{Report: k.Open(), lie: func(p []byte) {
			switch p[2] {
			case 0x04:
				binary.LittleEndian.PutUint32(p[8:], 1_000_000)
			case 0x17:
				p[8+5] ^= 1
			}
		}})
		_, err := one.Code(t.Context())
		expectError(t, err, device.ErrCorrupt)
		if legacy := k.Firmware().Minor+k.Firmware().Build == 7 || k.Firmware().String() == "0.53.0"; !legacy {
			expectError(t, one.Program(t.Context(), config()), device.ErrCorrupt)
		}
	})
}

// TestCancelled ends the context before each call, after which the device can still be used.
func TestCancelled(t *testing.T) {
	for kind, o := range kinds(t) {
		bubble(t, kind, func(t *testing.T) {
			var cancel context.CancelFunc
			var ctx context.Context
			interrupt(t, o, func(step int, _ *nitrokeypro.Token, r *tap) func() bool {
				ctx, cancel = context.WithCancel(t.Context())
				t.Cleanup(cancel)
				r.before = func(call int) {
					if call == step {
						cancel()
					}
				}
				return func() bool { return r.calls >= step }
			}, func(one device.HOTPToken, _ *nitrokey.Session) error {
				return one.Program(ctx, config())
			}, func(step int, k *nitrokeypro.Token, err error) {
				if err != nil {
					expectError(t, err, context.Canceled)
				}
				if got := holds(t, k); got != "old" && got != "new" || err == nil && got == "old" {
					t.Errorf("step %d: the slot holds %s, error %v", step, got, err)
				}
			})
		})
	}
}

// TestSeedStaysNowhere looks at what devices show to whoever asks after a write, also one that was interrupted, and at errors.
func TestSeedStaysNowhere(t *testing.T) {
	for kind, o := range kinds(t) {
		bubble(t, kind, func(t *testing.T) {
			interrupt(t, o, func(step int, k *nitrokeypro.Token, r *tap) func() bool {
				sets, struck := 0, false
				r.Report = &setTap{Report: r.Report, before: func([]byte) {
					if sets++; sets == step {
						struck = true
						setFault(t, k, nitrokeypro.FaultStatus, 5)
					}
				}}
				return func() bool { return struck }
			}, func(one device.HOTPToken, _ *nitrokey.Session) error {
				return one.Program(t.Context(), config())
			}, func(step int, k *nitrokeypro.Token, err error) {
				time.Sleep(time.Second)
				var p [64]byte
				if !k.GetFeature(p[:]) || bytes.Contains(p[:], seed.Reveal()) {
					t.Errorf("step %d: the device shows the seed", step)
				}
				text := fmt.Sprintf("%v %+v %#v", err, err, err)
				if strings.Contains(text, string(seed.Reveal())) || strings.Contains(text, string(adminPIN.Reveal())) {
					t.Errorf("step %d: the error has a secret", step)
				}
			})
			k := newToken(o)
			_, one := open(t, k)
			program(t, one, config())
			var p [64]byte
			if !k.GetFeature(p[:]) || bytes.Contains(p[:], seed.Reveal()) {
				t.Error("the device shows the seed")
			}
			wrong := config()
			wrong.CurrentAccessCode = secret.New([]byte("123456789"))
			if text := fmt.Sprintf("%#v", one.Program(t.Context(), wrong)); strings.Contains(text, "123456789") {
				t.Error("the error has the PIN")
			}
		})
	}
}
