package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"golang.org/x/sync/errgroup"

	"tokendesk/device"
	"tokendesk/sync/synctest"
)

// drawerKey is the first of ten keys that come out of a drawer late in the story. The kernel has no room for so many: there, the
// tray is what is inserted anyway.
const drawerKey device.Serial = 10000011

const drawerKeys = 10

// holders are who gets the keys of the drawer.
var holders = []string{"dora", "emil", "fritz", "gina", "hugo", "ina", "jan", "karl", "lena", "mona"}

// atOnce is how many keys are enrolled at a time.
const atOnce = 5

// held is a key and who has it.
type held struct {
	serial device.Serial
	user   string
}

// drawer are the keys of the tray chapter.
func (s *story) drawer() (all []held) {
	if s.Window != nil {
		return []held{{spareKey, holders[0]}}
	}
	for i, user := range holders[:drawerKeys] {
		all = append(all, held{drawerKey + device.Serial(i), user})
	}
	return all
}

// fillTray inserts the keys of the drawer, enrolls each for somebody new, and touches each in somebody's pocket.
func (s *story) fillTray(ctx context.Context) error {
	var serials []device.Serial
	for _, k := range s.drawer() {
		if err := errors.Join(s.hire(k.user), s.Emulator.Insert(ctx, k.serial.String())); err != nil {
			return err
		}
		serials = append(serials, k.serial)
	}
	if err := s.AwaitKeys(ctx, serials...); err != nil {
		return err
	}
	drifts := make([]int, len(serials))
	g, enrolling := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, k := range s.drawer() {
		g.Go(func() error {
			_, err := s.run(enrolling, nil, s.handOn(enrolling, k.serial), "enroll", "--device", string(device.YubiKeyID(k.serial)), "--app", "otp2", "--user", k.user)
			if err != nil {
				return err
			}
			drifts[i] = 3 + rand.IntN(5)
			if s.Window == nil { // where a touch takes no time
				drifts[i] += rand.IntN(500)
			}
			typed, err := s.Touch(enrolling, k.serial, slot2, drifts[i])
			if err == nil && len(typed) != drifts[i] {
				err = fmt.Errorf("%d touches typed %d codes", drifts[i], len(typed))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, k := range s.drawer() {
		s.fact("tokendesk", "%s is %s's, and was touched %d times since", device.YubiKeyID(k.serial), k.user, drifts[i])
	}
	return nil
}

// hire puts somebody into the directory.
func (s *story) hire(user string) error {
	add := ldap.NewAddRequest(synctest.UserDN(user), nil)
	add.Attribute("objectClass", []string{"inetOrgPerson"})
	add.Attribute("cn", []string{user})
	add.Attribute("sn", []string{user})
	add.Attribute("userPassword", []string{synctest.UserPassword(user)})
	return s.Slapd.AsAdmin(func(c *ldap.Conn) error { return c.Add(add) })
}

// resyncTray has all inserted keys resynced in one go.
func (s *story) resyncTray(ctx context.Context) error {
	out, err := s.run(ctx, s.show, s.hand(ctx), "resync", "--capture")
	if err != nil {
		return err
	}
	for _, k := range s.drawer() {
		if name := string(device.SlotToken(device.YubiKeyID(k.serial), 2)); !strings.Contains(out, "✓ "+name) {
			return fmt.Errorf("%s was not resynced", name)
		}
	}
	return nil
}

// trayLogins has everybody of the tray log in.
func (s *story) trayLogins(ctx context.Context) error {
	for _, k := range s.drawer() {
		codes, err := s.Touch(ctx, k.serial, slot2, 1)
		if err == nil && len(codes) != 1 {
			err = fmt.Errorf("%s typed %q", device.YubiKeyID(k.serial), codes)
		}
		if err != nil {
			return err
		}
		if err := s.login(ctx, k.user, codes[0], true); err != nil {
			return err
		}
	}
	return nil
}

// identifyOne touches one of the keys, and asks whose it is.
func (s *story) identifyOne(ctx context.Context) error {
	all := s.drawer()
	found := all[rand.IntN(len(all))]
	out, err := s.run(ctx, s.show, s.handOn(ctx, found.serial), "identify", "--capture")
	if err != nil {
		return err
	}
	if name := string(device.SlotToken(device.YubiKeyID(found.serial), 2)); !strings.Contains(out, found.user) || !strings.Contains(out, name) {
		return fmt.Errorf("%s of %s was not identified", name, found.user)
	}
	return nil
}

// handOn touches one key whenever a line asks for a touch.
func (s *story) handOn(ctx context.Context, serial device.Serial) func(line string) error {
	return func(line string) error {
		if !strings.HasPrefix(line, "●") {
			return nil
		}
		return s.Press(ctx, serial, slot2)
	}
}

// asked is a line of tokendesk that asks for touches of a key in a tray.
var asked = regexp.MustCompile(`^● touch yk-([0-9]+) (twice|again)`)

// hand touches whatever key a line asks for.
func (s *story) hand(ctx context.Context) func(line string) error {
	return func(line string) error {
		m := asked.FindStringSubmatch(line)
		if m == nil {
			return nil
		}
		serial, err := strconv.ParseUint(m[1], 10, 32)
		if err != nil {
			return err
		}
		err = s.Press(ctx, device.Serial(serial), slot2)
		if m[2] == "twice" && err == nil {
			err = s.Press(ctx, device.Serial(serial), slot2)
		}
		return err
	}
}

// show prints a line of tokendesk.
func (s *story) show(line string) { fmt.Fprintf(s.out, "    %s\n", line) }

// run runs tokendesk, has each line shown and heard by a hand, and returns them all.
func (s *story) run(ctx context.Context, show func(string), hand func(string) error, args ...string) (string, error) {
	cmd := s.Command(ctx, "tokendesk", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	var all, problem strings.Builder
	cmd.Stderr = &problem
	if show != nil {
		fmt.Fprintf(s.out, "  $ tokendesk %s\n", strings.Join(args, " "))
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var handErr error
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&all, lines.Text())
		if show != nil {
			show(lines.Text())
		}
		if handErr == nil {
			handErr = hand(lines.Text())
		}
	}
	if err := cmd.Wait(); err != nil {
		return all.String(), fmt.Errorf("tokendesk %s: %w: %s", args[0], errors.Join(err, handErr), strings.TrimSpace(problem.String()))
	}
	return all.String(), handErr
}
