package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/sync/synctest"
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
	var unused, fresh []string // codes of the old seed that nobody has used, and of the new one
	var elsewhere string       // a code that was used at the second server
	var oldSeed []byte         // as somebody would have it who copied alice's key in time
	hers := &card{story: s}
	for _, chapter := range []struct {
		title string
		tell  func() error
	}{
		{"Two blank keys are inserted", func() error { return s.seen(ctx, alicesKey, spareKey) }},
		{"alice's key is programmed, verified by what it types, and pushed", func() error {
			return s.desk(ctx, "enroll", "--device", string(device.YubiKeyID(alicesKey)), "--app", "otp2", "--user", "alice")
		}},
		{"She logs in with her password and a code", func() error { return s.touchAndLogin(ctx, "alice", 1, true) }},
		{"She logs in at the other server, which keeps that to itself", func() error {
			codes, err := s.touch(ctx, 1)
			if err != nil {
				return err
			}
			elsewhere = codes[0]
			return s.loginAt(ctx, 2, "alice", elsewhere, true)
		}},
		{"The desk reads both counters and levels them: the first server takes that code no more", func() error {
			if err := s.levelled(ctx, token); err != nil {
				return err
			}
			return s.login(ctx, "alice", elsewhere, false)
		}},
		{"The key is touched 30 times in a pocket", func() error {
			return s.touchAndLogin(ctx, "alice", 31, false)
		}},
		{"The desk resyncs it from two captured codes", func() error {
			if err := s.desk(ctx, "resync", "--capture", token); err != nil {
				return err
			}
			return s.touchAndLogin(ctx, "alice", 1, true)
		}},
		{"The same key becomes her smart card: a key is made on it, and the card proves that", func() error { return hers.provision(ctx) }},
		{"A certificate authority that is made on the spot certifies it", func() error { return hers.certify(ctx) }},
		{"Other programs read the certificate", func() error { return hers.read(ctx) }},
		{"She gets her PIN in a letter, and signs: no other PIN will do", func() error { return hers.sign(ctx) }},
		{"She leaves: her key is reissued to bob", func() (err error) {
			if unused, err = s.touch(ctx, 1); err != nil {
				return err
			}
			if oldSeed, err = s.seed(ctx, token); err != nil {
				return err
			}
			return s.desk(ctx, "reissue", token, "--to", "bob", "--yes")
		}},
		{"Her password no longer opens anything, whatever the code", func() (err error) {
			if fresh, err = s.touch(ctx, 2); err != nil {
				return err
			}
			if err := s.login(ctx, "alice", unused[0], false); err != nil {
				return err
			}
			if err := s.login(ctx, "alice", fresh[0], false); err != nil {
				return err
			}
			return s.login(ctx, "alice", "", false)
		}},
		{"The old seed opens nothing for bob either", func() error {
			next, err := s.nextCode(ctx, token, oldSeed, "the old seed")
			if err != nil {
				return err
			}
			return s.login(ctx, "bob", next, false)
		}},
		{"The new one lets him in", func() error { return s.login(ctx, "bob", fresh[1], true) }},
		{"The card was wiped as well, and her certificate is to be revoked", func() error { return hers.wiped(ctx) }},
		{"He signs for it: the receipt proves itself without the desk, and with one letter changed it does not", func() error { return s.sign(ctx, token) }},
		{"The vault is backed up, and its audit trail goes to an auditor", func() error { return s.keep(ctx) }},
		{"The workstation dies: another TPM, an empty disk, the backup and the recovery identity", func() error { return s.recover(ctx, token) }},
		{"bob's key is resynced, and he logs in", func() error {
			if err := s.desk(ctx, "resync", "--capture", token); err != nil {
				return err
			}
			return s.touchAndLogin(ctx, "bob", 1, true)
		}},
		{"carol gets a key of another make: nobody touches it, its codes are calculated", func() error { return s.otherVendor(ctx) }},
		{"A drawer of keys is handed out, and all of them are touched in pockets", func() error { return s.fillTray(ctx) }},
		{"They come back on a tray: each is touched twice, in any order, and all are resynced", func() error { return s.resyncTray(ctx) }},
		{"Everybody logs in", func() error { return s.trayLogins(ctx) }},
		{"One of them lies on the floor: whose is it?", func() error { return s.identifyOne(ctx) }},
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
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "  out  ") { // what is in a drawer is seen by nobody
			s.quote("tokenemu", line)
		}
	}
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
	_, err := s.run(ctx, s.show, s.handOn(ctx, alicesKey), args...)
	return err
}

