package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
)

// disk is a stage whose vault lies on a file system of its own, which has room for little else.
type disk struct {
	*testing.T
	*stage
	dir string
}

func smallDisk(t *testing.T) *disk {
	t.Helper()
	s, err := newStage(t.Context(), options{bin: bin}, Scenario{Blank: true})
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{t, s, filepath.Join(s.Dir, "disk")}
	t.Cleanup(func() {
		d.must(s.StopDaemon())
		d.must(unix.Unmount(d.dir, 0))
		d.must(s.close())
	})
	d.must(s.StopDaemon())
	d.must(os.Mkdir(d.dir, 0o700))
	d.must(unix.Mount("tokendesk-test", d.dir, "tmpfs", 0, "size=2m,mode=0700"))
	config, err := os.ReadFile(s.Config)
	d.must(err)
	d.must(os.WriteFile(s.Config, []byte(strings.ReplaceAll(string(config), vaultFile(s.World), d.vault())+"\n[backup]\ndir = \""+s.outside+"\"\n"), 0o600))
	d.must(s.StartDaemon())
	d.must(initialize(t.Context(), s))
	d.must(holding(t.Context(), s))
	return d
}

func (d *disk) vault() string { return filepath.Join(d.dir, "vault.db") }

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

func (d *disk) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// fill takes all the room.
func (d *disk) fill() {
	d.Helper()
	f, err := os.Create(d.ballast())
	d.must(err)
	defer f.Close()
	zeros, err := os.Open("/dev/zero")
	d.must(err)
	defer zeros.Close()
	if _, err := io.Copy(f, zeros); !errors.Is(err, unix.ENOSPC) {
		d.Fatalf("the disk does not fill: %v", err)
	}
}

// useUp changes a token until the vault's own free pages are used up as well.
func (d *disk) useUp(token string) {
	d.Helper()
	for i := range 1000 {
		o := api.Order{Tokens: []string{token}, Reason: "a test"}
		if err := d.Client.Post(d.Context(), "/v1/tokens/actions/"+[]string{"disable", "enable"}[i%2], o, new(api.Outcomes)); err != nil {
			d.expect(err, api.VaultTrouble, "no space left on device", "make room")
			return
		}
	}
	d.Fatal("the vault does not run out of room")
}

func (d *disk) makeRoom() {
	d.Helper()
	d.must(os.Remove(d.ballast()))
}

// expect checks that an error has a code, a cause and a cure.
func (d *disk) expect(err error, code api.Code, words ...string) {
	d.Helper()
	var known *api.Error
	if !errors.As(err, &known) || known.Code != code {
		d.Fatalf("%v is no %s", err, code)
	}
	for _, w := range words {
		if !strings.Contains(known.Message, w) {
			d.Errorf("%q does not say %q", known.Message, w)
		}
	}
}

// works: the vault is whole, and the key's codes are those of its token.
func (d *disk) works() {
	d.Helper()
	d.must(asBefore(d.Context(), d.stage, true))
	d.must(d.checkVault(d.Context()))
	left, err := filepath.Glob(filepath.Join(d.dir, ".*"))
	if d.must(err); len(left) > 0 {
		d.Errorf("left behind: %q", left)
	}
}

// The disk is full when the key asks to be touched, with its seed sealed and programmed.
func TestFullDiskInEnroll(t *testing.T) {
	t.Parallel()
	d := smallDisk(t)
	other := string(d.token())
	d.must(freshKey(t.Context(), d.stage))
	full := false
	_, err := d.Client.Work(t.Context(), "/v1/enroll", d.enrollment(), func(p api.Progress) {
		if p.Kind != "touch" {
			return
		}
		if !full {
			d.fill()
			d.useUp(other)
			full = true
		}
		d.must(d.Press(t.Context(), d.key, p.Slot == 2))
	})
	d.expect(err, api.Unfinished, "no space left on device", "make room")
	before, found, err := d.look(t.Context())
	if err != nil || !found || before.Unfinished == "" {
		t.Errorf("on the full disk the token is %+v, %v, %v", before, found, err)
	}
	d.makeRoom()
	if _, _, err := d.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.works()
}

func TestFullDiskInRotate(t *testing.T) {
	t.Parallel()
	d := smallDisk(t)
	d.fill()
	d.expect(rotate(t.Context(), d.stage), api.VaultTrouble, "no space left on device", "the old file stays", "make room")
	d.works()
	d.makeRoom()
	d.must(rotate(t.Context(), d.stage))
	d.works()
}

func TestFullDiskInBackup(t *testing.T) {
	t.Parallel()
	d := smallDisk(t)
	d.fill()
	d.expect(backUp(t.Context(), d.stage), api.VaultTrouble, "not enough room in "+d.dir, "make room")
	d.works()
	d.makeRoom()
	d.must(backUp(t.Context(), d.stage))
	d.must(backedUp(t.Context(), d.stage, true))
	d.works()
}

// state waits until the daemon, which tries again by itself, has the vault in a state.
func (d *disk) state(want string) api.Vault {
	d.Helper()
	v, err := unlocked(d.Context(), d.World, "")
	d.must(err)
	if v.State != want {
		d.Fatalf("the vault is %s, not %s: %s; %s", v.State, want, v.Problem, v.Cure)
	}
	return v
}

func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	d := smallDisk(t)
	d.must(d.StopDaemon())
	remount := func(flags uintptr) { d.must(unix.Mount("", d.dir, "", unix.MS_REMOUNT|flags, "")) }
	remount(unix.MS_RDONLY)
	err := d.StartDaemon()
	var v api.Vault
	if err == nil {
		v = d.state("permission")
	}
	remount(0)
	d.must(err)
	if !strings.Contains(v.Problem, "read-only file system") || !strings.Contains(v.Cure, "write access to "+d.vault()) {
		t.Errorf("on a disk that is read-only: %+v", v)
	}
	d.state(stateOpen)
	d.works()
}

func TestFileOpenToOthers(t *testing.T) {
	t.Parallel()
	d := smallDisk(t)
	d.must(locked(t.Context(), d.World))
	d.must(os.Chmod(d.vault(), 0o640))
	v := d.state("permission")
	if !strings.Contains(v.Problem, "0640") || !strings.Contains(v.Cure, "chmod 600 "+d.vault()) {
		t.Errorf("with a file that others read: %+v", v)
	}
	d.must(os.Chmod(d.vault(), 0o600))
	d.state(stateOpen)
	d.works()
}
