package emulator

import (
	"encoding/base32"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"tokendesk/device/bussocket"
)

// ykman is Yubico's program, which finds the key's OATH application in a reader of pcscd's.
type ykman struct {
	t      *testing.T
	reader string
	home   string
}

// try runs it with arguments, of which the password is the last if there is one.
func (y ykman) try(args ...string) (string, error) {
	cmd := exec.CommandContext(y.t.Context(), "ykman", append([]string{"--reader", y.reader, "oath"}, args...)...)
	cmd.Env = append(cmd.Environ(), "HOME="+y.home, "XDG_DATA_HOME="+y.home)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (y ykman) said(args ...string) string {
	y.t.Helper()
	out, err := y.try(args...)
	if err != nil {
		y.t.Fatalf("ykman oath %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

// TestYkmanUsesOATH has Yubico's program write, list, calculate, rename and delete credentials, and lock the application; the
// codes are those of oathtool.
func TestYkmanUsesOATH(t *testing.T) {
	r := newReader(t)
	k := newKey(t, Options{VPCD: net.JoinHostPort("127.0.0.1", strconv.Itoa(r.rig.Ports[0])), Timing: &Timing{}})
	serveCard(t, k)
	r.await(true)
	y := ykman{t, r.rig.Readers[0], t.TempDir()}

	if got := y.said("info"); got != "OATH version: 5.4.3\nPassword protection: disabled" {
		t.Errorf("info: %s", got)
	}
	seed := base32.StdEncoding.EncodeToString(rfcSeed)
	y.said("accounts", "add", "-i", "tokendesk", "-o", "HOTP", "-d", "8", "-c", "70000", "alice", seed)
	y.said("accounts", "add", "-t", "bob", seed)
	y.said("accounts", "add", "-a", "SHA512", "-P", "60", "-d", "7", "carol", base32.StdEncoding.EncodeToString(make([]byte, 150)))
	if got, want := y.said("accounts", "list", "-o", "-P"), "bob, TOTP, 30\n60/carol, TOTP, 60\ntokendesk:alice, HOTP, 0"; got != want {
		t.Errorf("list: %s", got)
	}
	for counter := 70000; counter < 70002; counter++ {
		if got, want := y.said("accounts", "code", "-s", "alice"), oathtool(t, rfcSeed, counter, 8); got != want {
			t.Errorf("code %d is %s, not %s", counter, got, want)
		}
	}
	// Nothing of the key tells what time ykman has asked for: it is between two looks of oathtool.
	totp := func() string {
		out, err := exec.CommandContext(t.Context(), "oathtool", "--totp=SHA512", "--time-step-size=60s", "--digits=7", strings.Repeat("00", 150)).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	before, got, after := totp(), y.said("accounts", "code", "-s", "carol"), totp()
	if got != before && got != after {
		t.Errorf("the code of carol is %s, not %s", got, before)
	}
	type result struct {
		said string
		err  error
	}
	touched := make(chan result, 1)
	go func() { said, err := y.try("accounts", "code", "-s", "bob"); touched <- result{said, err} }()
	for !k.finger.awaited() {
		if len(touched) > 0 {
			t.Fatalf("without a touch: %+v", <-touched)
		}
		runtime.Gosched()
	}
	if to, err := k.touch(false); err != nil || to.To != bussocket.ToChallenge {
		t.Fatalf("a touch went to %q, %v", to.To, err)
	}
	if got := <-touched; got.err != nil || len(got.said) < 6 {
		t.Errorf("touched: %+v", got)
	}

	y.said("access", "change", "-n", "correct horse")
	if got := y.said("info"); !strings.Contains(got, "Password protection: enabled") {
		t.Errorf("info: %s", got)
	}
	if got, err := y.try("accounts", "list", "-p", "battery staple"); err == nil || !strings.Contains(got, "Wrong password?") {
		t.Errorf("with a wrong password, list: %v: %s", err, got)
	}
	y.said("accounts", "rename", "-f", "-p", "correct horse", "alice", "tokendesk:dora")
	y.said("accounts", "delete", "-f", "-p", "correct horse", "bob")
	if got := y.said("accounts", "list", "-p", "correct horse"); got != "60/carol\ntokendesk:dora" {
		t.Errorf("list: %s", got)
	}
	y.said("reset", "-f")
	if got := y.said("accounts", "list"); got != "" {
		t.Errorf("list after a reset: %s", got)
	}
}
