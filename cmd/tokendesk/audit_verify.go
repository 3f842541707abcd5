package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/audit"
)

const (
	maxKeyFile  = 1024
	maxHeadLine = 64 << 10
	maxHeads    = 100_000
	headMark    = "tokendesk audit head "
)

// verification is what an export proves, for programs.
type verification struct {
	Verified    bool   `json:"verified"` // with a key that the caller knows
	Vault       string `json:"vault"`
	Key         string `json:"key"`
	Fingerprint string `json:"fingerprint"`
	From        uint64 `json:"from"`
	To          uint64 `json:"to"`
	Missing     uint64 `json:"missing"` // entries before the file's first one
	Signed      string `json:"signed"`
	Heads       int    `json:"heads"`           // known ones that agree with the file
	Unchecked   int    `json:"unchecked_heads"` // known ones for entries that are not in the file
	Others      int    `json:"other_heads"`     // known ones of other keys
}

func verified(s audit.Summary, known []audit.Head, proven bool) verification {
	return verification{
		Verified: proven, Vault: s.Vault, Key: s.Key.String(), Fingerprint: s.Key.Fingerprint(), From: s.From, To: s.To, Missing: s.Before(),
		Signed: moment(s.Head.Time), Heads: len(known) - len(s.Unchecked), Unchecked: len(s.Unchecked),
	}
}

func auditVerify(c *cli.Context) error {
	args, err := arguments(c, "export")
	if err != nil {
		return err
	}
	var file io.Reader = c.App.Reader
	if args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return usage("cannot read the export: %v", err)
		}
		defer f.Close()
		file = f
	}
	in := bufio.NewReaderSize(file, 16<<10)
	proven := c.IsSet("key")
	var key audit.Key
	if proven {
		key, err = knownKey(c.String("key"))
	} else {
		key, err = claimedKey(in)
	}
	if err != nil {
		return err
	}
	known, others, err := knownHeads(c.StringSlice("head"), key)
	if err != nil {
		return err
	}
	stop := working(c, "reading and proving every entry")
	s, err := audit.Verify(in, key, nil, known...)
	stop()
	if err != nil {
		return api.Errorf(api.NotVerified, "%s does not verify: %v", args[0], err)
	}
	out := output(c)
	v := verified(s, known, proven)
	v.Others = others
	if out.json {
		if err := out.printJSON(v); err != nil {
			return err
		}
	} else {
		printVerified(out, v, s)
	}
	if !proven {
		return exitCode(api.NotVerified.ExitCode())
	}
	return nil
}

func printVerified(out screen, v verification, s audit.Summary) {
	span := "the file has no entry, and that is"
	switch {
	case v.To == v.From:
		span = "entry " + thousands(v.From) + " is"
	case v.To > v.From:
		span = "entries " + thousands(v.From) + " to " + thousands(v.To) + " are"
	}
	signer := "key " + v.Fingerprint
	if !v.Verified {
		out.wait("NOT VERIFIED: without --key, this proves only that the file agrees with itself. Whoever made it may have made its key, too.")
		out.wait("%s as %s has signed on %s", span, signer, v.Signed)
		out.say("Compare that fingerprint with the one in tokendesk vault status on the desk, or give the key that you were given: --key KEY")
	} else {
		out.done("%s as the desk wrote them: none was changed, removed, added or moved", span)
		out.done("signed on %s by %s, of vault %s", v.Signed, signer, s.Vault)
	}
	if v.Heads > 0 {
		out.done("%s with it", these(v.Heads, "1 head that was shipped before agrees", "%d heads that were shipped before agree"))
	}
	if v.Missing > 0 {
		out.wait("entries 1 to %s are not in this file", thousands(v.Missing))
	}
	if v.Unchecked > 0 {
		out.wait("%s not checked: for entries before this file", these(v.Unchecked, "1 head was", "%d heads were"))
	}
	if v.Others > 0 {
		out.wait("%s not used: signed by another key", these(v.Others, "1 head was", "%d heads were"))
	}
	out.wait("not proven: that nothing happened after entry %s", thousands(v.To))
	if v.Heads == 0 {
		out.wait("not proven: that the holder of the vault's key has told everybody the same; heads that were shipped before would show it: --head FILE")
	}
}

// knownKey is the key that the caller trusts, given itself or by its file.
func knownKey(given string) (audit.Key, error) {
	key, err := audit.ParseKey(given)
	if err == nil {
		return key, nil
	}
	f, openErr := os.Open(given)
	if openErr != nil {
		return key, usage("--key is neither a key nor a file that holds one: %v", err)
	}
	defer f.Close()
	b, readErr := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if readErr != nil {
		return key, usage("cannot read the key: %v", readErr)
	}
	if key, err = audit.ParseKey(string(b)); err != nil {
		return key, usage("%s holds no audit key: %v", given, err)
	}
	return key, nil
}

// claimedKey is the key that an export says it was signed with. It takes nothing from in.
func claimedKey(in *bufio.Reader) (key audit.Key, err error) {
	start, _ := in.Peek(in.Size())
	line, _, _ := bytes.Cut(start, []byte("\n"))
	var header struct {
		Key audit.Key `json:"key"`
	}
	if json.Unmarshal(line, &header) != nil || header.Key == (audit.Key{}) {
		return key, api.Errorf(api.NotVerified, "this is not an export of an audit trail: its first line names no key")
	}
	return header.Key, nil
}

// knownHeads are the heads in files, and how many there are of other keys: a journal may know several vaults.
func knownHeads(files []string, key audit.Key) (known []audit.Head, others int, err error) {
	for _, path := range files {
		found, err := headsIn(path)
		if err != nil {
			return nil, 0, err
		}
		for _, h := range found {
			if h.Key != key {
				others++
				continue
			}
			known = append(known, h)
		}
	}
	return known, others, nil
}

func headsIn(path string) ([]audit.Head, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usage("cannot read the heads: %v", err)
	}
	defer f.Close()
	return readHeads(f, path)
}

func readHeads(r io.Reader, path string) (found []audit.Head, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxHeadLine)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), headMark) {
			continue // a journal holds other lines as well
		}
		h, err := audit.ParseHead(lines.Text())
		if err != nil {
			return nil, api.Errorf(api.NotVerified, "%s: %v", path, err)
		}
		if found = append(found, h); len(found) > maxHeads {
			return nil, usage("%s holds more than %d heads: the newest ones are enough", path, maxHeads)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, usage("cannot read the heads of %s: %v", path, err)
	}
	if len(found) == 0 {
		return nil, usage("%s holds no head: one is a line with %q", path, headMark)
	}
	return found, nil
}
