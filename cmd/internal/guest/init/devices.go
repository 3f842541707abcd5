package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/guest/job"
)

// loopbackUp needs no program: the address comes with the interface.
func loopbackUp(job.Job) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// installRules puts the caller's rules where the administrator's are.
func installRules(j job.Job) error {
	if j.Udev == "" {
		return nil
	}
	for pattern, to := range map[string]string{"*.rules": "/etc/udev/rules.d", "*.hwdb": "/etc/udev/hwdb.d"} {
		files, err := filepath.Glob(filepath.Join(j.Udev, pattern))
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := install(file, filepath.Join(to, filepath.Base(file))); err != nil {
				return err
			}
		}
	}
	if j.HWDB == "" {
		return nil
	}
	return install(j.HWDB, "/etc/udev/hwdb.bin")
}

func install(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

func startUdev(job.Job) error { return tool("/lib/systemd/systemd-udevd", "--daemon") }

// triggerUdev has udev look at what was there before it. Only the subsystems of tokens and TPMs: the others take
// seconds.
func triggerUdev(job.Job) error {
	args := []string{"trigger", "--action=add", "--settle"}
	for _, subsystem := range []string{"usb", "hidraw", "input", "tpm", "tpmrm"} {
		args = append(args, "--subsystem-match="+subsystem)
	}
	return tool("udevadm", args...)
}

func awaitDevices(j job.Job) error {
	if !j.TPM {
		return nil
	}
	for _, device := range []string{"/dev/tpm0", "/dev/tpmrm0"} {
		if _, err := os.Stat(device); err != nil {
			return err
		}
	}
	return nil
}

func tool(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, out)
	}
	return nil
}