// touch touches alice's key and returns what it typed into the window.
func (s *story) touch(ctx context.Context, times int) ([]string, error) {
	codes, err := s.Touch(ctx, alicesKey, slot2, times)
	if err == nil && (len(codes) != times || slices.Contains(codes, "")) {
		err = fmt.Errorf("%d touches typed %q", times, codes)
	}
	return codes, err
}

// touchAndLogin logs in with the last of some codes.
func (s *story) touchAndLogin(ctx context.Context, user string, times int, want bool) error {
	codes, err := s.touch(ctx, times)
	if err != nil {
		return err
	}
	if times == 1 {
		s.fact(s.Witness(), "typed %s", codes[0])
	} else {
		s.fact(s.Witness(), "typed %s, %s … %s", codes[0], codes[1], codes[times-1])
	}
	return s.login(ctx, user, codes[times-1], want)
}

// login tries the user's password and a code at the first server, and compares with what is expected.
func (s *story) login(ctx context.Context, user, code string, want bool) error {
	return s.loginAt(ctx, 1, user, code, want)
}

// loginAt is login at one of the servers, which count from 1.
func (s *story) loginAt(ctx context.Context, n int, user, code string, want bool) error {
	answer, accepted, err := s.WhoAmI(ctx, s.Providers()[n-1], user, code)
	if err != nil {
		return err
	}
	with := "and the code " + code
	if code == "" {
		with = "alone"
	}
	s.fact(fmt.Sprintf("ldapwhoami at server %d", n), "%s's password %s: %s", user, with, answer)
	if accepted != want {
		return fmt.Errorf("server %d %s %s's password %s", n, map[bool]string{true: "accepts", false: "refuses"}[accepted], user, with)
	}
	return nil
}

// seed reads a token's seed as only the directory's administrator can.
func (s *story) seed(ctx context.Context, token string) ([]byte, error) {
	value, err := s.attribute(ctx, token, "oathSecret")
	if err != nil {
		return nil, err
	}
	encoded, isBinary := strings.CutPrefix(value, ": ")
	if !isBinary {
		return []byte(strings.TrimPrefix(value, " ")), nil
	}
	return base64.StdEncoding.DecodeString(encoded)
}

// nextCode has oathtool compute the code that the directory would expect next if it had a seed.
func (s *story) nextCode(ctx context.Context, token string, seed []byte, whose string) (string, error) {
	used, err := s.attribute(ctx, token, "oathHOTPCounter")
	if err != nil {
		return "", err
	}
	last, err := strconv.Atoi(strings.TrimSpace(used))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "oathtool", "--hotp", "--counter", strconv.Itoa(last+1), "-")
	cmd.Stdin = strings.NewReader(hex.EncodeToString(seed) + "\n")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("oathtool: %w", err)
	}
	code := strings.TrimSpace(string(out))
	s.fact("oathtool", "with %s the next code would be %s", whose, code)
	return code, nil
}

// levelled waits until both servers have the same counter.
func (s *story) levelled(ctx context.Context, token string) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		var counters []string
		for _, server := range s.Providers() {
			value, err := s.attributeAt(ctx, server, token, "oathHOTPCounter")
			if err != nil {
				return err
			}
			counters = append(counters, strings.TrimSpace(value))
		}
		if counters[0] == counters[1] {
			s.fact("ldapsearch", "the last used counter is %s at server 1, and %s at server 2", counters[0], counters[1])
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the servers' counters stay at %s and %s", counters[0], counters[1])
		case <-again.C:
		}
	}
}

// attribute asks the first server for one attribute of a token.
func (s *story) attribute(ctx context.Context, token, name string) (string, error) {
	return s.attributeAt(ctx, s.Slapd, token, name)
}

// attributeAt asks ldapsearch for one attribute of a token, as the directory's administrator, and returns what follows its colon.
func (s *story) attributeAt(ctx context.Context, server *synctest.Slapd, token, name string) (string, error) {
	password := filepath.Join(s.Dir, "administrator")
	if err := os.WriteFile(password, []byte(server.AdminPassword), 0o600); err != nil {
		return "", err
	}
	defer os.Remove(password)
	id := device.TokenID(token)
	out, err := exec.CommandContext(ctx, "ldapsearch", "-x", "-LLL", "-o", "ldif_wrap=no", "-H", server.URL, "-D", server.AdminDN, "-y", password,
		"-b", synctest.TokensBase, "(cn="+id.Central()+")", name).Output()
	if err != nil {
		return "", fmt.Errorf("ldapsearch: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if value, found := strings.CutPrefix(line, name+":"); found {
			return strings.TrimRight(value, "\n"), nil
		}
	}
	return "", fmt.Errorf("the directory has no %s for %s", name, id)
}

func (s *story) quote(who, text string) {
	for line := range strings.Lines(text) {
		s.fact(who, "%s", strings.TrimRight(line, "\n"))
	}
}
