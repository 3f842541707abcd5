package bussocket_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator"
)

var fw5 = device.Version{Major: 5, Minor: 4, Build: 3}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "td") // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "bus")
}

// serve runs an emulator until stop or the end of the test.
func serve[T emulator.Token](t *testing.T, keys ...T) (socket string, stop func()) {
	t.Helper()
	socket = socketPath(t)
	s, err := emulator.Listen(socket, keys...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return socket, stop
}

func key(serial device.Serial) *emulator.YubiKey {
	return emulator.New(emulator.Options{Serial: serial, Firmware: fw5, Timing: &emulator.Timing{}})
}

func open(t *testing.T, b *bussocket.Bus, path string) device.Report {
	t.Helper()
	r, err := b.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestWatch(t *testing.T) {
	socket, stop := serve(t, key(1), emulator.New(emulator.Options{Serial: 2, Firmware: fw5, Absent: true}))
	b, hand := bussocket.New(socket), bussocket.Control{Socket: socket}
	if b.Name() != "emulator" {
		t.Fatal(b.Name())
	}
	events, result := make(chan device.Event), make(chan error, 1)
	go func() { result <- b.Watch(context.Background(), func(e device.Event) { events <- e }) }()
	one := device.Info{Path: "emu1:1.0", Port: "emu1", Vendor: 0x1050, Product: 0x0407, Emulated: true}
	two := device.Info{Path: "emu2:1.0", Port: "emu2", Vendor: 0x1050, Product: 0x0407, Emulated: true}
	expect := func(want device.Event) {
		t.Helper()
		if got := <-events; got != want {
			t.Fatalf("%+v, not %+v", got, want)
		}
	}
	expect(device.Event{Info: one})
	if err := hand.Insert(t.Context(), "2"); err != nil {
		t.Fatal(err)
	}
	expect(device.Event{Info: two})
	if infos, err := b.List(t.Context()); err != nil || !slices.Equal(infos, []device.Info{one, two}) {
		t.Fatalf("%+v, %v", infos, err)
	}
	if err := hand.Remove(t.Context(), "emu1"); err != nil {
		t.Fatal(err)
	}
	expect(device.Event{Info: one, Removed: true})
	stop()
	if err := <-result; err == nil || !strings.Contains(err.Error(), "cannot reach the emulator at "+socket+": the connection was lost") {
		t.Fatalf("watch ended with %v", err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	socket, _ := serve(t, key(1))
	ctx, cancel := context.WithCancel(t.Context())
	err := bussocket.New(socket).Watch(ctx, func(device.Event) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// Also while nothing happens.
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := bussocket.New(socket).Watch(ctx, func(device.Event) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func TestAbsentServer(t *testing.T) {
	socket := socketPath(t)
	b := bussocket.New(socket)
	check := func(err error, want string) {
		t.Helper()
		for _, s := range []string{"cannot reach the emulator at " + socket + ": ", want, "; start it with tokenemu serve --socket " + socket} {
			if err == nil || !strings.Contains(err.Error(), s) {
				t.Fatalf("%v does not say %q", err, s)
			}
		}
	}
	check(b.Watch(t.Context(), nil), "there is no such socket")
	_, err := b.Open(t.Context(), "emu1:1.0")
	check(err, "there is no such socket")
	if !errors.Is(err, device.ErrGone) {
		t.Fatalf("%v is not ErrGone", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	check(b.Watch(t.Context(), nil), "nobody serves that socket any more")
	_, err = bussocket.Control{Socket: socket}.List(t.Context())
	check(err, "nobody serves that socket any more")
	if err := bussocket.New("").Watch(t.Context(), nil); err == nil {
		t.Fatal("a bus without a socket")
	}
}

func TestOpen(t *testing.T) {
	k := key(1)
	socket, _ := serve(t, k)
	b := bussocket.New(socket)
	r := open(t, b, "emu1:1.0")
	for path, want := range map[string]error{"emu1:1.0": device.ErrBusy, "emu2:1.0": device.ErrGone, "no path": device.ErrGone} {
		if _, err := b.Open(t.Context(), path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if r.GetFeature(make([]byte, 9)) == nil {
		t.Fatal("a closed handle reads")
	}
	open(t, b, "emu1:1.0").Close() // at once: Close has given the keyboard back
	if err := k.SetFault(emulator.FaultNoPermission, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(t.Context(), "emu1:1.0"); !errors.Is(err, device.ErrPermission) || errors.Is(err, device.ErrGone) {
		t.Fatal(err)
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	k := key(1)
	if err := k.SetFault(emulator.FaultSlowOpen, 60_000); err != nil {
		t.Fatal(err)
	}
	socket, _ := serve(t, k)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := bussocket.New(socket).Open(ctx, "emu1:1.0")
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, device.ErrGone) || time.Since(start) > 10*time.Second {
		t.Fatalf("%v after %v", err, time.Since(start))
	}
}

func TestReport(t *testing.T) {
	k := key(12345678)
	socket, _ := serve(t, k)
	r := open(t, bussocket.New(socket), "emu1:1.0")
	for _, n := range []int{0, 8, 10} {
		if r.SetFeature(make([]byte, n)) == nil || r.GetFeature(make([]byte, n)) == nil {
			t.Fatalf("a report of %d bytes was taken", n)
		}
	}
	if r.SetFeature([]byte{1, 8: 0x80}) == nil {
		t.Fatal("report number 1 was taken")
	}
	if _, err := r.ReadInput(make([]byte, 7), 0); err == nil {
		t.Fatal("7 bytes were enough")
	}
	// The serial, as ykpersonalize asks for it.
	for _, p := range [][]byte{{8: 0x80}, {0, 0, 0x10, 0x6b, 0x5b, 0, 0, 0, 0x89}} {
		if err := r.SetFeature(p); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, device.ReportSize)
	if err := r.GetFeature(p); err != nil || string(p[:5]) != "\x00\x00\xbc\x61\x4e" || p[8] != 0x40 {
		t.Fatalf("%x, %v", p, err)
	}
	for _, d := range []time.Duration{-1, 0, time.Nanosecond, 20 * time.Millisecond} {
		start := time.Now()
		if n, err := r.ReadInput(p, d); n != 0 || err != nil || time.Since(start) < d {
			t.Fatalf("nothing typed: %d, %v after %v of %v", n, err, time.Since(start), d)
		}
	}
	result := make(chan error)
	go func() {
		_, err := r.ReadInput(p, time.Hour)
		result <- err
	}()
	k.Remove()
	if err := <-result; !errors.Is(err, device.ErrGone) {
		t.Fatalf("pulled during a read: %v", err)
	}
	k.Insert()
	if err := r.GetFeature(p); !errors.Is(err, device.ErrGone) {
		t.Fatalf("after it was plugged in again: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// The feature reports of a Nitrokey have 65 bytes.
func TestNitrokeyReport(t *testing.T) {
	k := emulator.NewNitrokeyPro(emulator.Options{Serial: 0x5d19, Timing: &emulator.Timing{}})
	socket, _ := serve(t, k)
	b := bussocket.New(socket)
	infos, err := b.List(t.Context())
	if want := (device.Info{Path: "emu1:1.0", Port: "emu1", Vendor: 0x20A0, Product: 0x4108, Emulated: true}); err != nil || !slices.Equal(infos, []device.Info{want}) {
		t.Fatalf("%+v, %v", infos, err)
	}
	r := open(t, b, "emu1:1.0")
	for _, n := range []int{0, 9, 64, 66} {
		if r.SetFeature(make([]byte, n)) == nil || r.GetFeature(make([]byte, n)) == nil {
			t.Fatalf("a report of %d bytes was taken", n)
		}
	}
	status := make([]byte, 65) // the command GET_STATUS is 0
	copy(status[61:], "\xdf\xb7\x6e\xef")
	if err := r.SetFeature(status); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 65)
	if err := r.GetFeature(p); err != nil || string(p[3:12]) != "\xdf\xb7\x6e\xef\x00\x0f\x00\x19\x5d" {
		t.Fatalf("%x, %v", p, err)
	}
	if n, err := r.ReadInput(make([]byte, 8), 0); n != 0 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	k.Remove()
	for what, err := range map[string]error{"SetFeature": r.SetFeature(status), "GetFeature": r.GetFeature(p)} {
		if !errors.Is(err, device.ErrGone) {
			t.Errorf("pulled: %s: %v", what, err)
		}
	}
}

// A server that does not say what it has opened cannot be talked to, because the size of reports follows from that.
func TestOpenedInterfaceIsTold(t *testing.T) {
	for answer, opens := range map[string]bool{
		`{"ok":true}`: false,
		`{"ok":true,"interface":{"path":"emu2:1.0","port":"emu2","vendor":8352,"product":16648}}`: false,
		`{"ok":true,"interface":{"path":"emu1:1.0","port":"emu1","vendor":8352,"product":16648}}`: true,
	} {
		socket := socketPath(t)
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		var done sync.WaitGroup
		done.Go(func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			requests := bufio.NewReader(c)
			requests.ReadString('\n')
			fmt.Fprintln(c, answer)
			if opens { // with a report that is a YubiKey's
				requests.ReadString('\n')
				fmt.Fprintln(c, `{"ok":true,"data":"000000000000000000"}`)
			}
		})
		r, err := bussocket.New(socket).Open(t.Context(), "emu1:1.0")
		if (err == nil) != opens || err != nil && !errors.Is(err, device.ErrGone) {
			t.Errorf("%s: %v", answer, err)
		}
		if err == nil {
			if err := r.GetFeature(make([]byte, 65)); !errors.Is(err, device.ErrCorrupt) {
				t.Errorf("a report of 9 bytes: %v", err)
			}
			r.Close()
		}
		l.Close()
		done.Wait()
	}
}

func TestReportOutlivesNoServer(t *testing.T) {
	socket, stop := serve(t, key(1))
	r := open(t, bussocket.New(socket), "emu1:1.0")
	stop()
	for range 2 {
		if err := r.GetFeature(make([]byte, 9)); !errors.Is(err, device.ErrGone) {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestControl(t *testing.T) {
	socket, _ := serve(t, key(1), key(1))
	hand := bussocket.Control{Socket: socket}
	if err := hand.Remove(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "cannot remove key 1: 2 keys have the serial 1") {
		t.Fatal(err)
	}
	if err := hand.Fault(t.Context(), "emu2", "reclaim", 3); err != nil {
		t.Fatal(err)
	}
	keys, err := hand.List(t.Context())
	if err != nil || len(keys) != 2 || !slices.Equal(keys[1].Faults, []string{"reclaim=3"}) || keys[0].Serial != 1 || keys[0].Firmware != "5.4.3" {
		t.Fatalf("%+v, %v", keys, err)
	}
	touches, err := hand.Touch(t.Context(), "emu1", false, 2)
	if nobody := (bussocket.Touch{To: bussocket.ToNobody}); err != nil || !slices.Equal(touches, []bussocket.Touch{nobody, nobody}) {
		t.Fatalf("%+v, %v", touches, err)
	}
	if _, err := hand.Touch(t.Context(), "emu1", false, 0); err == nil {
		t.Fatal("touched 0 times")
	}
}

// TestHostileServer: whatever comes from the socket, calls end with an error.
func TestHostileServer(t *testing.T) {
	for _, answer := range []string{
		"", "garbage\n", "{}\n", `{"ok":true,"error":{"code":"gone"}}` + "\n", `{"event":"added"}` + "\n", `{"event":"boo"}` + "\n",
		`{"event":"added","interface":{"path":"\u001b[2J","port":"x"}}` + "\n", `{"ok":true,"data":"zz"}` + "\n",
		strings.Repeat("x", bussocket.MaxAnswer+1), `{"ok":true`,
	} {
		socket := socketPath(t)
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		var done sync.WaitGroup
		done.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Read(make([]byte, bussocket.MaxRequest))
				fmt.Fprint(c, answer)
				c.Close()
			}
		})
		b := bussocket.New(socket)
		if err := b.Watch(t.Context(), func(device.Event) { t.Error("an event") }); err == nil {
			t.Errorf("%.40q: watch ended well", answer)
		}
		if _, err := b.Open(t.Context(), "emu1:1.0"); err == nil {
			t.Errorf("%.40q: opened", answer)
		}
		l.Close()
		done.Wait()
	}
}
