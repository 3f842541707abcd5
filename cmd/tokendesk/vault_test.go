package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"tokendesk/vault/audit"
)

// TestNoSecretInArguments: what takes a secret takes the name of its file, and nothing but the socket comes from the environment.
func TestNoSecretInArguments(t *testing.T) {
	found := map[string]bool{}
	var look func([]*cli.Command)
	look = func(commands []*cli.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				name := f.Names()[0]
				if d, ok := f.(cli.DocGenerationFlag); ok && len(d.GetEnvVars()) > 0 && name != "socket" {
					t.Errorf("%s --%s reads the environment", c.Name, name)
				}
				if !strings.Contains(name, "pin") && !strings.Contains(name, "identity") {
					continue
				}
				found[name] = true
				switch f.(type) {
				case *cli.PathFlag, *cli.BoolFlag:
				default:
					t.Errorf("%s --%s takes a value that is no path", c.Name, name)
				}
			}
			look(c.Subcommands)
		}
	}
	look(newApp().Commands)
	for _, name := range []string{"pin-file", "pin-stdin", "no-pin", "old-pin-file", "identity", "new-identity"} {
		if !found[name] {
			t.Errorf("there is no --%s", name)
		}
	}
}

// TestHelpFits: the explanations are for a terminal of 80 columns, in which the help sets them in by three.
func TestHelpFits(t *testing.T) {
	for _, text := range []string{vaultHelp, auditHelp, moveUsage, exitCodes} {
		for line := range strings.Lines(text) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n+len("   ") > narrow {
				t.Errorf("%d columns: %s", n, line)
			}
		}
	}
	if n := strings.Count(vaultHelp, "\n") + 1; n != 10 {
		t.Errorf("the vault is explained in %d lines", n)
	}
}

func TestFigures(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{thousands(0), "0"}, {thousands(999), "999"}, {thousands(1000), "1,000"}, {thousands(1204), "1,204"}, {thousands(1<<64 - 1), "18,446,744,073,709,551,615"},
		{size(0), "0 B"}, {size(10<<10 - 1), "10239 B"}, {size(10 << 10), "10 KiB"}, {size(3 << 30), "3,072 MiB"},
		{these(1, "1 token", "%d tokens"), "1 token"}, {these(0, "1 token", "%d tokens"), "0 tokens"}, {these(12345, "", "%d tokens"), "12,345 tokens"},
		{ago(time.Now().Add(time.Hour)), "now"}, {ago(time.Now().Add(-90 * time.Second)), "1 minute"}, {ago(time.Now().Add(-47 * time.Hour)), "47 hours"},
		{ago(time.Now().Add(-49 * time.Hour)), "2 days"}, {grouped("ab12cd"), "AB12 CD"}, {digitsOf("AB12-cd 34:5"), "ab12cd345"},
		{harmless("a\x1b[2Jb\u202ec\u2028d\n\x9be"), "a\ufffd[2Jb\ufffdc\ufffdd\ufffd\ufffde"}, {shortened("age1short"), "age1short"},
	} {
		if c.got != c.want {
			t.Errorf("%q, not %q", c.got, c.want)
		}
	}
}

func FuzzMoveRequest(f *testing.F) {
	f.Add(encodeRequest(moveRequested{[]byte{1, 2, 3}, strings.Repeat("ab12 ", 8)}))
	f.Add([]byte("-----BEGIN TOKENDESK MOVE REQUEST-----\nFingerprint: \n\nAQID\n-----END TOKENDESK MOVE REQUEST-----\n"))
	f.Add([]byte("nothing"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		if len(r.parent) == 0 || len(digitsOf(r.fingerprint)) < typedDigits {
			t.Fatalf("%+v was taken", r)
		}
		again, err := decodeRequest(encodeRequest(r))
		if err != nil || !bytes.Equal(again.parent, r.parent) || digitsOf(again.fingerprint) != digitsOf(r.fingerprint) {
			t.Fatalf("%+v became %+v: %v", r, again, err)
		}
	})
}

// FuzzExportHead reads the first line of an export, and heads out of a journal.
func FuzzExportHead(f *testing.F) {
	f.Add([]byte(`{"format":"tokendesk audit export","version":1,"key":"tokendesk-audit-key:7kOPbSHd5mWF1a8bBzRCqV7EeYqA6njYoixQBhA456s"}` + "\n"))
	f.Add([]byte("desk tokendeskd: tokendesk audit head v1 vault=x seq=1\n"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, err := claimedKey(bufio.NewReaderSize(bytes.NewReader(b), 16<<10)); err == nil && key == (audit.Key{}) {
			t.Fatal("a key that is none was taken")
		}
		if heads, err := readHeads(bytes.NewReader(b), "heads"); err == nil && len(heads) == 0 {
			t.Fatal("no head was taken for some")
		}
	})
}
