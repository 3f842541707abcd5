package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tokendesk/cmd/internal/api"
)

// At a terminal the tray is a table that is drawn anew, and Enter as well as Ctrl-C end it in order: the daemon is asked for that,
// and what it answers is shown.
func TestTrayAtATerminal(t *testing.T) {
	for _, c := range []struct{ name, press string }{{"Enter", "\n"}, {"Ctrl-C", "\x03"}} {
		t.Run(c.name, func(t *testing.T) {
			socket, asked := fakeTray(t)
			screen, keyboard, err := openTerminal()
			if err != nil {
				t.Fatal(err)
			}
			defer screen.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, "tokendesk"), "resync", "--capture")
			cmd.Env = append(os.Environ(), api.SocketVariable+"="+socket, "TERM=xterm", "NO_COLOR=1")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = keyboard, keyboard, keyboard
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
			err = cmd.Start()
			keyboard.Close()
			if err != nil {
				t.Fatal(err)
			}
			var shown bytes.Buffer
			see := func(words string) {
				t.Helper()
				for b := make([]byte, 4096); !strings.Contains(shown.String(), words); {
					n, err := screen.Read(b)
					if shown.Write(b[:n]); err != nil {
						t.Fatalf("waited in vain for %q: %v in\n%s", words, err, shown.String())
					}
				}
			}
			see("alice  1      touch it again")
			if _, err := screen.WriteString(c.press); err != nil {
				t.Fatal(err)
			}
			if path := <-asked; path != "/v1/captures/7/end" {
				t.Errorf("it asked for %s", path)
			}
			see("alice  resynced 2 → 34")
			see("not touched")
			if !strings.Contains(shown.String(), "\x1b[5A\x1b[J") {
				t.Errorf("the table was not taken off the screen:\n%q", shown.String())
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v", err)
			}
		})
	}
}

// fakeTray is a daemon with a tray that ends only when it is asked to.
func fakeTray(t *testing.T) (socket string, asked chan string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	socket, asked = filepath.Join(dir, "s"), make(chan string, 1)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan bool, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.VersionHeader, api.Version)
		if r.URL.Path != "/v1/resync/capture" {
			asked <- r.URL.Path
			ended <- true
			fmt.Fprint(w, "{}")
			return
		}
		const alice, bob = `{"token":"yk-10000001/otp2","owner":"alice",`, `{"token":"yk-10000002/otp2","owner":"bob",`
		fmt.Fprintln(w, `{"capture":"7","tokens":[`+alice+`"state":"waiting","from":2},`+bob+`"state":"waiting","from":2}]}`)
		fmt.Fprintln(w, `{"key":{"device":"yk-10000001","state":"ready"}}`)
		fmt.Fprintln(w, `{"token":`+alice+`"state":"touched","codes":1,"from":2}}`)
		w.(http.Flusher).Flush()
		select {
		case <-ended:
			fmt.Fprintln(w, `{"resynced":{"tokens":[`+alice+`"state":"resynced","from":2,"to":34},`+bob+`"state":"untouched","from":2}]}}`)
		case <-r.Context().Done():
		}
	})}
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-stopped
		os.RemoveAll(dir)
	})
	return socket, asked
}
