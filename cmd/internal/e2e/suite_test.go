//go:build guest

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tokendesk/device"
)

const (
	enough     = 48 // keys, more than the suites have tests: each gets one that nobody has programmed
	leastTests = 43 // of the suites: with fewer, something was left out
)

// TestConformance runs device/devicetest over USB, as the officer.
func TestConformance(t *testing.T) {
	var keys []string
	for i := range device.Serial(enough) {
		keys = append(keys, absent(30000001+i))
	}
	socket := keysAlone(t, keys...).EmulatorSocket
	if err := os.Chown(socket, int(officer.Uid), int(officer.Gid)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "devicetest.test"), "-test.v", "-test.run=^TestUSB$")
	cmd.Env = append(os.Environ(), "TOKENEMU_SOCKET="+socket, "HOME=/")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: officer}
	out, err := cmd.CombinedOutput()
	if passed := bytes.Count(out, []byte("\n    --- PASS: TestUSB/")); err != nil || passed < leastTests {
		t.Fatalf("%d tests passed, %v\n%s", passed, err, out)
	} else {
		t.Logf("%d tests passed over USB", passed)
	}
}

// TestKernelEvents runs those tests of other packages that need root and the events of a kernel.
func TestKernelEvents(t *testing.T) {
	for name, tests := range map[string][]string{
		"udev.test":   {"TestKernelEvents", "TestWaitGoesOn", "TestBelievesRootAndKernelOnly", "TestLostEventsAreSaid", "TestBurst"},
		"usbhid.test": {"TestWatchListens"},
	} {
		run := "-test.run=^(" + strings.Join(tests, "|") + ")$"
		out, err := exec.CommandContext(t.Context(), filepath.Join(*programs, name), "-test.v", run).CombinedOutput()
		if passed := strings.Count("\n"+string(out), "\n--- PASS: "); err != nil || passed != len(tests) {
			t.Errorf("%s: %d of %d tests passed, %v\n%s", name, passed, len(tests), err, out)
		}
	}
}

// TestStory plays the demo with the desk run by the officer.
func TestStory(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "demo"), "-bin", bin, "-as", "officer")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}
