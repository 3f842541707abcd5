package emulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device/bussocket"
	"tokendesk/device/emulator/vhci"
)

// fakeKernel takes devices and sets them up, as the kernel does behind package vhci.
type fakeKernel struct {
	refuse error // the answer to an attachment
	silent bool  // nothing is set up
	keep   error // why it does not let go

	mu    sync.Mutex
	ports []*fakePort // every one there ever was
	log   []string
}

type fakePort struct {
	kernel *fakeKernel
	name   string
	device vhci.Device
	done   chan struct{}
}

func (f *fakeKernel) attach(d vhci.Device) (usbPort, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return nil, f.refuse
	}
	p := &fakePort{kernel: f, name: fmt.Sprintf("1-%d", len(f.ports)+1), device: d, done: make(chan struct{})}
	f.ports = append(f.ports, p)
	f.log = append(f.log, "attach "+p.name)
	if !f.silent {
		go d.Control(vhci.Setup{RequestType: 0x00, Request: 9, Value: 1}, nil)
	}
	return p, nil
}

func (p *fakePort) Name() string          { return p.name }
func (p *fakePort) Done() <-chan struct{} { return p.done }

func (p *fakePort) Detach() error {
	p.kernel.mu.Lock()
	defer p.kernel.mu.Unlock()
	p.kernel.log = append(p.kernel.log, "detach "+p.name)
	return p.kernel.keep
}

// happened takes what the kernel was asked since the last time.
func (f *fakeKernel) happened() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := strings.Join(f.log, ", ")
	f.log = nil
	return all
}

func attachable(t *testing.T, o Options) *YubiKey {
	t.Helper()
	o.Product = 0x0401
	return newKey(t, o)
}

// serveAttached is serve for keys that are attached to f.
func serveAttached(t *testing.T, f *fakeKernel, keys ...Token) (socket string, stop func() error) {
	t.Helper()
	socket = socketPath(t)
	s, err := attach(socket, f.attach, keys)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	t.Cleanup(func() { stop() })
	return socket, stop
}

func TestAttachedContract(t *testing.T) {
	f := &fakeKernel{}
	k := attachable(t, Options{})
	socket, stop := serveAttached(t, f, k, attachable(t, Options{Serial: 7, Absent: true}), attachable(t, Options{Serial: 8}))
	if got := f.happened(); got != "attach 1-1, attach 1-2" {
		t.Fatal(got)
	}
	const ok = `{"ok":true}`
	w := connect(t, socket)
	w.expect(`{"op":"list"}`, ok)
	w.expect(`{"op":"open","path":"emu1:1.0"}`, `{"error":{"code":"gone","text":"key emu1 is attached to the USB…`)
	watch := connect(t, socket)
	watch.expect(`{"op":"watch"}`, `{"event":"synced"}`)
	w.expect(`{"op":"list-all"}`, `{"ok":true,"keys":[{"path":"emu1:1.0","port":"emu1","vendor":4176,"product":1025,"usb_port":"1-1","device":"yk-12345678","serial":12345678,"firmware":"5.4.3",`+
		`"present":true,"held":false,"holds":[],"program_sequence":0,"faults":[],"typed_to_window":0,"typed_to_holder":0,"required_wait_us":0},`+
		`{"path":"emu2:1.0","port":"emu2","vendor":4176,"product":1025,"device":"yk-7","serial":7,"firmware":"5.4.3","present":false,…`)

	// Insert and remove wait for the kernel.
	w.expect(`{"op":"remove","key":"emu2"}`, ok)
	w.expect(`{"op":"insert","key":"7"}`, ok)
	w.expect(`{"op":"insert","key":"7"}`, ok)
	if got := f.happened(); got != "attach 1-3" {
		t.Fatal(got)
	}
	w.expect(`{"op":"remove","key":"7"}`, ok)
	w.expect(`{"op":"remove","key":"7"}`, ok)
	if got := f.happened(); got != "detach 1-3" {
		t.Fatal(got)
	}
	w.expect(`{"op":"touch","key":"7"}`, `{"error":{"code":"gone",…`)

	// What is typed goes to the USB, what strikes at an opening is refused.
	if !(host{t, k.holder}).wrote(cmdConfig2, hotpConfig().payload()) {
		t.Fatal("refused")
	}
	w.expect(`{"op":"touch","key":"emu1","long":true}`, `{"ok":true,"touches":[{"to":"usb"}]}`)
	w.expect(`{"op":"touch","key":"emu1"}`, `{"ok":true,"touches":[{"to":"nobody"}]}`)
	if !(host{t, k.holder}).wrote(cmdConfig1, hmacConfig(cfgChallengeTouch).payload()) {
		t.Fatal("refused")
	}
	host{t, k.holder}.frame(cmdChallengeHMAC1, nil)
	w.expect(`{"op":"touch","key":"emu1"}`, `{"ok":true,"touches":[{"to":"challenge"}]}`)
	for _, kind := range []Fault{FaultSlowOpen, FaultExclusiveOpen, FaultNoPermission} {
		w.expect(`{"op":"fault","key":"emu1","kind":"`+string(kind)+`","n":1}`, `{"error":{"code":"bad-request","text":"fault `+string(kind)+` strikes when…`)
	}
	w.expect(`{"op":"fault","key":"emu1","kind":"reclaim"}`, ok)

	// In the end all are pulled, in order.
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := f.happened(); got != "detach 1-1, detach 1-2" {
		t.Fatal(got)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Fatalf("the socket is still there: %v", err)
	}
}

