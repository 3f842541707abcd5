package client_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/client"
	"tokendesk/vault/secret"
)

// secretsOf makes secrets that the test wipes, and checks at its end that no other is left of what was done with them.
func secretsOf(t *testing.T, plain ...string) (made []secret.Secret) {
	t.Helper()
	before := secret.Memory().Live
	for _, p := range plain {
		made = append(made, secret.New([]byte(p)))
	}
	t.Cleanup(func() {
		for _, s := range made {
			s.Wipe()
		}
		if after := secret.Memory().Live; after != before {
			t.Errorf("%d secrets are left", after-before)
		}
	})
	return made
}

func TestSecretsArrive(t *testing.T) {
	for _, c := range []struct {
		secrets []string
		in      any
		body    string
	}{
		{[]string{"4711"}, nil, "{}"},
		{[]string{"", "AGE-SECRET-KEY-1\n"}, api.VaultInit{Recipients: []string{"age1x"}}, `{"recipients":["age1x"]}`},
		{[]string{strings.Repeat("x", api.FrameSize-4), ""}, struct{ A string }{strings.Repeat("y", 20<<10)}, ""},
		{[]string{strings.Repeat("\x00", 100)}, nil, "{}"},
	} {
		peer := peer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(api.VersionHeader, api.Version)
			found, err := api.ReadFrame(r.Body, make([]byte, api.FrameSize), len(c.secrets))
			var got []string
			for _, s := range found {
				got = append(got, string(s))
			}
			body, readErr := io.ReadAll(r.Body)
			if err != nil || readErr != nil || fmt.Sprint(got) != fmt.Sprint(c.secrets) || c.body != "" && string(body) != c.body {
				t.Errorf("%v, %v, %q", err, readErr, body)
			}
			if r.Header.Get("Content-Type") != api.SecretType || r.Method != http.MethodPost || r.URL.Path != "/v1/vault/init" {
				t.Errorf("%s %s %s", r.Method, r.URL, r.Header)
			}
			json.NewEncoder(w).Encode(api.VaultOutcome{Text: "done"})
		})
		var o api.VaultOutcome
		if err := peer.PostSecret(t.Context(), "/v1/vault/init", c.in, &o, secretsOf(t, c.secrets...)...); err != nil || o.Text != "done" {
			t.Errorf("%v: %+v", err, o)
		}
	}
}

func TestTooLongSecretsAreNotSent(t *testing.T) {
	var o api.VaultOutcome
	err := (&client.Client{Socket: "/nowhere"}).PostSecret(t.Context(), "/v1/vault/unlock", nil, &o, secretsOf(t, strings.Repeat("x", api.FrameSize))...)
	fails(t, "too long", err, 2, "too long")
}

// TestSecretsAreHeldBack shows, byte by byte, what a daemon gets that refuses a request, or goes away, before it asks for the
// secrets, or while they are on their way.
func TestSecretsAreHeldBack(t *testing.T) {
	const refusal = "HTTP/1.1 409 Conflict\r\nTokendesk-Api-Version: " + api.Version + "\r\nContent-Length: 37\r\nConnection: close\r\n\r\n" + `{"code":"refused","message":"busy!!"}`
	for name, c := range map[string]struct {
		asks   bool
		answer string
		exit   int
		words  string
	}{
		"refused":            {false, refusal, 5, "busy!!"},
		"gone":               {false, "", 3, "cannot reach tokendeskd"},
		"asked, gone":        {true, "", 3, "cannot reach tokendeskd"},
		"asked, and refused": {true, refusal, 5, "busy!!"},
	} {
		t.Run(name, func(t *testing.T) {
			path := socket(t)
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			got := make(chan []byte, 1)
			go func() {
				conn, err := l.Accept()
				if err != nil {
					got <- nil
					return
				}
				r := bufio.NewReader(conn)
				http.ReadRequest(r)
				var rest []byte
				if c.asks {
					fmt.Fprint(conn, "HTTP/1.1 100 Continue\r\n\r\n")
					rest = make([]byte, api.FrameSize+2)
					io.ReadFull(r, rest)
				}
				fmt.Fprint(conn, c.answer)
				conn.(*net.UnixConn).CloseWrite()
				more, _ := io.ReadAll(r) // until the client has hung up
				conn.Close()
				got <- append(rest, more...)
			}()
			var o api.VaultOutcome
			err = (&client.Client{Socket: path}).PostSecret(t.Context(), "/v1/vault/unlock", nil, &o, secretsOf(t, "4711-secret")...)
			fails(t, name, err, c.exit, c.words)
			if sent := <-got; bytes.Contains(sent, []byte("4711-secret")) != c.asks || !c.asks && len(sent) > 0 {
				t.Errorf("%d bytes were sent", len(sent))
			}
		})
	}
}

