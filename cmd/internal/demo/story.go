package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

// The keys of the story.
const (
	alicesKey device.Serial = 10000001
	spareKey  device.Serial = 10000002
)

// slot2 is typed by a long touch.
const slot2 = true

// story plays what the desk is for, from a blank key to a leaver's successor. Every fact it prints was
// answered by a program that is not the desk; it ends at the first that is not so.
type story struct {
	*world.World
	out io.Writer
}

// play tells the story and returns the first thing that went otherwise.
func (s *story) play(ctx context.Context) error {
	token := string(device.SlotToken(device.YubiKeyID(alicesKey), 2))
	var last, fresh []string // codes of the old seed that nobody has used, and of the new one
	for _, chapter := range []struct {
		title string
		tell  func() error
	}{
		{"Two blank keys are inserted", func() error { return s.seen(ctx, alicesKey, spareKey) }},
		{"alice's key is programmed, verified by what it types, and pushed", func() error {
			return s.desk(ctx, "enroll", "--device", string(device.YubiKeyID(alicesKey)), "--slot", "2", "--user", "alice")
		}},
		{"She logs in with her password and a code", func() error { return s.login(ctx, "alice", s.touch(ctx, 1), true) }},
		{"The key is touched 30 times in a pocket", func() error {
			codes := s.touch(ctx, 31)
			if len(codes) == 31 {
				s.fact("tokenemu", "typed %s … %s", codes[0], codes[29])
			}
			return s.login(ctx, "alice", codes, false)
		}},
		{"The desk resyncs it from two captured codes", func() error {
			if err := s.desk(ctx, "resync", "--capture", token); err != nil {
				return err
			}
			return s.login(ctx, "alice", s.touch(ctx, 1), true)
		}},
		{"She leaves: her key is reissued to bob", func() error {
			last = s.touch(ctx, 4)
			return s.desk(ctx, "reissue", token, "--to", "bob", "--yes")
		}},
		{"Her password no longer opens anything, whatever the code", func() error {
			fresh = s.touch(ctx, 3)
			if len(last) != 4 || len(fresh) != 3 {
				return fmt.Errorf("the key typed %d and %d codes instead of 4 and 3", len(last), len(fresh))
			}
			if err := s.login(ctx, "alice", last[:1], false); err != nil {
				return err
			}
			if err := s.login(ctx, "alice", fresh[:1], false); err != nil {
				return err
			}
			return s.login(ctx, "alice", []string{""}, false)
		}},
		{"The old seed is dead, for bob too; the new one lets him in", func() error {
			if err := s.login(ctx, "bob", last[1:2], false); err != nil {
				return err
			}
			return s.login(ctx, "bob", fresh[1:2], true)
		}},
	} {
		fmt.Fprintf(s.out, "\n%s\n", chapter.title)
		if err := chapter.tell(); err != nil {
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	return nil
}

func (s *story) fact(who, format string, args ...any) {
	fmt.Fprintf(s.out, "  %s: %s\n", who, fmt.Sprintf(format, args...))
}

// seen asks the emulator what it has plugged in, and the desk whether it sees the same.
func (s *story) seen(ctx context.Context, serials ...device.Serial) error {
	out, err := s.Command(ctx, "tokenemu", "list").CombinedOutput()
	if err != nil {
		return fmt.Errorf("tokenemu list: %w: %s", err, out)
	}
	s.quote("tokenemu", string(out))
	if err := s.AwaitKeys(ctx, serials...); err != nil {
		return err
	}
	out, err = s.Command(ctx, "tokendesk", "devices").CombinedOutput()
	if err != nil {
		return fmt.Errorf("tokendesk devices: %w: %s", err, out)
	}
	s.quote("tokendesk", string(out))
	return nil
}

// desk runs tokendesk and touches alice's key whenever it asks for that.
func (s *story) desk(ctx context.Context, args ...string) error {
	cmd := s.Command(ctx, "tokendesk", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var problem strings.Builder
	cmd.Stderr = &problem
	fmt.Fprintf(s.out, "  $ tokendesk %s\n", strings.Join(args, " "))
	if err := cmd.Start(); err != nil {
		return err
	}
	var touchErr error
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintf(s.out, "    %s\n", lines.Text())
		if strings.HasPrefix(lines.Text(), "●") && touchErr == nil {
			_, touchErr = s.Touch(ctx, alicesKey, slot2, 1)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("tokendesk %s: %w: %s", args[0], err, strings.TrimSpace(problem.String()))
	}
	return touchErr
}

// touch touches alice's key and returns what it typed into the window.
func (s *story) touch(ctx context.Context, times int) []string {
	codes, err := s.Touch(ctx, alicesKey, slot2, times)
	if err != nil {
		s.fact("tokenemu", "%v", err)
		return nil
	}
	return codes
}

// login tries the user's password with the last of codes at the directory, and compares with what is expected.
func (s *story) login(ctx context.Context, user string, codes []string, want bool) error {
	if len(codes) == 0 {
		return fmt.Errorf("the key typed nothing")
	}
	code := codes[len(codes)-1]
	answer, accepted, err := s.WhoAmI(ctx, user, code)
	if err != nil {
		return err
	}
	with := "and the code " + code
	if code == "" {
		with = "alone"
	}
	s.fact("ldapwhoami", "%s's password %s: %s", user, with, answer)
	if accepted != want {
		return fmt.Errorf("the directory %s %s's password %s, and must not", map[bool]string{true: "accepts", false: "refuses"}[accepted], user, with)
	}
	return nil
}

func (s *story) quote(who, text string) {
	for line := range strings.Lines(text) {
		s.fact(who, "%s", strings.TrimRight(line, "\n"))
	}
}
