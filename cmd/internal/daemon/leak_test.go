package daemon_test

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/sync/synctest"
	"tokendesk/vault"
)

// TestSecretsStayInside lives through the desk's whole day, mishaps included, then collects every seed, access code and
// password there was, and searches everything that could have caught one: API answers, command output, logs,
// arguments and environments of all processes, temporary files, the vault's file.
func TestSecretsStayInside(t *testing.T) {
	const one, two device.Serial = 30000001, 30000002
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	w := start(t, world.Options{Keys: []string{keyOf(one), keyOf(two)}, Nitrokeys: []string{"serial=00003e7a,model=storage"}})
	if err := w.AwaitKeys(ctx, one, two); err != nil {
		t.Fatal(err)
	}
	e := &evidence{}
	var needles []needle
	seen := func() { // what the directory holds now is what the vault has sealed
		e.processes(t)
		e.answers(ctx, t, w, one, two)
		needles = append(needles, directorySeeds(t, w)...)
	}
	do := func(s device.Serial, path string, body any) {
		outcome, _, err := e.work(ctx, w, s, path, body)
		e.add("outcome", fmt.Appendf(nil, "%+v %v", outcome, err))
		e.add("error", fmt.Appendf(nil, "%#v", err))
	}

	do(one, "/v1/enroll", enrollment(one, "alice"))
	seen()
	e.command(ctx, w, "list")
	e.command(ctx, w, "show", string(device.SlotToken(device.YubiKeyID(one), 2)), "--json")
	codes, err := w.Touch(ctx, one, true, 40)
	if err != nil {
		t.Fatal(err)
	}
	do(one, tokenPath(one)+"/test", api.Codes{Codes: codes[:1]})
	do(one, tokenPath(one)+"/test", api.Codes{Codes: []string{"000000"}})
	do(one, tokenPath(one)+"/resync", api.Codes{Codes: codes[37:39]})
	for _, fault := range []struct {
		kind string
		n    int
	}{{"unplug-at-chunk", 5}, {"reject-write", 2}, {"stuck-flag", 0}, {"bad-crc", 3}} {
		if err := w.Emulator.Fault(ctx, two.String(), fault.kind, fault.n); err != nil {
			t.Fatal(err)
		}
		do(two, "/v1/enroll", enrollment(two, "carol"))
		do(two, tokenPath(two)+"/resolve", api.Resolve{})
		e.processes(t)
		if err := w.Emulator.Fault(ctx, two.String(), "clear", 0); err != nil {
			t.Fatal(err)
		}
		w.Emulator.Insert(ctx, two.String()) // unless it is in
	}
	if err := w.AwaitKeys(ctx, two); err != nil {
		t.Fatal(err)
	}
	do(two, tokenPath(two)+"/resolve", api.Resolve{})
	seen()
	nitrokey := app{t, w, "nk-00003e7a/hotp1"}
	nitrokey.await(ctx)
	needles = append(needles, needle{"a PIN that the Nitrokey refuses", []byte("tell-nobody-4711")})
	e.add("error", fmt.Appendf(nil, "%#v", nitrokey.tells(ctx, "tell-nobody-4711")))
	nitrokey.learn(ctx)
	do(one, "/v1/enroll", nitrokey.enrollment())
	seen()
	w.Slapd.Stop()
	do(two, "/v1/tokens/actions/disable", api.Order{Tokens: []string{string(device.SlotToken(device.YubiKeyID(two), 2))}, Reason: "on leave"})
	e.command(ctx, w, "outbox")
	e.command(ctx, w, "doctor")
	if err := w.Slapd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitPushed(ctx, t, w)
	do(one, tokenPath(one)+"/reissue", api.User{User: "bob"})
	awaitPushed(ctx, t, w)
	seen()
	w.KillDaemon()
	if err := w.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	seen()

	withVault(t, w, func(v *vault.Vault) {
		needles = append(needles, vaultSecrets(t, v)...)
	})
	needles = append(needles, needle{"the directory password", []byte(w.Slapd.Password)})
	if distinct := count(needles); distinct < 7 { // three seeds, two access codes, a PIN, one password
		t.Fatalf("only %d secrets to look for", distinct)
	}
	e.files(t, w)

	planted := evidence{pieces: map[string][]byte{"planted": []byte("x" + base64.StdEncoding.EncodeToString(append([]byte("ab"), needles[0].value...)))}}
	if len(planted.find(needles)) == 0 {
		t.Fatal("the search does not find a secret that is there")
	}
	for _, found := range e.find(needles) {
		t.Error(found)
	}
	t.Logf("%d secrets, %d pieces of evidence, %d bytes", count(needles), len(e.pieces), e.size())
}

// needle is a secret and what it is.
type needle struct {
	name  string
	value []byte
}

func count(needles []needle) int {
	distinct := map[string]bool{}
	for _, n := range needles {
		distinct[string(n.value)] = true
	}
	return len(distinct)
}

