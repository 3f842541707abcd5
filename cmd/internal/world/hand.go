package world

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/sync/synctest"
)

// AwaitKeys waits until the desk has identified YubiKeys.
func (w *World) AwaitKeys(ctx context.Context, serials ...device.Serial) error {
	var ids []device.ID
	for _, s := range serials {
		ids = append(ids, device.YubiKeyID(s))
	}
	return w.AwaitDevices(ctx, ids...)
}

// AwaitDevices waits until the desk has identified devices.
func (w *World) AwaitDevices(ctx context.Context, ids ...device.ID) error {
	missing := map[string]bool{}
	for _, id := range ids {
		missing[string(id)] = true
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	err := w.Client.Watch(ctx, func(e api.KeyEvent) error {
		if e.Event != "removed" {
			delete(missing, e.Key.ID)
		}
		if len(missing) == 0 {
			return errSeen
		}
		return nil
	})
	if errors.Is(err, errSeen) {
		return nil
	}
	return fmt.Errorf("the desk does not see %v: %w", missing, cmp.Or(err, ctx.Err()))
}

var errSeen = errors.New("all keys are seen")

// Press touches a key once, whoever gets what it types.
func (w *World) Press(ctx context.Context, serial device.Serial, long bool) error {
	_, err := w.Emulator.Touch(ctx, serial.String(), long, 1)
	return err
}

// Touch touches a key that nobody holds and returns the texts it typed into the focused window, one a touch.
func (w *World) Touch(ctx context.Context, serial device.Serial, long bool, times int) (typed []string, err error) {
	if w.Window != nil {
		return w.touchUSB(ctx, serial, long, times)
	}
	touches, err := w.Emulator.Touch(ctx, serial.String(), long, times)
	for _, t := range touches {
		typed = append(typed, strings.TrimSpace(t.Text))
	}
	return typed, err
}

// touchUSB touches a key and waits for the line it types, one by one: for a window that is slow to read, the kernel keeps
// no more than 64 events, and one touch is fewer.
func (w *World) touchUSB(ctx context.Context, serial device.Serial, long bool, times int) ([]string, error) {
	port, err := w.USBPort(ctx, serial)
	if err != nil {
		return nil, err
	}
	before := len(w.Window.Lines(port))
	for n := range times {
		if err := w.typeLine(ctx, serial, port, long, before+n+1); err != nil {
			return nil, fmt.Errorf("touch %d of %d: %w", n+1, times, err)
		}
	}
	return w.Window.Lines(port)[before:], nil
}

// typeLine waits until the window hears a key, touches it, and waits until the key has typed so many lines.
func (w *World) typeLine(ctx context.Context, serial device.Serial, port string, long bool, lines int) error {
	ctx, cancel := context.WithTimeout(ctx, typingTimeout)
	defer cancel()
	if err := w.Window.Await(ctx, func() bool { return w.Window.Hears(port) }); err != nil {
		return fmt.Errorf("the system has no keyboard on USB port %s: %w", port, err)
	}
	if _, err := w.Emulator.Touch(ctx, serial.String(), long, 1); err != nil {
		return err
	}
	if err := w.Window.Await(ctx, func() bool { return len(w.Window.Lines(port)) >= lines }); err != nil {
		return fmt.Errorf("the key typed no line: %w", err)
	}
	return nil
}

// Witness is who tells what Touch returns.
func (w *World) Witness() string {
	if w.Window != nil {
		return "evdev"
	}
	return "tokenemu"
}

// USBPort is where the kernel has a key, such as "1-1".
func (w *World) USBPort(ctx context.Context, serial device.Serial) (string, error) {
	keys, err := w.Emulator.List(ctx)
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		if k.Serial == serial && k.USBPort != "" {
			return k.USBPort, nil
		}
	}
	return "", fmt.Errorf("key %s is not attached", serial)
}

// WhoAmI logs in at a directory server as one of its users with ldapwhoami, a program that knows nothing of the desk. accepted is false
// when the server says "invalid credentials"; anything else unexpected is an error.
func (w *World) WhoAmI(ctx context.Context, server *synctest.Slapd, user, code string) (answer string, accepted bool, err error) {
	password := filepath.Join(w.Dir, "login")
	if err := os.WriteFile(password, []byte(synctest.UserPassword(user)+code), 0o600); err != nil {
		return "", false, err
	}
	defer os.Remove(password)
	var out, problem bytes.Buffer
	cmd := exec.CommandContext(ctx, "ldapwhoami", "-x", "-H", server.URL, "-D", synctest.UserDN(user), "-y", password)
	cmd.Stdout, cmd.Stderr = &out, &problem
	err = cmd.Run()
	answer = strings.TrimSpace(cmp.Or(out.String(), problem.String()))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && strings.Contains(problem.String(), "Invalid credentials (49)") {
		return answer, false, nil
	}
	if err != nil {
		return answer, false, fmt.Errorf("ldapwhoami: %w: %s", err, answer)
	}
	return answer, true, nil
}
