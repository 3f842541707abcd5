//go:build guest

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

var (
	programs = flag.String("programs", "", "directory of the programs to test, and of devicetest.test and demo")
	moments  = flag.Int("moments", 20, "at how many random moments of an enroll the key is pulled")
)

const (
	patience = time.Minute // bounds waits that a bug would make endless
	bin      = "/usr/local/lib/tokendesk"
)

// Users of the guest: the officer is in the groups of keys and TPM, eve is in none.
var officer, eve *syscall.Credential

func TestMain(m *testing.M) {
	flag.Parse()
	if path, isHolder := os.LookupEnv(holdVariable); isHolder {
		if err := holder(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() (err error) {
	if _, err := os.Stat("/sys/devices/platform/vhci_hcd.0"); err != nil || os.Getuid() != 0 {
		return errors.New("these tests need the guest: run make e2e")
	}
	if officer, err = world.Credential("officer"); err != nil {
		return err
	}
	if eve, err = world.Credential("eve"); err != nil {
		return err
	}
	// The officer may be unable to reach the checkout.
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"tokendesk", "tokendeskd", "tokenemu", "devicetest.test", "demo"} {
		if err := install(filepath.Join(*programs, name), filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return install(self, filepath.Join(bin, "e2e.test"))
}

func install(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

func figure(name string, value float64) { fmt.Printf("figure %s %.2f\n", name, value) }

// desk is a world without a directory.
type desk struct {
	*testing.T
	*world.World
	touches int // that work has asked for
}

func start(t *testing.T, keys ...string) *desk {
	t.Helper()
	return startWith(t, world.Options{Keys: keys, Officer: officer})
}

func startWith(t *testing.T, o world.Options) *desk {
	t.Helper()
	o.Bin, o.NoCentral = bin, true
	return inWorld(t, world.Start, o)
}

// keysAlone are keys on USB, without a desk.
func keysAlone(t *testing.T, keys ...string) *desk {
	t.Helper()
	return inWorld(t, world.StartKeys, world.Options{Bin: bin, Keys: keys, Officer: officer})
}

func inWorld(t *testing.T, start func(world.Options) (*world.World, error), o world.Options) *desk {
	t.Helper()
	w, err := start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		logs := w.Logs()
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(logs)
		}
	})
	return &desk{T: t, World: w}
}

// bounded is a context for one thing that must happen.
func (d *desk) bounded() context.Context {
	ctx, cancel := context.WithTimeout(d.Context(), patience)
	d.Cleanup(cancel)
	return ctx
}

// absent and present are keys as tokenemu takes them.
func absent(s device.Serial) string  { return present(s) + ",present=false" }
func present(s device.Serial) string { return fmt.Sprintf("serial=%s,fw=5.4.3", s) }

func tokenPath(s device.Serial) string { return fmt.Sprintf("/v1/tokens/%s/otp2", device.YubiKeyID(s)) }

func enrollment(s device.Serial) api.Enroll {
	return api.Enroll{Device: string(device.YubiKeyID(s)), App: "otp2", User: "alice", Digits: 6, Enter: true}
}

// work has the daemon do something, and touches the key whenever it asks.
func (d *desk) work(ctx context.Context, s device.Serial, path string, body any) (api.Outcome, error) {
	return d.Client.Work(ctx, path, body, func(p api.Progress) {
		if p.Kind == "touch" {
			d.touches++
			if err := d.Press(ctx, s, p.Slot == 2); err != nil && !strings.Contains(err.Error(), "unplugged") {
				d.Error(err)
			}
		}
	})
}

func (d *desk) insert(s device.Serial) {
	d.Helper()
	if err := d.Emulator.Insert(d.bounded(), s.String()); err != nil {
		d.Fatal(err)
	}
	if err := d.AwaitKeys(d.bounded(), s); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) remove(s device.Serial) {
	d.Helper()
	if err := d.Emulator.Remove(d.bounded(), s.String()); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) port(s device.Serial) string {
	d.Helper()
	port, err := d.USBPort(d.bounded(), s)
	if err != nil {
		d.Fatal(err)
	}
	return port
}

// enroll programs a key that has just been inserted.
func (d *desk) enroll(s device.Serial) {
	d.Helper()
	if _, err := d.work(d.bounded(), s, "/v1/enroll", enrollment(s)); err != nil {
		d.Fatal(err)
	}
}

// doctor is what tokendesk doctor finds about devices.
func (d *desk) doctor() []api.Finding {
	d.Helper()
	var found api.Findings
	if err := d.Client.Get(d.bounded(), "/v1/doctor", nil, &found); err != nil {
		d.Fatal(err)
	}
	return slices.DeleteFunc(found.Findings, func(f api.Finding) bool { return f.Area != "devices" })
}

// run runs a program that must succeed and returns what it says.
func run(t *testing.T, as *syscall.Credential, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}
