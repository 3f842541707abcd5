//go:build guest

package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// buildGuest builds the program, as go run would hide its exit status.
func buildGuest(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "guest")
	if out, err := exec.Command("go", "build", "-o", name, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return name
}

// guest prepares a run whose temporary files and log are in a directory of its own, which it tells.
func guest(t *testing.T, program string, args ...string) (*exec.Cmd, string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(program, append([]string{"-log", filepath.Join(dir, "serial.log")}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	return cmd, dir
}

// ends wants an exit status, words on the standard error, and no file but the log.
func ends(t *testing.T, err error, code int, complaints, dir string, says ...string) {
	t.Helper()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Errorf("it ended with %v, not %d", err, code)
	}
	for _, want := range says {
		if !strings.Contains(complaints, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) > 1 || len(files) == 1 && filepath.Base(files[0]) != "serial.log" {
		t.Errorf("it leaves %v, %v", files, err)
	}
	if t.Failed() {
		t.Logf("it said:\n%s", complaints)
	}
}

// The whole of it: a command sees a kernel with USB, udev and a TPM, and the people; its output and its exit
// status come through, whatever else still runs.
const everythingThere = `
set -e; trap 'echo "not so: $BASH_COMMAND"' ERR
test "$(id -u)" = 0; test "$(hostname)" = guest; test "$HOME" = /root; test "$(pwd)" = "$1"
test -c /dev/tpm0; test -c /dev/tpmrm0; test -d /dev/bus/usb/001; test -d /sys/kernel/debug/usb/usbmon
test -d /sys/devices/platform/vhci_hcd.0; lsmod | grep -q ^usbhid; modprobe -n psmouse
id -nG officer | grep -w tss | grep -qw tokendesk; test "$(id -nG eve)" = eve
su officer -c 'test -r /dev/tpmrm0 -a -w ~'; su eve -c 'test ! -r /dev/tpmrm0'
test "$(udevadm info --query=property --name=/dev/bus/usb/001/001 | grep ^GUEST_TEST=)" = GUEST_TEST=both
test ! -t 1; test "$(wc -c </dev/stdin)" = 0
echo a guest was here >/etc/guest-test; grep -q here /etc/guest-test
head -c 300000 /dev/zero | tr '\0' x; echo
echo oops >&2
(sleep 1000 &) # holds the output open
exit 7
`

func TestGuest(t *testing.T) {
	program := buildGuest(t)
	rules := t.TempDir()
	for name, text := range map[string]string{
		"99-test.rules": `SUBSYSTEM=="usb", IMPORT{builtin}="hwdb --subsystem=usb"` + "\n",
		"99-test.hwdb":  "usb:v1D6B*\n GUEST_TEST=both\n",
	} {
		if err := os.WriteFile(filepath.Join(rules, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}

	t.Run("command", func(t *testing.T) {
		cmd, dir := guest(t, program, "-tpm", "-udev", rules, "bash", "-c", everythingThere, "bash", here)
		var out, complaints strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &complaints
		err := cmd.Run()
		ends(t, err, 7, complaints.String(), dir, "the command failed with 7", "serial.log")
		if want := strings.Repeat("x", 300000) + "\noops\n"; out.String() != want {
			t.Errorf("%d bytes of output, which ends %q", out.Len(), out.String()[max(0, out.Len()-80):])
		}
		if _, err := os.Stat("/etc/guest-test"); err == nil {
			t.Error("the guest wrote to the host")
		}
		t.Log(complaints.String())
	})
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"panic", []string{"sh", "-c", "echo c >/proc/sysrq-trigger"}, ownFailed, "panicked while the command ran: sysrq"},
		{"time", []string{"-timeout", "1500ms", "true"}, timeIsUp, "time is up after 1.5s, before the "},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, dir := guest(t, program, c.args...)
			var complaints strings.Builder
			cmd.Stderr = &complaints
			ends(t, cmd.Run(), c.code, complaints.String(), dir, c.says)
		})
	}
}

// Told to end while the command runs, it takes qemu and swtpm with it.
func TestGuestIsInterrupted(t *testing.T) {
	cmd, dir := guest(t, buildGuest(t), "-tpm", "sh", "-c", "echo running; sleep 1000")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	if line, err := out.ReadString('\n'); line != "running\n" {
		t.Errorf("%q, %v", line, err)
	}
	children := childrenOf(t, cmd.Process.Pid)
	if len(children) != 2 {
		t.Errorf("its children are %q", children)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, out)
	ends(t, cmd.Wait(), ownFailed, complaints.String(), dir, "interrupted while the command ran")
	for _, pid := range children {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s still runs", pid)
		}
	}
}

func childrenOf(t *testing.T, pid int) (pids []string) {
	t.Helper()
	lists, err := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "children"))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}
