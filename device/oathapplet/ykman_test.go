package oathapplet_test

import (
	"context"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/oathapplet"
	"tokendesk/device/pcsc"
	"tokendesk/device/pcsctest"
)

// rig is the pcscd of all tests: a process has but one.
var rig *pcsctest.Rig

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "oath")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	if rig, err = pcsctest.Start(dir, 2); err != nil {
		fmt.Println(err)
		return 1
	}
	defer rig.Stop()
	os.Setenv("PCSCLITE_CSOCK_NAME", filepath.Clean(rig.Socket))
	return m.Run()
}

// reader is one of the rig's, with a device in it.
type reader struct {
	*testing.T
	name string
}

// insert puts a device's card into a reader until the end of the test, one at a time. It returns when pcscd has seen it.
func insert(t *testing.T, n int, serve func(context.Context) error) reader {
	t.Helper()
	watching, blind := context.WithCancel(context.Background())
	inserted, pull := context.WithCancel(context.Background())
	served, watched, seen := make(chan error, 1), make(chan error, 1), make(chan bool, 100)
	go func() {
		watched <- pcsc.Bus{}.Watch(watching, func(e device.CardEvent) {
			if e.Info.Reader == rig.Readers[n] {
				seen <- !e.Removed
			}
		})
	}()
	go func() { served <- serve(inserted) }()
	await := func(there bool) {
		t.Helper()
		for late := time.After(20 * time.Second); ; {
			select {
			case now := <-seen:
				if now == there {
					return
				}
			case <-late:
				t.Fatalf("pcscd does not see that the card is there: %v", there)
			}
		}
	}
	t.Cleanup(func() {
		pull()
		must(t, <-served)
		await(false)
		blind()
		if err := <-watched; !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	})
	await(true)
	return reader{t, rig.Readers[n]}
}

// use opens the card as the desk does, and closes it so that others can.
func (r reader) use(fn func(*oathapplet.Session)) {
	r.Helper()
	card, err := pcsc.Bus{}.Open(r.Context(), r.name)
	must(r.T, err)
	defer card.Close()
	s, err := oathapplet.Open(r.Context(), card)
	must(r.T, err)
	fn(s)
}

