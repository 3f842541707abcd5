package nitrokey_test

import (
	"errors"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/nitrokeypro"
	"tokendesk/vault/secret"
)

func TestUnlock(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		if err := one.Unlock(t.Context(), adminPIN); err != nil {
			t.Fatal(err)
		}
		expectError(t, one.Unlock(t.Context(), secret.Secret{}), device.ErrLocked)
		expectError(t, one.Program(t.Context(), device.HOTPConfig{Seed: seed, Digits: 6}), device.ErrLocked)
		expectPINError(t, one.Unlock(t.Context(), wrongPIN), 2)
		if err := one.Unlock(t.Context(), adminPIN); err != nil {
			t.Fatal(err)
		}
		if got := k.AdminTries(); got != nitrokeypro.MaxTries {
			t.Errorf("%d tries are left after the right PIN", got)
		}
	})
}

// TestLastTry sees to it that a wrong PIN in the vault never blocks a device.
func TestLastTry(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		program(t, one, config())
		expectPINError(t, one.Unlock(t.Context(), wrongPIN), 2)
		c := config()
		c.CurrentAccessCode = wrongPIN
		expectPINError(t, one.Program(t.Context(), c), 1)
		for _, err := range []error{
			one.Unlock(t.Context(), wrongPIN), one.Unlock(t.Context(), adminPIN),
			one.Program(t.Context(), config()), one.Delete(t.Context(), adminPIN),
		} {
			expectPINError(t, err, 1)
			if problem, cure := device.Cure(err); cure == "" || !strings.Contains(problem, "only one try") {
				t.Errorf("error %v, want one that tells of the last try, with a cure", err)
			}
		}
		if got := k.AdminTries(); got != 1 {
			t.Errorf("%d tries are left, want 1", got)
		}
		expectCodes(t, one, codes[0])
	})
}

func TestBlocked(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		r := &raw{t: t, k: k}
		for range nitrokeypro.MaxTries {
			r.command(0x07, []byte("11111111"))
		}
		_, one := open(t, k)
		err := one.Unlock(t.Context(), adminPIN)
		expectPINError(t, err, 0)
		if _, cure := device.Cure(err); cure == "" {
			t.Errorf("error %v, want one with a cure", err)
		}
	})
}

// TestImpossiblePINs are not worth a try.
func TestImpossiblePINs(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		for _, pin := range []string{"1", "1234567", strings.Repeat("1", 26), "1234\x005678", "12345678\x00"} {
			expectPINError(t, one.Unlock(t.Context(), secret.New([]byte(pin))), nitrokeypro.MaxTries)
		}
		if got := k.AdminTries(); got != nitrokeypro.MaxTries {
			t.Errorf("%d tries are left", got)
		}
	})
}

func TestLongestPIN(t *testing.T) {
	for name, o := range kinds(t) {
		bubble(t, name, func(t *testing.T) {
			o.AdminPIN = strings.Repeat("1", 25)
			_, one := open(t, newToken(o))
			if err := one.Unlock(t.Context(), secret.New([]byte(o.AdminPIN))); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestUserPINWanted is about devices whose user wants a PIN before each code.
func TestUserPINWanted(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		_, one := open(t, k)
		program(t, one, config())
		r := &raw{t: t, k: k}
		temporary := []byte(strings.Repeat("t", 25))
		r.command(0x07, append([]byte("12345678"), make([]byte, 17)...), temporary)
		r.authorized(0x05, []byte{0xFF, 0xFF, 0xFF, 1, 0}, temporary)
		_, err := one.Code(t.Context())
		expectError(t, err, device.ErrLocked)
		if _, cure := device.Cure(err); cure == "" {
			t.Errorf("error %v, want one with a cure", err)
		}
		configured(t, one, true)
	})
}

// TestAnotherProgram shows the device another temporary password between two commands: a Storage can be made to answer such
// commands as if it had carried them out.
func TestAnotherProgram(t *testing.T) {
	each(t, func(t *testing.T, k *nitrokeypro.Token) {
		other := &raw{t: t, k: k}
		for strike := 1; strike < 30; strike++ {
			if k.Model().Product == 0x4109 {
				other.command(0x08, make([]byte, 29))
			}
			sets := 0
			r := &setTap{Report: k.Open(), before: func(p []byte) {
				if p[1] != 0x07 && p[1] != 0x00 {
					sets++
				}
				if sets == strike {
					other.command(0x07, append([]byte("12345678"), make([]byte, 17)...), []byte(strings.Repeat("x", 25)))
				}
			}}
			_, one := over(t, k, r)
			c := config()
			err := one.Program(t.Context(), c)
			if sets < strike {
				if err != nil {
					t.Errorf("nobody interfered: %v", err)
				}
				return
			}
			var rejected *device.RejectedError
			if err != nil && !errors.As(err, &rejected) && !errors.Is(err, device.ErrCorrupt) {
				t.Errorf("strike %d: error %v", strike, err)
			}
			if err == nil {
				expectCodes(t, one, codes[0])
			}
			if err := one.Delete(t.Context(), adminPIN); err != nil {
				t.Fatal(err)
			}
		}
		t.Error("it never ends")
	})
}
