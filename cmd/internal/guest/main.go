// Command guest boots Debian's stock kernel under qemu and runs a command inside, as root, on the host's own
// root file system: what a test needs of a kernel that the host does not have (USB, udev, a TPM device).
//
//	guest [-timeout 9m] [-log FILE] [-tpm] [-memory MB] [-udev DIR] COMMAND [ARGUMENT…]
//
// The command runs in the current directory and finds every file of the host, except below /dev, /proc, /run and
// /sys. What it writes is gone with the guest. It gets no input, and an environment of its own. There are two
// more people: officer, in the groups tokendesk and tss, and eve, in none. There is no network but the loopback.
//
// The exit status is the command's: 128 and the signal if it was killed, 126 or 127 if it cannot be run, 124 if
// time was up, 125 if the guest itself failed. (go run turns all but 0 into 1.) The kernel comes from Debian's
// archive at the first run and stays in .guest beside go.mod; it is newest again after rm -r .guest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Exit statuses that are not the command's, as timeout(1) has them.
const (
	timeIsUp  = 124
	ownFailed = 125
)

var errTimeIsUp = errors.New("time is up")

func main() {
	// qemu and swtpm end with the thread that started them, should this process be killed.
	runtime.LockOSThread()
	var o options
	timeout := flag.Duration("timeout", 9*time.Minute, "end the guest after this time")
	flag.StringVar(&o.log, "log", "", "where the guest's console goes (default .guest/serial.log beside go.mod)")
	flag.BoolVar(&o.tpm, "tpm", false, "give the guest a TPM, by swtpm")
	flag.IntVar(&o.memory, "memory", 1024, "the guest's memory in `MB`")
	flag.StringVar(&o.udev, "udev", "", "install the *.rules and *.hwdb of this `directory`")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: guest [OPTION…] COMMAND [ARGUMENT…]")
		flag.PrintDefaults()
	}
	flag.Parse()
	o.command = flag.Args()
	if len(o.command) == 0 {
		flag.Usage()
		os.Exit(ownFailed)
	}
	// A reader of the output that went away is an error like others: the default would leave files behind.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ctx, cancel := context.WithTimeoutCause(ctx, *timeout, fmt.Errorf("%w after %s", errTimeIsUp, *timeout))
	code, err := run(ctx, o)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	os.Exit(code)
}

// run boots, and tells the exit status and, if it is not the command's, why.
func run(ctx context.Context, o options) (int, error) {
	root, err := moduleRoot()
	if err != nil {
		return ownFailed, err
	}
	cache := filepath.Join(root, ".guest")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return ownFailed, err
	}
	if o.log == "" {
		o.log = filepath.Join(cache, "serial.log")
	}
	k, err := findKernel(ctx, cache)
	if err != nil {
		return failure(ctx, err)
	}
	return boot(ctx, root, k, o)
}

// failure tells the exit status of what went wrong before the guest was started.
func failure(ctx context.Context, err error) (int, error) {
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return ownFailed, err
	case errors.Is(cause, errTimeIsUp):
		return timeIsUp, fmt.Errorf("%w, before the guest was started", cause)
	}
	return ownFailed, errors.New("interrupted before the guest was started")
}

// moduleRoot is the directory of go.mod, at or above the current one.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("there is no go.mod at or above %s: run guest inside the source tree", dir)
		}
	}
}
