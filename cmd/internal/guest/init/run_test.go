package main

import (
	"os/exec"
	"testing"

	"tokendesk/cmd/internal/guest/job"
)

func TestRefusal(t *testing.T) {
	for _, c := range []struct {
		cmd  *exec.Cmd
		code int
	}{
		{exec.Command("no-such-command"), notFound},
		{exec.Command("/no/such/command"), notFound},
		{&exec.Cmd{Path: "/bin/true", Dir: "/no/such/directory"}, notFound},
		{exec.Command(t.TempDir()), cannotRun},
		{exec.Command("/etc/passwd"), cannotRun},
	} {
		err := c.cmd.Start()
		if err == nil {
			t.Fatalf("%s runs", c.cmd.Path)
		}
		if r := refusal(err); r.Event != job.Refused || r.Code != c.code || r.Text == "" {
			t.Errorf("%s: %+v", c.cmd.Path, r)
		}
	}
}

// Others may end too: the status is the command's.
func TestBury(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 255": 255, "kill -KILL $$": 137, "kill -TERM $$": 143} {
		orphan := exec.Command("true")
		if err := orphan.Start(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if got := bury(cmd.Process.Pid); got != want {
			t.Errorf("%s: %d", script, got)
		}
		orphan.Process.Release()
		cmd.Process.Release()
	}
}
