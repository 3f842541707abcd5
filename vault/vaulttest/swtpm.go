package vaulttest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	swtpmStart = 5 * time.Second
	swtpmStop  = 5 * time.Second
	swtpmPoll  = 5 * time.Millisecond
)

// StartSWTPMProcess runs swtpm with its state and sockets in dir, a short path to an existing directory. The device is
// for tpmseal.Open. stop ends the process and waits for it; the state stays, and a later start finds it. swtpm dies
// with this process, however that ends.
func StartSWTPMProcess(dir string) (device string, stop func() error, err error) {
	socket := filepath.Join(dir, "tpm")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl",
		"--flags", "not-need-init,startup-clear")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The death signal comes when the thread that started the process ends: it is held until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return "", nil, fmt.Errorf("cannot start swtpm: %w; install the package swtpm", err)
	}
	stop = sync.OnceValue(func() error { return end(cmd, ended) })
	if err := await(socket, ended); err != nil {
		return "", nil, errors.Join(fmt.Errorf("cannot start swtpm: %w", err), stop(), errors.New(output.String()))
	}
	return "unix:" + socket, stop, nil
}

// await returns once something listens on the socket.
func await(socket string, ended <-chan struct{}) error {
	tick := time.NewTicker(swtpmPoll)
	defer tick.Stop()
	deadline := time.After(swtpmStart)
	for {
		c, err := net.Dial("unix", socket)
		if err == nil {
			return c.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return err
		}
		select {
		case <-ended:
			return errors.New("it ended at once")
		case <-deadline:
			return err
		case <-tick.C:
		}
	}
}

// end asks the process to end, and insists.
func end(cmd *exec.Cmd, ended <-chan struct{}) error {
	cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-ended:
		return nil
	case <-time.After(swtpmStop):
	}
	cmd.Process.Kill()
	<-ended
	return errors.New("swtpm did not end when asked and was killed")
}