// forms are the ways a secret could be written.
func (n needle) forms() map[string][]byte {
	b32 := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(n.value)
	forms := map[string][]byte{
		"raw": n.value, "hex": []byte(hex.EncodeToString(n.value)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(n.value))),
		"spaced hex": fmt.Appendf(nil, "% x", n.value), "decimal": []byte(strings.Trim(fmt.Sprint(n.value), "[]")),
		"base32": []byte(b32), "lower base32": []byte(strings.ToLower(b32)), "quoted": []byte(strings.Trim(fmt.Sprintf("%q", n.value), `"`)),
	}
	for skip := range 3 { // base64 of something that has the secret in the middle
		for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "URL base64": base64.RawURLEncoding} {
			padded := append(bytes.Repeat([]byte{0}, skip), n.value...)
			text := encoding.EncodeToString(padded)
			first := (skip*8 + 5) / 6             // characters that depend on what is before
			last := (skip + len(n.value)) * 8 / 6 // the one after may depend on what follows
			forms[fmt.Sprintf("%s, offset %d", name, skip)] = []byte(text[first:last])
		}
	}
	return forms
}

// evidence is everything that could have caught a secret, by where it is from.
type evidence struct{ pieces map[string][]byte }

func (e *evidence) add(from string, b []byte) {
	if e.pieces == nil {
		e.pieces = map[string][]byte{}
	}
	e.pieces[fmt.Sprintf("%s (%d)", from, len(e.pieces))] = b
}

func (e *evidence) size() (n int) {
	for _, b := range e.pieces {
		n += len(b)
	}
	return n
}

func (e *evidence) find(needles []needle) (found []string) {
	for _, n := range needles {
		for form, text := range n.forms() {
			for from, b := range e.pieces {
				if bytes.Contains(b, text) {
					found = append(found, fmt.Sprintf("%s is in %s, as %s", n.name, from, form))
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// work does what work does, and looks at all processes whenever there is progress.
func (e *evidence) work(ctx context.Context, w *world.World, s device.Serial, path string, body any) (o api.Outcome, touches int, err error) {
	o, err = w.Client.Work(ctx, path, body, func(p api.Progress) {
		e.add("progress", fmt.Appendf(nil, "%+v", p))
		e.snapshot()
		if p.Kind == "touch" {
			w.Press(ctx, s, p.Slot == 2)
		}
	})
	return o, touches, err
}

// answers keeps what the API says of everything, as it says it.
func (e *evidence) answers(ctx context.Context, t *testing.T, w *world.World, serials ...device.Serial) {
	t.Helper()
	paths := []string{"/openapi.json", "/v1/status", "/v1/doctor", "/v1/devices", "/v1/tokens", "/v1/outbox", "/v1/approvals", "/v1/types", "/v1/lifecycle"}
	for _, s := range serials {
		paths = append(paths, tokenPath(s), tokenPath(s)+"/history")
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.Socket)
	}}
	defer transport.CloseIdleConnections()
	for _, path := range paths {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://desk"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		e.add("answer to "+path, fmt.Appendf(body, "%v", response.Header))
	}
}

func (e *evidence) command(ctx context.Context, w *world.World, args ...string) {
	out, err := w.Command(ctx, "tokendesk", args...).CombinedOutput()
	e.add("output of "+args[0], fmt.Appendf(out, "%v", err))
}

// processes keeps arguments and environments, and makes sure that there are some.
func (e *evidence) processes(t *testing.T) {
	t.Helper()
	if e.snapshot() < 3 {
		t.Fatal("the processes of the world are not to be seen")
	}
}

func (e *evidence) snapshot() (n int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if command, err := os.ReadFile(file); err == nil && len(command) > 0 {
			e.add(file, command)
			n++
		}
		if environment, err := os.ReadFile(filepath.Join(filepath.Dir(file), "environ")); err == nil {
			e.add(filepath.Join(filepath.Dir(file), "environ"), environment)
		}
	}
	return n
}

// files keeps every file of the world, except those that hold a secret because that is what they are for.
func (e *evidence) files(t *testing.T, w *world.World) {
	t.Helper()
	w.Slapd.Stop()
	n := 0
	err := filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == filepath.Join(w.Dir, "ldap"), path == filepath.Join(w.Dir, "ldap-password"):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		e.add(path, b)
		n++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 4 {
		t.Fatalf("only %d files found", n)
	}
	log, err := os.ReadFile(w.Slapd.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	e.add("slapd's log", log)
}

// directorySeeds reads the seeds as the directory's administrator.
func directorySeeds(t *testing.T, w *world.World) (needles []needle) {
	t.Helper()
	err := w.Slapd.AsAdmin(func(c *ldap.Conn) error {
		found, err := c.Search(ldap.NewSearchRequest(synctest.TokensBase, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
			"(oathSecret=*)", []string{"oathSecret"}, nil))
		if err != nil {
			return err
		}
		for _, entry := range found.Entries {
			needles = append(needles, needle{"a seed of " + entry.DN, entry.GetRawAttributeValue("oathSecret")})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return needles
}

// vaultSecrets reads everything sealed.
func vaultSecrets(t *testing.T, v *vault.Vault) (needles []needle) {
	t.Helper()
	err := v.View(func(tx *vault.Tx) error {
		for token, err := range tx.AllTokens(vault.Filter{}) {
			if err != nil {
				return err
			}
			if token.ID.Keeper() == token.ID {
				code, err := tx.AccessCode(token.ID)
				if err != nil {
					return err
				}
				needles = append(needles, needle{"the access code of " + string(token.ID), bytes.Clone(code.Reveal())})
			}
			generations, err := tx.Generations(token.ID)
			if err != nil {
				return err
			}
			for _, g := range generations {
				seed, err := tx.Seed(token.ID, g)
				if err != nil {
					return err
				}
				needles = append(needles, needle{fmt.Sprintf("seed %d of %s", g, token.ID), bytes.Clone(seed.Reveal())})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return needles
}
