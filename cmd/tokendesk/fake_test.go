package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret/memscan"
)

// TestVaultScripts plays testdata/vault/*.txtar, in which every state of a vault can be shown.
func TestVaultScripts(t *testing.T) { playFake(t, "testdata/vault") }

// TestScreenScripts plays testdata/screens/*.txtar, in which every state of a token can be shown.
func TestScreenScripts(t *testing.T) { playFake(t, "testdata/screens") }

// playFake plays a folder's scripts, each with a daemon that answers from files. Beside testscript's commands they know says, narrow, json, code and tokendesk, as TestScripts explains, and:
//
//	fake DIR               a daemon that answers METHOD PATH with what is in DIR/METHOD/PATH.json; what it is asked is added to the
//	                       file asked, with the secrets that came along. The second time, DIR/METHOD/PATH.2.json comes first.
//	                       A file that begins with "!code" is an error, one that begins with "secret:" a secret; <now-3h> in it is
//	                       a time; <hold> waits for a release
//	given FILE tokendesk … with FILE as standard input and no terminal; "! given" expects a failure
//	dialog FILE tokendesk … at a terminal, in a dialog that FILE writes down: lines "see TEXT" wait for it, "type TEXT" types it
//	                       with Enter, "press TEXT" without, "release" has the daemon answer, "protected TEXT" demands that the
//	                       program has that in locked memory only
//	trail KEY N M FILE     the entries N to M of a history, as a real vault exports them; see cmdTrail
//	screen                 puts the last output, with all moments made equal, into the file screen
func playFake(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		UpdateScripts:      os.Getenv("UPDATE_SCREENS") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("TZ", "UTC")
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Values[stageKey{}] = &stage{}
			e.Values[fakeKey{}] = &fakeDesk{release: make(chan struct{})}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"tokendesk": func(ts *testscript.TestScript, neg bool, args []string) { play(ts, neg, "tokendesk", args, nil) },
			"code":      cmdCode,
			"says":      cmdSays,
			"json":      cmdJSON,
			"narrow":    cmdNarrow,
			"fake":      cmdFake,
			"given":     cmdGiven,
			"dialog":    cmdDialog,
			"screen":    cmdScreen,
			"trail":     cmdTrail,
		},
	})
}

type fakeKey struct{}

// fakeDesk is a daemon that has no desk.
type fakeDesk struct {
	release chan struct{}

	mu    sync.Mutex
	dir   string
	asked *os.File
	times map[string]int
	fault error
}

func cmdFake(ts *testscript.TestScript, _ bool, args []string) {
	f := ts.Value(fakeKey{}).(*fakeDesk)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dir, f.times = ts.MkAbs(args[0]), map[string]int{}
	if f.asked != nil { // it is up, and only answers otherwise
		ts.Check(f.asked.Truncate(0))
		return
	}
	var err error
	f.asked, err = os.OpenFile(ts.MkAbs("asked"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	ts.Check(err)
	dir, err := os.MkdirTemp("", "td") // short: a socket's path has at most 107 bytes
	ts.Check(err)
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	ts.Check(err)
	server := &http.Server{Handler: f, ConnContext: func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, fakeKey{}, c)
	}}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(l) }()
	ts.Defer(func() {
		server.Close()
		<-stopped
		f.asked.Close()
		os.RemoveAll(dir)
		if f.fault != nil {
			ts.Fatalf("the daemon was asked in a wrong way: %v", f.fault)
		}
	})
	ts.Setenv(api.SocketVariable, socket)
}

func (f *fakeDesk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(api.VersionHeader, api.Version)
	answer, hold := f.answer(r)
	code, isError := bytes.CutPrefix(answer, []byte("!"))
	if err := f.record(r); err != nil {
		f.mu.Lock()
		f.fault = err
		f.mu.Unlock()
	}
	if hold {
		select {
		case <-f.release:
		case <-r.Context().Done():
		}
	}
	if isError {
		code, message, _ := strings.Cut(strings.TrimSpace(string(code)), " ")
		e := api.Errorf(api.Code(code), "%s", message)
		w.WriteHeader(e.GetStatus())
		json.NewEncoder(w).Encode(e)
		return
	}
	if plain, isSecret := bytes.CutPrefix(answer, []byte("secret:")); isSecret {
		w.Header().Set("Content-Type", api.SecretType)
		frame := make([]byte, api.AnswerSize)
		if err := api.PutAnswer(frame, bytes.TrimSpace(plain)); err != nil {
			panic(err) // the script is wrong
		}
		answer = frame
	}
	w.Write(answer)
}

