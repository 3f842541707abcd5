package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/client"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/vault/secret"
)

// socket is the path of a socket that does not exist yet.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "td") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// peer answers every request on a socket of its own in its own way.
func peer(t *testing.T, answer http.HandlerFunc) *client.Client {
	t.Helper()
	path := socket(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: answer}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-stopped; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return &client.Client{Socket: path}
}

// says answers with a version of the API, a status and a body.
func says(version string, status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if version != "" {
			w.Header().Set(api.VersionHeader, version)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// breaksOff announces more than it sends.
func breaksOff(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(api.VersionHeader, api.Version)
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, body)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// calls are the ways to call a daemon.
var calls = map[string]func(context.Context, *client.Client) error{
	"Get": func(ctx context.Context, c *client.Client) error {
		return c.Get(ctx, "/v1/status", nil, new(api.Status))
	},
	"Post": func(ctx context.Context, c *client.Client) error {
		return c.Post(ctx, "/v1/tokens/yk-1/otp2/disable", nil, new(api.Outcome))
	},
	"Work": func(ctx context.Context, c *client.Client) error {
		_, err := c.Work(ctx, "/v1/enroll", api.Enroll{}, func(api.Progress) {})
		return err
	},
	"PostSecret": func(ctx context.Context, c *client.Client) error {
		pin := secret.New([]byte("4711"))
		defer pin.Wipe()
		return c.PostSecret(ctx, "/v1/vault/unlock", nil, new(api.VaultOutcome), pin)
	},
	"Watch": func(ctx context.Context, c *client.Client) error {
		return c.Watch(ctx, func(api.KeyEvent) error { return nil })
	},
}

// fails checks an error's code, by the exit code it leads to, and its words.
func fails(t *testing.T, what string, err error, exit int, words ...string) {
	t.Helper()
	known := (*api.Error)(nil)
	if !errors.As(err, &known) {
		t.Errorf("%s: %v (%T) is not an error of the desk", what, err, err)
		return
	}
	if known.Code.ExitCode() != exit {
		t.Errorf("%s: exit code %d, not %d: %v", what, known.Code.ExitCode(), exit, err)
	}
	for _, w := range words {
		if !strings.Contains(known.Message, w) {
			t.Errorf("%s: %q is missing in: %v", what, w, err)
		}
	}
}

func TestPeersThatAreNoDesk(t *testing.T) {
	const cause, cure, both = "cannot understand", "log", "install the same version of both and restart tokendeskd"
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		exit   int
		words  []string
	}{
		"older":          {says("0", 200, `{}`), 3, []string{`version "0"`, both}},
		"newer":          {says("2", 404, `{"code":"new","message":"new"}`), 3, []string{`version "2"`, both}},
		"refuses ours":   {says("2", 426, `{"code":"wrong-version","message":"`+both+`"}`), 3, []string{both}},
		"another server": {says("", 200, `{}`), 3, []string{"is not tokendeskd", "TOKENDESK_SOCKET"}},
		"a web page":     {says(api.Version, 200, `<html>`), 1, []string{cause, cure}},
		"a list":         {says(api.Version, 200, `[1]`), 1, []string{cause, cure}},
		"status only":    {says(api.Version, 502, ``), 1, []string{cause, "502", cure}},
		"codeless error": {says(api.Version, 409, `{"message":"x"}`), 1, []string{cause, "409", cure}},
		"cut short":      {breaksOff(`{"version":`), 3, []string{"went away", "start it again"}},
		"refusal":        {says(api.Version, 409, `{"code":"refused","message":"no; do this"}`), 5, []string{"no; do this"}},
		"unknown code":   {says(api.Version, 409, `{"code":"later","message":"words of a later version"}`), 1, []string{"words of a later version"}},
	} {
		for call, do := range calls {
			if name == "cut short" && (call == "Work" || call == "Watch") {
				continue // half a line cannot be told from a wrong one: see TestStreams
			}
			t.Run(name+"/"+call, func(t *testing.T) {
				fails(t, call, do(t.Context(), peer(t, c.answer)), c.exit, c.words...)
			})
		}
	}
}

func TestStreams(t *testing.T) {
	const progress = `{"progress":{"kind":"done","text":"x"}}` + "\n"
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		exit   int
		words  []string
	}{
		"breaks off":   {breaksOff(progress), 3, []string{"went away in the middle", "tokendesk status"}},
		"ends early":   {says(api.Version, 200, progress), 3, []string{"went away in the middle", "tokendesk status"}},
		"garbage":      {says(api.Version, 200, progress+"garbage\n"), 1, []string{"cannot understand"}},
		"endless line": {says(api.Version, 200, progress+strings.Repeat("x", 2<<20)), 1, []string{"cannot understand", "too long"}},
		"error":        {says(api.Version, 200, progress+`{"error":{"code":"device","message":"pulled"}}`), 6, []string{"pulled"}},
	} {
		t.Run(name, func(t *testing.T) {
			told := 0
			_, err := peer(t, c.answer).Work(t.Context(), "/v1/enroll", api.Enroll{}, func(api.Progress) { told++ })
			fails(t, "work", err, c.exit, c.words...)
			if told != 1 {
				t.Errorf("%d lines of progress instead of 1", told)
			}
		})
	}
	const event = `{"event":"present","device":{"id":"yk-1"}}` + "\n"
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		exit   int
		words  []string
	}{
		"ends":         {says(api.Version, 200, event), 3, []string{"went away", "start it again"}},
		"endless line": {says(api.Version, 200, event+strings.Repeat("x", 2<<20)), 1, []string{"too long"}},
		"error":        {says(api.Version, 200, event+`{"error":{"code":"internal","message":"behind"}}`), 1, []string{"behind"}},
	} {
		t.Run("watch "+name, func(t *testing.T) {
			var seen []string
			err := peer(t, c.answer).Watch(t.Context(), func(e api.KeyEvent) error { seen = append(seen, e.Key.ID); return nil })
			fails(t, "watch", err, c.exit, c.words...)
			if len(seen) != 1 || seen[0] != "yk-1" {
				t.Errorf("saw %q", seen)
			}
		})
	}
}

