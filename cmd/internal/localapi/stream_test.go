package localapi_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

func exitCode(err error) int {
	if e := (*api.Error)(nil); errors.As(err, &e) {
		return e.Code.ExitCode()
	}
	return 0
}

// TestHangingUpInAnEnroll leaves a job that resolve settles, and a key that others can use.
func TestHangingUpInAnEnroll(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	id := string(device.YubiKeyID(keySerial))
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	_, err := d.Client.Work(ctx, "/v1/enroll", api.Enroll{Device: id, App: "otp2", Digits: 6, Enter: true}, func(p api.Progress) {
		if p.Kind == "touch" {
			hangUp()
		}
	})
	if exitCode(err) != 8 {
		t.Fatalf("hanging up: %v", err)
	}
	// The daemon learns of it when it likes: whoever works on the token until then is told so.
	var out api.Outcome
	for {
		out, err = d.Client.Work(t.Context(), "/v1/tokens/"+id+"/otp2/resolve", api.Resolve{}, d.touch)
		if err == nil || !strings.Contains(err.Error(), "another officer's work") {
			break
		}
	}
	if err != nil || out.Token == nil || out.Token.Status != "active" || out.Token.Counter != 2 {
		t.Fatalf("resolve: %+v, %v", out.Token, err)
	}
	var s api.Status
	if err := d.Client.Get(t.Context(), "/v1/status", nil, &s); err != nil || len(s.Unfinished) != 0 || s.Tokens["active"] != 1 {
		t.Errorf("afterwards: %+v, %v", s, err)
	}
}

// TestHangingUpAWatch frees what served it, and open watches do not keep the daemon from stopping.
func TestHangingUpAWatch(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	fds := func() int {
		all, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(d.DaemonPID()), "fd"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	seen := errors.New("seen")
	watch := func() {
		if err := d.Client.Watch(t.Context(), func(api.KeyEvent) error { return seen }); !errors.Is(err, seen) {
			t.Fatal(err)
		}
	}
	watch()
	before := fds()
	for range 50 {
		watch()
	}
	deadline := time.After(patience)
	for tick := time.NewTicker(5 * time.Millisecond); fds() > before+5; { // connections are closed when their handler is done
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d open files before 50 watches, %d after them", before, fds())
		}
	}

	began, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		ended <- d.Client.Watch(t.Context(), func(api.KeyEvent) error {
			if first {
				first = false
				close(began)
			}
			return nil
		})
	}()
	<-began
	asked := time.Now()
	if err := d.StopDaemon(); err != nil {
		t.Error(err)
	}
	if state, err := d.AwaitDaemonEnd(); err != nil || state.ExitCode() != 0 {
		t.Errorf("the daemon ended with %v, %v", state, err)
	}
	if took := time.Since(asked); took > 2*time.Second {
		t.Errorf("the daemon took %s to stop beside an open watch", took)
	}
	if err := <-ended; exitCode(err) != 3 {
		t.Errorf("the watch ended with %v", err)
	}
}