func TestAttachFails(t *testing.T) {
	f := &fakeKernel{refuse: errors.New("no port is free")}
	socket := socketPath(t)
	if _, err := attach(socket, f.attach, []Token{attachable(t, Options{})}); err == nil || !strings.Contains(err.Error(), "cannot attach yk-12345678: no port is free") {
		t.Fatal(err)
	}
	if _, err := attach(socket, f.attach, []Token{newKey(t, Options{Product: 0x0407})}); err == nil || !strings.Contains(err.Error(), "make it a product 0010, 0110 or 0401") {
		t.Fatal(err)
	}
	// Those that were attached before are pulled again.
	f.refuse = nil
	second := func(d vhci.Device) (usbPort, error) {
		if len(f.ports) > 0 {
			return nil, errors.New("no port is free")
		}
		return f.attach(d)
	}
	k := attachable(t, Options{})
	if _, err := attach(socket, second, []Token{k, attachable(t, Options{Serial: 7})}); err == nil || !strings.Contains(err.Error(), "cannot attach yk-7") {
		t.Fatal(err)
	}
	if got := f.happened(); got != "attach 1-1, detach 1-1" {
		t.Fatal(got)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Fatalf("the socket is still there: %v", err)
	}
}

func TestTheKernelFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeKernel{silent: true}
		k := attachable(t, Options{Absent: true})
		k.moveToUSB()
		u := &usbPlug{token: k, attach: f.attach}
		start := time.Now()
		if err := u.insert(); err == nil || !strings.Contains(err.Error(), "has not set up the key at USB port 1-1") || time.Since(start) != setupPatience {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
		if got := f.happened(); got != "attach 1-1, detach 1-1" || u.port() != "" {
			t.Fatal(got, u.port())
		}
		// It lets go while it sets the key up.
		go func() {
			synctest.Wait()
			close(f.ports[1].done)
		}()
		if err := u.insert(); err == nil || !strings.Contains(err.Error(), "gone from USB port 1-2") {
			t.Fatal(err)
		}
		// It lets go later: that is a pull.
		f.silent = false
		if err := u.insert(); err != nil {
			t.Fatal(err)
		}
		close(f.ports[2].done)
		synctest.Wait()
		if _, _, err := k.Touch(false); err == nil || u.port() != "" {
			t.Fatalf("the key is still in: %v, port %q", err, u.port())
		}
		f.happened()
		// It does not let go.
		f.keep = errors.New("the kernel still has the device")
		if err := u.insert(); err != nil {
			t.Fatal(err)
		}
		if err := u.remove(); err != f.keep {
			t.Fatal(err)
		}
		if got := f.happened(); got != "attach 1-4, detach 1-4" {
			t.Fatal(got)
		}
	})
}

func TestRemoveTellsWhatTheKernelKeeps(t *testing.T) {
	f := &fakeKernel{keep: errors.New("the kernel still has the device")}
	socket, stop := serveAttached(t, f, attachable(t, Options{}))
	w := connect(t, socket)
	w.expect(`{"op":"remove","key":"emu1"}`, `{"error":{"code":"failed","text":"the kernel still has the device"}}`)
	if err := stop(); err == nil || !strings.Contains(err.Error(), "cannot pull emu1: the kernel still has the device") {
		t.Fatal(err)
	}
}

func TestFaultUnplugsFromUSB(t *testing.T) {
	f := &fakeKernel{}
	socket, _ := serveAttached(t, f, attachable(t, Options{}))
	hand := bussocket.Control{Socket: socket}
	if err := hand.Fault(t.Context(), "emu1", string(FaultUnplugAtChunk), 0); err != nil {
		t.Fatal(err)
	}
	h := usbHost{t, f.ports[0].device}
	if _, err := h.request("21 09 0003 0000 0800", 0, 0, 0, 0, 0, 0, 0, 0x80); err == nil || err == vhci.ErrStall {
		t.Fatal(err)
	}
	if err := hand.Insert(t.Context(), "emu1"); err != nil { // after the kernel has let go
		t.Fatal(err)
	}
	if got := f.happened(); got != "attach 1-1, detach 1-1, attach 1-2" {
		t.Fatal(got)
	}
	keys, err := hand.List(t.Context())
	if err != nil || keys[0].USBPort != "1-2" {
		t.Fatalf("%+v, %v", keys, err)
	}
}

// TestManyHands plugs and pulls a key from several connections at once, while it also vanishes by itself.
func TestManyHands(t *testing.T) {
	f := &fakeKernel{}
	k := attachable(t, Options{})
	socket, stop := serveAttached(t, f, k)
	hand := bussocket.Control{Socket: socket}
	var hands sync.WaitGroup
	for n := range 4 {
		hands.Go(func() {
			for i := range 25 {
				do := hand.Insert
				if (i+n)%2 == 0 {
					do = hand.Remove
				}
				if err := do(t.Context(), "emu1"); err != nil && !strings.Contains(err.Error(), "before the kernel had set it up") {
					t.Error(err)
				}
				if n == 0 {
					k.Remove() // as a fault does
				}
				if _, err := hand.List(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	hands.Wait()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// One after the other: never two at a time, and none is left.
	events := strings.Split(f.happened(), ", ")
	for i := 0; i < len(events); i += 2 {
		name := strings.TrimPrefix(events[i], "attach ")
		if !slices.Equal(events[i:min(i+2, len(events))], []string{"attach " + name, "detach " + name}) {
			t.Fatalf("%v at %d", events, i)
		}
	}
}
