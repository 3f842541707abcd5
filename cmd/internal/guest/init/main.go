// Command init is the guest's first process: it makes the host's root its own, with a layer in memory for what
// is written, starts udev, runs one command and reports how it ended.
//
// It must build without cgo: nothing but it and some kernel modules is in the initramfs.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/guest/job"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this is the first process of the test guest; run cmd/internal/guest")
		os.Exit(2)
	}
	// An exit of the first process is a kernel panic, which ends the guest: the host knows that the guest is
	// done when it has the last report, and ends it itself.
	if err := boot(); err != nil {
		fmt.Fprintln(os.Stderr, "init:", err)
		os.Exit(1)
	}
	for {
		unix.Pause()
	}
}

func boot() error {
	if err := os.Setenv("PATH", path); err != nil { // to find udevadm and the command
		return err
	}
	if err := kernelFilesystems(); err != nil {
		return err
	}
	host, err := openLine(job.Device)
	if err != nil {
		return err
	}
	j, err := prepare()
	if err != nil {
		return host.report(job.Report{Event: job.Failed, Text: err.Error()})
	}
	return host.report(run(j, host))
}

// prepare does everything up to the command.
func prepare() (job.Job, error) {
	var j job.Job
	text, err := os.ReadFile(job.Path)
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(text, &j); err != nil {
		return j, err
	}
	m, err := openModules(j)
	if err != nil {
		return j, err
	}
	for _, step := range []struct {
		what string
		do   func(job.Job) error
	}{
		{"load the kernel modules for the root", m.loadFirst},
		{"mount the host's root", hostRoot},
		{"install the udev rules", installRules},
		{"mount the file systems", filesystems},
		{"write the accounts", writeAccounts},
		{"bring the loopback interface up", loopbackUp},
		{"start udev", startUdev},
		{"load the other kernel modules", m.await},
		{"have udev look at the devices", triggerUdev},
		{"find the devices", awaitDevices},
	} {
		begin := time.Now()
		if err := step.do(j); err != nil {
			return j, fmt.Errorf("cannot %s: %w", step.what, err)
		}
		// On the console, and so in the log: where a start hangs, and where its time goes.
		fmt.Printf("init: %4d ms to %s\n", time.Since(begin).Milliseconds(), step.what)
	}
	return j, nil
}
