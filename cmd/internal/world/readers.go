package world

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tokendesk/device/pcsctest"
)

// The machine's own pcscd, and where it answers.
const (
	systemPCSCD  = "/usr/sbin/pcscd"
	systemSocket = "/run/pcscd/pcscd.comm"
)

// startReaders starts a pcscd with a reader for each card. On a workstation keys are readers themselves, on USB, which the
// machine's own pcscd finds: that is started if it does not run.
func (w *World) startReaders() (err error) {
	switch {
	case w.options.Cards+w.cardsOnly() == 0:
		return nil
	case w.options.Officer != nil:
		return w.startSystemReaders()
	}
	dir := filepath.Join(w.Dir, "pcsc")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	w.Readers, err = pcsctest.Start(dir, w.options.Cards+w.cardsOnly())
	return err
}

func (w *World) startSystemReaders() (err error) {
	answers := func(context.Context) error {
		conn, err := net.Dial("unix", systemSocket)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if answers(context.Background()) == nil {
		return nil
	}
	if w.pcscd, err = w.run(exec.Command(systemPCSCD, "--foreground"), "pcscd.log"); err != nil {
		return err
	}
	return w.pcscd.await("pcscd answers", answers)
}

// withCard is what tokenemu is told of a key.
func (w *World) withCard(i int, key string) string {
	switch {
	case i >= w.options.Cards:
		return key
	case w.options.Officer != nil:
		return key + ",product=0405" // OTP and CCID
	}
	return fmt.Sprintf("%s,vpcd=127.0.0.1:%d", key, w.Readers.Ports[i])
}

// cardsOnly is how many of the Nitrokeys are smart cards and nothing else. Their readers come after those of keys.
func (w *World) cardsOnly() (n int) {
	for _, key := range w.options.Nitrokeys {
		if isCardOnly(key) {
			n++
		}
	}
	return n
}

func isCardOnly(nitrokey string) bool { return strings.Contains(nitrokey, "model=3") }

// nitrokeys are what tokenemu is told of them.
func (w *World) nitrokeys() (args []string) {
	next := w.options.Cards
	for _, key := range w.options.Nitrokeys {
		if isCardOnly(key) && w.Readers != nil {
			key = fmt.Sprintf("%s,vpcd=127.0.0.1:%d", key, w.Readers.Ports[next])
			next++
		}
		args = append(args, "--nitrokey", key)
	}
	return args
}

func (w *World) readersConfig() string {
	switch {
	case w.Readers != nil:
		return fmt.Sprintf("pcsc = true\nemulated_readers = [%q]\n", pcsctest.ReaderName)
	case w.options.Cards > 0:
		return "pcsc = true\n" // what is on vhci_hcd is known to be emulated
	}
	return ""
}

// readersVariable has programs find the world's pcscd, and not the machine's.
func (w *World) readersVariable() []string {
	if w.Readers == nil {
		return nil
	}
	return []string{"PCSCLITE_CSOCK_NAME=" + w.Readers.Socket}
}

func (w *World) toReaders(cmd *exec.Cmd) *exec.Cmd {
	if variable := w.readersVariable(); variable != nil {
		if cmd.Env == nil {
			cmd.Env = os.Environ()
		}
		cmd.Env = append(cmd.Env, variable...)
	}
	return cmd
}

// CardTool is another PIV client of this machine, ready to run on the world's readers.
func (w *World) CardTool(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), w.readersVariable()...)
	return cmd
}

// MakeDir makes a directory of whom the desk runs as.
func (w *World) MakeDir(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return w.give(path)
}