// ykman runs it, as somebody at home who has no settings of it.
func (r reader) ykman(args ...string) (string, error) {
	r.Helper()
	cmd := exec.CommandContext(r.Context(), "ykman", append([]string{"--reader", r.name, "oath"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+r.TempDir(), "XDG_CONFIG_HOME=", "XDG_DATA_HOME=")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (r reader) ykmanDoes(args ...string) string {
	r.Helper()
	out, err := r.ykman(args...)
	if err != nil {
		r.Fatalf("ykman %s: %v: %s", args, err, out)
	}
	return out
}

func oathtool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "oathtool", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("oathtool %s: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

const seed = "12345678901234567890"

// What ykman has written, we list and calculate; what we have written, ykman does; and of both oathtool says the same.
func TestAgreementWithYkman(t *testing.T) {
	key := emulator.New(emulator.Options{
		Serial: 12345678, Firmware: device.Version{Major: 5, Minor: 4, Build: 3},
		VPCD: fmt.Sprintf("127.0.0.1:%d", rig.Ports[0]), Timing: &emulator.Timing{},
	})
	r := insert(t, 0, key.ServeCard)
	inHex, inBase32 := hex.EncodeToString([]byte(seed)), base32.StdEncoding.EncodeToString([]byte(seed))

	r.ykmanDoes("accounts", "add", "-o", "HOTP", "-d", "8", "-c", "5", "-i", "them", "hotp", inBase32)
	r.ykmanDoes("accounts", "add", "-o", "TOTP", "-a", "SHA256", "-P", "60", "-i", "them", "totp", inBase32)
	r.use(func(s *oathapplet.Session) {
		all, err := s.List(t.Context())
		must(t, err)
		want := []oathapplet.Credential{
			{Name: "them:hotp", Type: oathapplet.HOTP, Algorithm: oathapplet.SHA1},
			{Name: "60/them:totp", Type: oathapplet.TOTP, Algorithm: oathapplet.SHA256},
		}
		if !slices.Equal(all, want) {
			t.Fatalf("%+v", all)
		}
		for n := 5; n < 7; n++ {
			expectSame(t, s, all[0], time.Time{}, oathtool(t, "-d", "8", "-c", fmt.Sprint(n), inHex))
		}
		at := time.Unix(1111111109, 0)
		expectSame(t, s, all[1], at, oathtool(t, "--totp=sha256", "-s", "60", "-N", "@1111111109", inHex))

		must(t, alice(t, s).Program(t.Context(), device.HOTPConfig{Seed: text(seed), Digits: 6, StartCounter: 70000}))
		c := oathapplet.Credential{Name: "ours:totp", Type: oathapplet.TOTP, Algorithm: oathapplet.SHA512, Digits: 7}
		must(t, s.Put(t.Context(), c, text("short")))
	})

	listed := r.ykmanDoes("accounts", "list", "-o")
	for _, want := range []string{"ours:totp, TOTP", "them:hotp, HOTP", "them:totp, TOTP", "tokendesk:alice, HOTP"} {
		if strings.Count(listed, want) != 1 {
			t.Errorf("%s is not listed:\n%s", want, listed)
		}
	}
	if got, want := r.ykmanDoes("accounts", "code", "-s", "tokendesk:alice"), oathtool(t, "-c", "70000", inHex); got != want {
		t.Errorf("ykman calculates %s, not %s", got, want)
	}
	r.use(func(s *oathapplet.Session) {
		code, err := alice(t, s).Code(t.Context())
		if want := oathtool(t, "-c", "70001", inHex); err != nil || code != want {
			t.Errorf("after ykman: %s, not %s, %v", code, want, err)
		}
	})
	totp := func() string { return oathtool(t, "--totp=sha512", "-d", "7", hex.EncodeToString([]byte("short"))) }
	before := totp()
	if got := r.ykmanDoes("accounts", "code", "-s", "ours:totp"); got != before && got != totp() {
		t.Errorf("ykman calculates %s, not %s", got, before)
	}

	r.ykmanDoes("access", "change", "-n", "correct horse")
	r.use(func(s *oathapplet.Session) {
		var wrong *device.PINError
		if err := alice(t, s).Unlock(t.Context(), text("battery staple")); !s.Locked() || !errors.As(err, &wrong) {
			t.Errorf("locked: %v, %v", s.Locked(), err)
		}
		must(t, alice(t, s).Delete(t.Context(), text("correct horse")))
		must(t, s.Delete(t.Context(), "them:hotp"))
	})
	r.use(func(s *oathapplet.Session) { // closing has locked it again
		if _, err := s.List(t.Context()); !errors.Is(err, device.ErrLocked) {
			t.Errorf("after it was closed: %v", err)
		}
	})
	if got := r.ykmanDoes("accounts", "list", "-p", "correct horse"); got != "ours:totp\n60/them:totp" {
		t.Errorf("after we have deleted: %s", got)
	}
}

func alice(t *testing.T, s *oathapplet.Session) device.HOTPToken {
	t.Helper()
	id := device.TokenID("yk-12345678/oath:alice")
	if s.Nitrokey() {
		id = "nk-00005d19/oath:alice"
	}
	one, err := s.Token(t.Context(), id)
	must(t, err)
	return one
}

func expectSame(t *testing.T, s *oathapplet.Session, c oathapplet.Credential, at time.Time, want string) {
	t.Helper()
	if got, err := s.Calculate(t.Context(), c, at); err != nil || got != want {
		t.Errorf("%s: we calculate %s, not %s, %v", c.Name, got, want, err)
	}
}

// Long lists come whole through pcscd, whichever way the application gives the rest of its answers.
func TestLongListsThroughTheDaemon(t *testing.T) {
	vpcd := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", rig.Ports[n]) }
	for n, served := range []func(context.Context) error{
		emulator.New(emulator.Options{
			Serial: 12345678, Firmware: device.Version{Major: 5, Minor: 7, Build: 1}, VPCD: vpcd(0), Timing: &emulator.Timing{},
		}).ServeCard,
		emulator.NewNitrokey3(emulator.Options{
			Serial: serial, Firmware: kinds[3].firmware, VPCD: vpcd(1), Timing: &emulator.Timing{},
		}).ServeCard,
	} {
		t.Run(rig.Readers[n], func(t *testing.T) {
			insert(t, n, served).use(func(s *oathapplet.Session) {
				if s.Nitrokey() != (n == 1) {
					t.Fatal("it is the wrong card")
				}
				must(t, alice(t, s).Program(t.Context(), hotp))
				for i := range 12 {
					must(t, s.Put(t.Context(), ordinary(fmt.Sprintf("%02d:%s", i, strings.Repeat("x", 60))), text(seed)))
				}
				all, err := s.List(t.Context())
				if err != nil || len(all) != 13 {
					t.Errorf("%d credentials, %v", len(all), err)
				}
				expectText(t, "755224", alice(t, s).Code)
			})
		})
	}
}