var relative = regexp.MustCompile(`<now([+-][0-9a-z]+)>`)

func (f *fakeDesk) answer(r *http.Request) (b []byte, hold bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := filepath.Join(f.dir, r.Method, r.URL.Path)
	f.times[path]++
	b, err := os.ReadFile(fmt.Sprintf("%s.%d.json", path, f.times[path]))
	if err != nil {
		b, err = os.ReadFile(path + ".json")
	}
	if err != nil {
		return []byte("!not-found the script has no answer to " + r.Method + " " + r.URL.Path), false
	}
	b = relative.ReplaceAllFunc(b, func(m []byte) []byte {
		d, err := time.ParseDuration(string(relative.FindSubmatch(m)[1]))
		if err != nil {
			panic(err) // the script is wrong
		}
		return time.Now().Add(d).AppendFormat(nil, time.RFC3339)
	})
	b, hold = bytes.CutPrefix(b, []byte("<hold>"))
	return b, hold
}

// record writes down what was asked, and demands that secrets come in a frame and are protected where they came from.
func (f *fakeDesk) record(r *http.Request) error {
	var secrets []string
	if r.Header.Get("Content-Type") == api.SecretType {
		if r.Header.Get("Expect") != "100-continue" {
			return fmt.Errorf("%s: secrets come unasked", r.URL)
		}
		frame := make([]byte, api.FrameSize)
		n := map[string]int{"unlock": 1, "change-pin": 2, "init": 2, "restore": 2, "move": 1, "csr": 1, "set": 1}[filepath.Base(r.URL.Path)]
		found, err := api.ReadFrame(r.Body, frame, n)
		if err != nil {
			return err
		}
		for _, s := range found {
			secrets = append(secrets, string(s))
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	for _, s := range secrets {
		if s != "" && (bytes.Contains(body, []byte(s)) || strings.Contains(r.URL.String(), s)) {
			return fmt.Errorf("%s: a secret is beside the frame", r.URL)
		}
	}
	if slices.ContainsFunc(secrets, func(s string) bool { return len(s) >= 4 }) {
		if err := protected(r, secrets); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	line := fmt.Sprintf("%s %s", r.Method, r.URL)
	for _, s := range secrets {
		line += fmt.Sprintf(" <%s>", strings.ReplaceAll(s, "\n", "|"))
	}
	_, err = fmt.Fprintln(f.asked, strings.TrimSpace(line+" "+string(body)))
	return err
}

// protected looks into the program that asked: a PIN is in none of its memory but what is locked, and kept out of dumps. An
// identity is elsewhere, too: the parser of age has copied it.
func protected(r *http.Request, secrets []string) error {
	raw, err := r.Context().Value(fakeKey{}).(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) { peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || credErr != nil {
		return fmt.Errorf("%v, %v", err, credErr)
	}
	patterns := map[string][]byte{}
	for i, s := range secrets {
		if len(s) >= 4 && !strings.Contains(s, "AGE-SECRET-KEY") {
			patterns[fmt.Sprintf("secret %d of %s", i, r.URL)] = []byte(s)
		}
	}
	return exposed(int(peer.Pid), patterns)
}

// exposed says where a program has secrets that is neither locked memory nor kept out of dumps.
func exposed(pid int, patterns map[string][]byte) error {
	hits, err := memscan.Scan(pid, patterns)
	if err != nil {
		return err
	}
	for _, h := range hits {
		if !h.Protected() {
			return fmt.Errorf("in tokendesk's memory: %s", h)
		}
	}
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			return err
		}
		for name, s := range patterns {
			if bytes.Contains(b, s) {
				return fmt.Errorf("%s is in its %s", name, file)
			}
		}
	}
	return nil
}

var aMoment = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d`)

func cmdScreen(ts *testscript.TestScript, _ bool, _ []string) {
	masked := aMoment.ReplaceAllString(ts.ReadFile("stdout"), "2026-01-01 00:00")
	ts.Check(os.WriteFile(ts.MkAbs("screen"), []byte(masked), 0o600))
}