func TestNoDaemon(t *testing.T) {
	absent := socket(t)
	left := socket(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as a killed daemon leaves it
	l.Close()
	plain := socket(t)
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for call, do := range calls {
		ctx := t.Context()
		fails(t, call+" without a socket", do(ctx, &client.Client{Socket: absent}), 3, absent+" does not exist", "systemctl start tokendeskd", "TOKENDESK_SOCKET")
		fails(t, call+" on a socket left behind", do(ctx, &client.Client{Socket: left}), 3, "no tokendeskd serves "+left, "systemctl start tokendeskd")
		fails(t, call+" on a plain file", do(ctx, &client.Client{Socket: plain}), 3, "no tokendeskd serves "+plain)
		fails(t, call+" on too long a path", do(ctx, &client.Client{Socket: "/" + strings.Repeat("x", 200)}), 3, "107", "TOKENDESK_SOCKET")
		t.Setenv(api.SocketVariable, absent)
		fails(t, call+" by the environment", do(ctx, &client.Client{}), 3, absent+" does not exist")
	}
}

// TestInterrupted: whoever stops waiting learns it at once, and is told what to look at.
func TestInterrupted(t *testing.T) {
	for call, do := range calls {
		t.Run(call, func(t *testing.T) {
			asked, release := make(chan struct{}), make(chan struct{})
			c := peer(t, func(w http.ResponseWriter, r *http.Request) { close(asked); <-release })
			defer close(release)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-asked; cancel() }()
			fails(t, call, do(ctx, c), 3, "interrupted", "look at")
		})
	}
}

// TestDaemonKilledInTheMiddle cuts the power under a real daemon while it waits for a touch.
func TestDaemonKilledInTheMiddle(t *testing.T) {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := world.Build(dir, true); err != nil {
		t.Fatal(err)
	}
	const serial device.Serial = 10000001
	w, err := world.Start(world.Options{Bin: dir, NoCentral: true, Keys: []string{"serial=" + serial.String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := w.AwaitKeys(t.Context(), serial); err != nil {
		t.Fatal(err)
	}
	watching, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		watched <- w.Client.Watch(t.Context(), func(api.KeyEvent) error {
			if first {
				first = false
				close(watching)
			}
			return nil
		})
	}()
	<-watching
	enroll := api.Enroll{Device: string(device.YubiKeyID(serial)), App: "otp2", Digits: 6}
	_, err = w.Client.Work(t.Context(), "/v1/enroll", enroll, func(p api.Progress) {
		if p.Kind == "touch" {
			w.KillDaemon()
		}
	})
	fails(t, "enroll", err, 3, "tokendeskd went away in the middle", "start it again and look at tokendesk status", "nothing is lost")
	fails(t, "watch", <-watched, 3, "went away")
	if err := w.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	var s api.Status
	if err := w.Client.Get(t.Context(), "/v1/status", nil, &s); err != nil || len(s.Unfinished) != 1 || !strings.HasPrefix(s.Unfinished[0], "yk-10000001/otp2: enroll") {
		t.Fatalf("afterwards: %+v, %v", s, err)
	}
}
