package emulator

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"tokendesk/device/bussocket"
)

// socketPath is short: a socket's path has at most 107 bytes.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "bus")
}

// serve runs a server for the test; stop ends it and checks that the socket is gone.
func serve[T Token](t *testing.T, keys ...T) (socket string, stop func()) {
	t.Helper()
	socket = socketPath(t)
	s, err := Listen(socket, keys...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- s.Serve(ctx) }()
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-result; err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("the socket is still there: %v", err)
		}
	}
	t.Cleanup(stop)
	return socket, stop
}

// opened is the answer to opening the first key of a bench.
const opened = `{"ok":true,"interface":{"path":"emu1:1.0","port":"emu1","vendor":4176,"product":1031}}`

// wire is a client that speaks raw lines.
type wire struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func connect(t *testing.T, socket string) wire {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return wire{t, c, bufio.NewReader(c)}
}

func (w wire) say(line string) {
	w.t.Helper()
	if _, err := fmt.Fprintln(w.c, line); err != nil {
		w.t.Fatal(err)
	}
}

func (w wire) hear() string {
	w.t.Helper()
	s, err := w.r.ReadString('\n')
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSuffix(s, "\n")
}

// expect sends a line and compares the answer; what follows "…" is free.
func (w wire) expect(line, want string) {
	w.t.Helper()
	w.say(line)
	got := w.hear()
	if prefix, _, open := strings.Cut(want, "…"); got != want && !(open && strings.HasPrefix(got, prefix)) {
		w.t.Fatalf("%s\nanswered %s\nexpected %s", line, got, want)
	}
}

// ended checks that the server has closed the connection.
func (w wire) ended() {
	w.t.Helper()
	if s, err := w.r.ReadString('\n'); err == nil {
		w.t.Fatalf("the connection goes on: %s", s)
	} else if os.IsTimeout(err) {
		w.t.Fatal("the connection stays open")
	}
}

func TestContract(t *testing.T) {
	socket, _ := serve(t, newKey(t, Options{}), newKey(t, Options{Serial: 7, Absent: true, Product: 0x0405}))
	const (
		emu1 = `{"path":"emu1:1.0","port":"emu1","vendor":4176,"product":1031}`
		emu2 = `{"path":"emu2:1.0","port":"emu2","vendor":4176,"product":1029}`
		ok   = `{"ok":true}`
	)
	w := connect(t, socket)
	w.expect(`{"op":"list"}`, `{"ok":true,"interfaces":[`+emu1+`]}`)
	watch := connect(t, socket)
	watch.expect(`{"op":"watch"}`, `{"event":"added","interface":`+emu1+`}`)
	if got := watch.hear(); got != `{"event":"synced"}` {
		t.Fatal(got)
	}
	w.expect(`{"op":"open","path":"emu2:1.0"}`, `{"error":{"code":"gone",…`)
	w.expect(`{"op":"insert","key":"7"}`, ok)
	w.expect(`{"op":"insert","key":"emu2"}`, ok)
	w.expect(`{"op":"remove","key":"emu2"}`, ok)
	for _, want := range []string{`{"event":"added","interface":` + emu2 + `}`, `{"event":"removed","interface":` + emu2 + `}`} {
		if got := watch.hear(); got != want {
			t.Fatalf("event %s, not %s", got, want)
		}
	}
	watch.expect(`{"op":"list"}`, `{"error":{"code":"bad-request",…`)
	watch.ended()

	h := connect(t, socket)
	h.expect(`{"op":"get-feature"}`, `{"error":{"code":"bad-request",…`)
	h.expect(`{"op":"open","path":"emu9:1.0"}`, `{"error":{"code":"gone",…`)
	h.expect(`{"op":"open","path":"emu1:1.0"}`, opened)
	w.expect(`{"op":"open","path":"emu1:1.0"}`, `{"error":{"code":"busy",…`)
	h.expect(`{"op":"list"}`, `{"error":{"code":"bad-request",…`)
	h.expect(`{"op":"get-feature"}`, `{"ok":true,"data":"000005040300000000"}`)
	for _, r := range golden {
		h.expect(`{"op":"set-feature","data":"00`+r+`"}`, ok)
	}
	h.expect(`{"op":"get-feature"}`, `{"ok":true,"data":"0000050403010a0000"}`)
	h.expect(`{"op":"read-input"}`, ok)
	h.expect(`{"op":"read-input","timeout_ms":1}`, ok)
	w.expect(`{"op":"touch","key":"emu1","long":true}`, `{"ok":true,"touches":[{"to":"holder"}]}`)
	w.expect(`{"op":"touch","key":"emu1"}`, `{"ok":true,"touches":[{"to":"nobody"}]}`)
	h.expect(`{"op":"read-input","timeout_ms":1000}`, `{"ok":true,"data":"0000180000000000"}`) // u
	w.expect(`{"op":"list-all"}`, `{"ok":true,"keys":[{"path":"emu1:1.0","port":"emu1","vendor":4176,"product":1031,"device":"yk-12345678","serial":12345678,"firmware":"5.4.3",`+
		`"present":true,"held":true,"holds":["otp2"],"program_sequence":1,"faults":[],"typed_to_window":0,"typed_to_holder":1,"required_wait_us":0},…`)
	h.expect(`{"op":"close"}`, ok)
	h.ended()
	w.expect(`{"op":"touch","key":"12345678","long":true,"times":2}`, `{"ok":true,"touches":[{"to":"window","text":"ubhe12345678`+oathtool(t, rfcSeed, 17, 8)+`\n"},{…`)
	w.expect(`{"op":"fault","key":"emu1","kind":"no-permission"}`, ok)
	w.expect(`{"op":"open","path":"emu1:1.0"}`, `{"error":{"code":"permission",…`)
	w.expect(`{"op":"fault","key":"emu1","kind":"melt"}`, `{"error":{"code":"bad-request",…`)
	w.expect(`{"op":"touch","key":"99"}`, `{"error":{"code":"unknown-key",…`)
	w.expect(`{"op":"touch","key":"7"}`, `{"error":{"code":"gone",…`)
}

