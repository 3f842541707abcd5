package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/sync/synctest"
)

const (
	stateDir  = ".demo"
	downLimit = 20 * time.Second
)

var pidFile = filepath.Join(stateDir, "keeper.pid")

// up starts a keeper that outlives this process, and prints how to reach its world.
func up(ctx context.Context, bin string) error {
	if pid, running := keeper(); running {
		return fmt.Errorf("a demo world is running already (process %d): end it with make demo-down", pid)
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(stateDir, "keeper.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// The keeper runs from a file of its own: go run removes the one this process has.
	copied := filepath.Join(stateDir, "keeper")
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	if err := os.Remove(copied); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(copied, program, 0o700); err != nil {
		return err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "./"+copied, "-bin", bin, "keep")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stderr = log
	answer, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(answer)
	for lines.Scan() {
		if lines.Text() == endOfGuide {
			return os.WriteFile(pidFile, fmt.Appendln(nil, cmd.Process.Pid), 0o600)
		}
		fmt.Println(lines.Text())
	}
	text, _ := os.ReadFile(log.Name())
	return fmt.Errorf("the world did not start: %v: %s", cmd.Wait(), text)
}

const endOfGuide = "#"

// keep holds a world until it is told to end.
func keep(ctx context.Context, bin string) error {
	w, err := world.Start(options(bin))
	if err != nil {
		return err
	}
	drawer := &story{w, io.Discard}
	for _, user := range holders {
		if err := drawer.hire(user); err != nil {
			return errors.Join(err, w.Stop())
		}
	}
	guide(w)
	<-ctx.Done()
	return w.Stop()
}

// guide prints shell lines to evaluate, with the rest in comments.
func guide(w *world.World) {
	bin, _ := filepath.Abs(w.Bin)
	nitrokey := device.NitrokeyID(carolsKey)
	alice, bob := device.YubiKeyID(alicesKey), synctest.UserDN("bob")
	fmt.Printf(`export PATH=%s:$PATH
export TOKENDESK_SOCKET=%s
export TOKENEMU_SOCKET=%s
export LDAP_URI=%s
# the second directory server: %s
# passwords: %s   (logins are password and code, without a blank)
# directory administrator: %s %s
# try, with the lines above evaluated:
#   tokendesk devices --watch                      tokenemu remove %s; tokenemu insert %s
#   tokendesk enroll --device %s --app otp2 --user alice     tokenemu touch --long %s
#   ldapwhoami -x -H $LDAP_URI -D %s -w bob-passwordCODE
#   tokendesk list; tokendesk show %s/otp2; tokendesk status; tokendesk doctor; tokendesk drift; tokendesk outbox
#   tokendesk lifecycle; tokendesk disable %s/otp2 --reason 'on leave'; tokendesk enable %s/otp2
#   ten more keys, %s to %s, are in a drawer: tokenemu insert %s; tokendesk enroll --device %s --user %s …
#   a Nitrokey Pro, %s, as well (its admin PIN is %s): tokenemu insert %08x; tokendesk password %s/hotp1; tokendesk enroll --device %s --app hotp1 …
#   tokendesk resync --capture; tokendesk identify --capture     in another window: tokenemu touch --long --times 2 SERIAL…
#   tokendesk vault status; tokendesk vault backup; tokendesk audit list     the recovery identity is in %s
# the desk's files are in %s; end it all with make demo-down
%s
`, bin, w.Socket, w.EmulatorSocket, w.Slapd.URL, w.Pair.Providers[1].URL, passwords(), w.Slapd.AdminDN, w.Slapd.AdminPassword,
		alicesKey, alicesKey, alice, alicesKey, bob, alice, alice, alice,
		drawerKey, drawerKey+drawerKeys-1, drawerKey, device.YubiKeyID(drawerKey), holders[0],
		nitrokey, adminPIN, uint32(carolsKey), nitrokey, nitrokey, w.Identity, w.Dir, endOfGuide)
}

func passwords() string {
	var all []string
	for _, user := range slices.Concat(synctest.Users, holders[:1]) {
		all = append(all, user+" "+synctest.UserPassword(user))
	}
	return strings.Join(all, ", ") + " and so on"
}

// down ends the keeper and waits until it is gone.
func down(ctx context.Context) error {
	pid, running := keeper()
	if !running {
		return errors.New("no demo world is running")
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, downLimit)
	defer cancel()
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the keeper (process %d) does not end", pid)
		case <-time.After(20 * time.Millisecond):
		}
	}
	fmt.Println("The demo world has ended.")
	return os.RemoveAll(stateDir)
}

// keeper finds the process that holds a world; the pid file alone may be older than the machine's start.
func keeper() (pid int, running bool) {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, false
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid, err == nil && strings.Contains(string(command), filepath.Join(stateDir, "keeper"))
}
