package localapi_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
)

// Accounts that every Debian has.
const (
	nobody      = 65534
	nogroup     = 65534
	games       = 5
	gamesGroup  = 60
	nameOfGames = "games"
)

func TestBrowsersAndOtherVersionsAreRefused(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	for _, c := range []struct {
		name, value string
		status      int
		code        api.Code
		says        string
	}{
		{"Origin", "http://localhost:8080", http.StatusForbidden, api.Forbidden, "browsers may not use this socket"},
		{"Origin", "null", http.StatusForbidden, api.Forbidden, "browsers"},
		{"Referer", "http://example.org/", http.StatusForbidden, api.Forbidden, "browsers"},
		{api.VersionHeader, "0", http.StatusUpgradeRequired, api.WrongVersion, "install the same version of both and restart tokendeskd"},
		{api.VersionHeader, "not a version", http.StatusUpgradeRequired, api.WrongVersion, "speaks version " + api.Version},
		{api.VersionHeader, api.Version, http.StatusOK, "", ""},
		{"Accept", "*/*", http.StatusOK, "", ""},
	} {
		for _, path := range []string{"/v1/status", "/openapi.json", "/v1/devices/watch"} {
			a := d.ask(http.MethodGet, path, http.Header{c.name: {c.value}}, nil)
			if a.status != c.status || a.header.Get(api.VersionHeader) != api.Version || a.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s with %s %q: status %d %s", path, c.name, c.value, a.status, a.header)
			}
			if c.status == http.StatusOK {
				continue
			}
			if e := a.failure(t); e.Code != c.code || !strings.Contains(e.Message, c.says) {
				t.Errorf("%s with %s %q: %+v", path, c.name, c.value, e)
			}
		}
	}
	if a := d.ask(http.MethodGet, "/nothing", nil, nil); a.status != http.StatusNotFound || a.header.Get(api.VersionHeader) != api.Version {
		t.Errorf("unknown path: status %d %s", a.status, a.header)
	}
}

// TestPeerCredentials runs the real tokendesk as other users of the machine.
func TestPeerCredentials(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	closed := func() {
		code, said := d.as(nobody, nogroup)
		if code != 3 || !strings.Contains(said, "no permission on ") || !strings.Contains(said, "then log in again") {
			t.Errorf("nobody at a closed socket: exit code %d: %s", code, said)
		}
	}
	closed()
	d.open()
	if code, said := d.as(nobody, nogroup); code != 5 || !strings.Contains(said, "tokendesk: nobody may not use this desk") {
		t.Errorf("nobody without a group: exit code %d: %s", code, said)
	}
	d.configure("[api]", "[roles]\nofficers = \""+nameOfGames+"\"\n\n[api]")
	closed()
	if code, said := d.as(games, gamesGroup); code != 0 || !strings.Contains(said, "Vault") {
		t.Errorf("a member of the group: exit code %d: %s", code, said)
	}
	d.open()
	if code, said := d.as(nobody, nogroup); code != 5 || !strings.Contains(said, "'adduser nobody games', then log in again") {
		t.Errorf("nobody beside a group: exit code %d: %s", code, said)
	}
	if code, said := d.as(4000000000, nogroup); code != 5 || !strings.Contains(said, "uid 4000000000 may not use this desk") {
		t.Errorf("a user without a name: exit code %d: %s", code, said)
	}
}

// open lets everybody reach the socket, as a careless administrator would.
func (d *desk) open() {
	d.Helper()
	if err := os.Chmod(d.Socket, 0o666); err != nil {
		d.Fatal(err)
	}
}

// configure changes the configuration and starts the daemon anew.
func (d *desk) configure(old, new string) {
	d.Helper()
	text, err := os.ReadFile(d.Config)
	if err != nil {
		d.Fatal(err)
	}
	changed := strings.Replace(string(text), old, new, 1)
	if err := errors.Join(os.WriteFile(d.Config, []byte(changed), 0o600), d.StopDaemon(), d.StartDaemon(), d.AwaitKeys(d.Context(), keySerial)); err != nil {
		d.Fatal(err)
	}
}

// as runs tokendesk, with status if nothing else is given, as another user, who cannot enter the directories of this test: program and socket
// come to it as open files.
func (d *desk) as(uid, gid uint32, args ...string) (code int, said string) {
	d.Helper()
	if len(args) == 0 {
		args = []string{"status"}
	}
	program, err := os.Open(filepath.Join(d.Bin, "tokendesk"))
	if err != nil {
		d.Fatal(err)
	}
	defer program.Close()
	if err := os.Chmod(d.Dir, 0o711); err != nil {
		d.Fatal(err)
	}
	dir, err := os.Open(d.Dir)
	if err != nil {
		d.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.CommandContext(d.Context(), "/proc/self/fd/3", args...)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{program, dir}
	cmd.Env = []string{api.SocketVariable + "=/proc/self/fd/4/" + filepath.Base(d.Socket)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			d.Fatalf("uid %d: %v", uid, err)
		}
	}
	return cmd.ProcessState.ExitCode(), out.String()
}