func TestGarbage(t *testing.T) {
	socket, _ := serve(t, newKey(t, Options{}))
	w := connect(t, socket)
	for _, line := range []string{
		"", "{", "null", "[]", "7", `{"op":"list"} {}`, `{"op":"dance"}`, `{"op":"list","more":1}`, "\x00\xff\xfe", `{"op":"open"}`,
		`{"op":"open","path":"../../etc/passwd"}`, `{"op":"touch","key":"emu1","times":1001}`, `{"op":"touch","key":"emu1","times":-1}`,
		`{"op":"read-input","timeout_ms":60001}`, `{"op":"set-feature","data":"0g"}`, `{"op":"set-feature","data":"00"}`,
		`{"op":"set-feature","data":"010000000000000000"}`, `{"op":"fault","key":"emu1"}`,
	} {
		w.expect(line, `{"error":{"code":"bad-request",…`)
	}
	w.expect(`{"op":"list"}`, `{"ok":true,…`)
	w.expect(strings.Repeat("x", bussocket.MaxRequest), `{"error":{"code":"bad-request",…`)
	w.ended()
}

func TestLostClientGivesTheKeyboardBack(t *testing.T) {
	k := newKey(t, Options{})
	socket, _ := serve(t, k)
	h := connect(t, socket)
	h.expect(`{"op":"open","path":"emu1:1.0"}`, opened)
	h.say(`{"op":"read-input","timeout_ms":60000}`)
	h.c.Close()
	w := connect(t, socket)
	for {
		w.say(`{"op":"open","path":"emu1:1.0"}`)
		if got := w.hear(); got == opened {
			break
		} else if !strings.Contains(got, "busy") {
			t.Fatal(got)
		}
	}
}

func TestLostClientEndsItsOpening(t *testing.T) {
	k := newKey(t, Options{})
	fault(t, k, FaultSlowOpen, 60_000)
	socket, _ := serve(t, k)
	h := connect(t, socket)
	h.say(`{"op":"open","path":"emu1:1.0"}`)
	taken := func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.taken
	}
	for !taken() {
		runtime.Gosched()
	}
	h.c.Close()
	fault(t, k, FaultClear, 0)
	w := connect(t, socket)
	for {
		w.say(`{"op":"open","path":"emu1:1.0"}`)
		if got := w.hear(); got == opened {
			break
		} else if !strings.Contains(got, "busy") {
			t.Fatal(got)
		}
	}
}

func TestSameSerial(t *testing.T) {
	socket, _ := serve(t, newKey(t, Options{}), newKey(t, Options{}))
	w := connect(t, socket)
	w.expect(`{"op":"remove","key":"12345678"}`, `{"error":{"code":"ambiguous",…`)
	w.expect(`{"op":"remove","key":"emu2"}`, `{"ok":true}`)
	w.expect(`{"op":"list"}`, `{"ok":true,"interfaces":[{"path":"emu1:1.0",…`)
}

func TestServerStopsWithClients(t *testing.T) {
	k := newKey(t, Options{})
	socket, stop := serve(t, k)
	idle, watch, h := connect(t, socket), connect(t, socket), connect(t, socket)
	idle.expect(`{"op":"list"}`, `{"ok":true,…`)
	watch.expect(`{"op":"watch"}`, `{"event":"added",…`)
	h.expect(`{"op":"open","path":"emu1:1.0"}`, opened)
	h.say(`{"op":"read-input","timeout_ms":60000}`)
	stop()
	if _, err := k.Open(t.Context()); err != nil {
		t.Fatalf("a handle is left over: %v", err)
	}
}

func TestSlowWatcher(t *testing.T) {
	k := newKey(t, Options{})
	s, err := Listen(socketPath(t), k)
	if err != nil {
		t.Fatal(err)
	}
	w := s.watch()
	for range bussocket.MaxBacklog {
		k.Remove()
		k.Insert()
	}
	if events, ok := s.events(w); ok || len(events) != bussocket.MaxBacklog {
		t.Fatalf("%d events, complete %v", len(events), ok)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestSocketFile(t *testing.T) {
	path := socketPath(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen[Token](path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Fatalf("a plain file: %v", err)
	}
	os.Remove(path)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen[Token](path); err == nil || !strings.Contains(err.Error(), "another emulator") {
		t.Fatalf("a live socket: %v", err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	s, err := Listen[Token](path)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if i, err := os.Lstat(path); err != nil || i.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("%v, %v", i.Mode(), err)
	}
	// Somebody else's file at that path is left alone at the end.
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen[Token](filepath.Join(filepath.Dir(path), strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Fatalf("a long path: %v", err)
	}
}