// TestInterruptedWhileHeld: Ctrl-C ends a request that the daemon has not asked the secrets of, and they stay here.
func TestInterruptedWhileHeld(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	c := peer(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		if n, _ := io.Copy(io.Discard, r.Body); n != 0 {
			t.Errorf("%d bytes were sent", n)
		}
	})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	var o api.VaultOutcome
	fails(t, "unlock", c.PostSecret(ctx, "/v1/vault/unlock", nil, &o, secretsOf(t, "4711-secret")...), 3, "interrupted", "look at")
}

func TestStream(t *testing.T) {
	long := strings.Repeat("0123456789", 1<<20)
	c := peer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.VersionHeader, api.Version)
		if r.URL.Query().Get("from") != "7" {
			t.Errorf("asked for %s", r.URL)
		}
		io.WriteString(w, long)
	})
	body, err := c.Stream(t.Context(), "/v1/audit/export", map[string][]string{"from": {"7"}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil || string(b) != long {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	refused := peer(t, says(api.Version, 503, `{"code":"vault","message":"vault locked: unlock it"}`))
	_, err = refused.Stream(t.Context(), "/v1/audit/export", nil)
	fails(t, "stream", err, 9, "vault locked")
}

func TestASecretIsTaken(t *testing.T) {
	secretsOf(t) // none is left at the end
	for _, c := range []struct {
		name   string
		write  func(w http.ResponseWriter, answer []byte)
		secret string
		code   api.Code
	}{
		{"whole", func(w http.ResponseWriter, answer []byte) { w.Write(answer) }, "39571846", ""},
		{"in pieces", func(w http.ResponseWriter, answer []byte) {
			for len(answer) > 0 {
				n := min(len(answer), 1000)
				w.Write(answer[:n])
				w.(http.Flusher).Flush()
				answer = answer[n:]
			}
		}, "39571846", ""},
		{"cut off", func(w http.ResponseWriter, answer []byte) { w.Write(answer[:api.FrameSize+5]) }, "", api.Unreachable},
		{"damaged", func(w http.ResponseWriter, answer []byte) { answer[0] = 1; w.Write(answer) }, "", api.Unreachable},
		{"refused", func(w http.ResponseWriter, _ []byte) {
			w.WriteHeader(http.StatusConflict)
			w.Write([]byte(`{"code":"refused","message":"it was taken"}`))
		}, "", api.Refused},
	} {
		peer := peer(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(api.VersionHeader, api.Version)
			answer := make([]byte, api.AnswerSize)
			if err := api.PutAnswer(answer, []byte("39571846")); err != nil {
				t.Error(err)
			}
			c.write(w, answer)
		})
		got, err := peer.TakeSecret(t.Context(), "/v1/piv/yk-1/pin")
		failed := (*api.Error)(nil)
		if string(got.Reveal()) != c.secret || (c.code == "") != (err == nil) || c.code != "" && (!errors.As(err, &failed) || failed.Code != c.code) {
			t.Errorf("%s: %d bytes, %v", c.name, got.Len(), err)
		}
		got.Wipe()
	}
}
