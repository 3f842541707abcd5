package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
)

// program is tokendesk as a script has it.
func program(ctx context.Context, ts *testscript.TestScript, args []string) *exec.Cmd {
	if len(args) == 0 || args[0] != "tokendesk" {
		ts.Fatalf("expected tokendesk and its arguments, not %q", args)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, args[0]), args[1:]...)
	cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"PATH", "TZ", "HOME", "TMPDIR", "GORACE", "NO_COLOR", api.SocketVariable} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	return cmd
}

// ended checks how a program has ended.
func ended(ts *testscript.TestScript, neg bool, cmd *exec.Cmd, err error) {
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%q: %v", cmd.Args, err)
	}
	on(ts).code = cmd.ProcessState.ExitCode()
	if neg != (err != nil) {
		ts.Fatalf("%q ended with %d", cmd.Args, on(ts).code)
	}
}

func cmdGiven(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	input, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer input.Close()
	cmd := program(ctx, ts, args[1:])
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, ts.Stdout(), ts.Stderr()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // nobody is at a terminal
	ended(ts, neg, cmd, cmd.Run())
}

func cmdDialog(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	screen, keyboard, err := openTerminal()
	ts.Check(err)
	defer screen.Close()
	cmd := program(ctx, ts, args[1:])
	cmd.Env = append(cmd.Env, "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = keyboard, keyboard, keyboard
	if in := ts.Getenv("INPUT"); in != "" {
		f, err := os.Open(ts.MkAbs(in))
		ts.Check(err)
		defer f.Close()
		cmd.Stdin = f
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	err = cmd.Start()
	keyboard.Close()
	ts.Check(err)
	shown, err := converse(ts, screen, ts.ReadFile(args[0]), cmd.Process.Pid)
	fmt.Fprint(ts.Stdout(), shown)
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		ts.Fatalf("%v in:\n%s", err, shown)
	}
	ended(ts, neg, cmd, cmd.Wait())
}

// converse plays a dialog with a process, and returns all that was on the screen.
func converse(ts *testscript.TestScript, screen *os.File, dialog string, pid int) (string, error) {
	var all bytes.Buffer
	seen := 0 // up to here it was waited for
	more := func() error {
		b := make([]byte, 4096)
		screen.SetReadDeadline(time.Now().Add(patience))
		n, err := screen.Read(b)
		all.Write(bytes.ReplaceAll(b[:n], []byte("\r\n"), []byte("\n")))
		return err
	}
	for line := range strings.Lines(dialog) {
		verb, words, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch verb {
		case "see":
			for {
				if at := strings.Index(all.String()[seen:], words); at >= 0 {
					seen += at + len(words)
					break
				}
				if err := more(); err != nil {
					return all.String(), fmt.Errorf("waited in vain for %q: %w", words, err)
				}
			}
		case "type":
			fmt.Fprintln(screen, words)
		case "press":
			fmt.Fprint(screen, strings.ReplaceAll(words, "^C", "\x03"))
		case "protected":
			if err := exposed(pid, map[string][]byte{"the secret": []byte(words)}); err != nil {
				return all.String(), err
			}
		case "release":
			ts.Value(fakeKey{}).(*fakeDesk).release <- struct{}{}
		default:
			return all.String(), fmt.Errorf("a dialog cannot %q", verb)
		}
	}
	for {
		if err := more(); errors.Is(err, syscall.EIO) || errors.Is(err, io.EOF) { // nobody has the terminal open any more
			return all.String(), nil
		} else if err != nil {
			return all.String(), err
		}
	}
}

// openTerminal makes a terminal of 80 columns (pty(7)): its screen for whoever sits there, its keyboard for a program.
func openTerminal() (screen, keyboard *os.File, err error) {
	screen, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			screen.Close()
		}
	}()
	raw, err := screen.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var number int
	var ioctlErr error
	err = raw.Control(func(fd uintptr) {
		if ioctlErr = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); ioctlErr == nil {
			number, ioctlErr = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
		if ioctlErr == nil {
			ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: narrow})
		}
	})
	if err = errors.Join(err, ioctlErr); err != nil {
		return nil, nil, err
	}
	keyboard, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	return screen, keyboard, err
}
