package daemon_test

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/cmd/internal/daemon"
)

// A daemon that cannot have its socket where it was told to must leave alone what is there.
func TestSocketIsNotTakenFromAnybody(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, path string)
		words   string
	}{
		"a file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "exists and is not a socket"},
		"a link": {func(t *testing.T, path string) {
			if err := os.Symlink("/etc/passwd", path); err != nil {
				t.Fatal(err)
			}
		}, "exists and is not a socket"},
		"a live socket": {func(t *testing.T, path string) {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "another tokendeskd serves"},
		"a directory open to others": {func(t *testing.T, path string) {
			if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
		}, "others could replace the socket"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "td")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			sockets := filepath.Join(dir, "run")
			if err := os.Mkdir(sockets, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(sockets, "desk.sock")
			c.prepare(t, path)
			before, _ := os.Lstat(path)
			d := daemon.Daemon{Log: slog.New(slog.DiscardHandler), Config: daemon.Config{
				Vault: daemon.VaultConfig{Path: filepath.Join(dir, "vault.db"), Seal: "passphrase"},
				API:   daemon.APIConfig{Socket: path},
			}}
			if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("it ended with: %v", err)
			}
			if after, _ := os.Lstat(path); (before == nil) != (after == nil) || before != nil && !os.SameFile(before, after) {
				t.Error("what was there is there no more")
			}
		})
	}
}

// A group that does not exist would leave nobody with its role, unnoticed.
func TestRolesNeedTheirGroups(t *testing.T) {
	dir := t.TempDir()
	d := daemon.Daemon{Log: slog.New(slog.DiscardHandler), Config: daemon.Config{
		Vault: daemon.VaultConfig{Path: filepath.Join(dir, "vault.db"), Seal: "passphrase"},
		API:   daemon.APIConfig{Socket: filepath.Join(dir, "desk.sock")},
		Roles: daemon.RolesConfig{Auditors: "no-such-group"},
	}}
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "gives roles to a group: ") || !strings.Contains(err.Error(), "addgroup --system no-such-group") {
		t.Errorf("it ended with: %v", err)
	}
	if _, err := os.Lstat(d.Config.API.Socket); err == nil {
		t.Error("its socket is left behind")
	}
}
