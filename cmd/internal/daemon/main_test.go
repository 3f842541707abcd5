package daemon_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/daemon"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

// This test binary is also the daemon that kills itself: these variables make it one.
const (
	configVariable = "TOKENDESK_TEST_DAEMON_CONFIG"
	killVariable   = "TOKENDESK_TEST_DAEMON_KILL" // "plan/step": after whose transaction
)

// bin holds the desk's programs, built with the race detector.
var bin string

func TestMain(m *testing.M) {
	if config := os.Getenv(configVariable); config != "" {
		fmt.Fprintln(os.Stderr, runMortal(config, os.Getenv(killVariable)))
		os.Exit(1)
	}
	os.Exit(world.RunTests(m, &bin))
}

// runMortal is tokendeskd, except that it dies by SIGKILL after one step's transaction.
func runMortal(config, after string) error {
	c, err := daemon.LoadConfig(config)
	if err != nil {
		return err
	}
	if err := daemon.HardenProcess(); err != nil {
		return err
	}
	d := daemon.Daemon{Config: c, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Heads: os.Stderr, Checkpoint: func(plan, step string) {
		if plan+"/"+step == after {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}}
	return d.Run(context.Background())
}

// mortal builds the daemon's command. *after may change from one start to the next; empty means immortal.
func mortal(t *testing.T, after *string) func(config string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return func(config string) *exec.Cmd {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), configVariable+"="+config, killVariable+"="+*after)
		return cmd
	}
}

func start(t *testing.T, o world.Options) *world.World {
	t.Helper()
	o.Bin = bin
	w, err := world.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.Logs())
		}
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func keyOf(serial device.Serial) string { return fmt.Sprintf("serial=%s,fw=5.4.3", serial) }

func tokenPath(serial device.Serial) string {
	return "/v1/tokens/" + string(device.SlotToken(device.YubiKeyID(serial), 2))
}

// order has something done with the token of a key.
func order(ctx context.Context, t *testing.T, w *world.World, serial device.Serial, action string) {
	t.Helper()
	o := api.Order{Tokens: []string{string(device.SlotToken(device.YubiKeyID(serial), 2))}, Reason: "a test"}
	if err := w.Client.Post(ctx, "/v1/tokens/actions/"+action, o, new(api.Outcomes)); err != nil {
		t.Fatal(err)
	}
}
