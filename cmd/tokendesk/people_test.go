package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
)

// cmdAs runs tokendesk as another user of the machine, who cannot enter the directories of this test: program and socket come
// to it as open files.
func cmdAs(ts *testscript.TestScript, neg bool, args []string) { asOther(ts, neg, args, nil) }

// asOther plays tokendesk as another user, and has do see every line that it prints.
func asOther(ts *testscript.TestScript, neg bool, args []string, do func(line string, p *os.Process)) {
	if len(args) < 2 || args[1] != "tokendesk" {
		ts.Fatalf("as USER tokendesk ARG…, not %q", args)
	}
	who, err := world.Credential(args[0])
	ts.Check(err)
	program, err := os.Open(filepath.Join(bin, "tokendesk"))
	ts.Check(err)
	defer program.Close()
	ts.Check(os.Chmod(on(ts).Dir, 0o711))
	dir, err := os.Open(on(ts).Dir)
	ts.Check(err)
	defer dir.Close()
	playAs(ts, neg, func(cmd *exec.Cmd) {
		cmd.Path, cmd.Dir = "/proc/self/fd/3", "/"
		cmd.ExtraFiles = []*os.File{program, dir}
		cmd.Env = []string{"TZ=UTC", api.SocketVariable + "=/proc/self/fd/4/" + filepath.Base(on(ts).Socket)}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	}, "tokendesk", args[2:], do)
}
