package vhci

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fakeKernel is a tree as sysfs shows it, with two controllers of three ports, and something that acts when
// a file in it is written.
type fakeKernel struct {
	t       *testing.T
	host    host
	refuse  func(port int) error // the answer to an attachment
	keep    bool                 // the connection after the other side has ended it
	linger  bool                 // the entry in sysfs after the connection has ended
	running sync.WaitGroup

	mu       sync.Mutex
	states   [12]int
	numbers  int // of devices
	attached []net.Conn
}

const ports = 3 // of each of the four hubs: hs, ss, hs, ss

func newFakeKernel(t *testing.T) *fakeKernel {
	f := &fakeKernel{t: t, numbers: 1}
	f.host = host{root: t.TempDir(), store: f.store, vacancy: 20 * time.Second, patience: 20 * time.Second}
	for i := range f.states {
		f.states[i] = portFree
	}
	f.show()
	for folder, speed := range map[string]string{"0/usb1": "480", "0/usb2": "5000", "1/usb3": "480", "1/usb4": "10000"} {
		f.write("devices/platform/vhci_hcd."+folder+"/speed", speed+"\n")
	}
	t.Cleanup(func() {
		for _, c := range f.attached {
			c.Close()
		}
		f.running.Wait()
	})
	return f
}

func (f *fakeKernel) write(name, text string) {
	path := filepath.Join(f.host.root, name)
	fresh := path + "~" // sysfs never shows half a file
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(fresh, []byte(text), 0o644), os.Rename(fresh, path)); err != nil {
		f.t.Error(err)
	}
}

// show writes the status files, with f.mu held or before anybody else is there.
func (f *fakeKernel) show() {
	for controller, file := range []string{"status", "status.1"} {
		text := "hub port sta spd dev      sockfd local_busid\n"
		for i := range 2 * ports {
			hub, n := "hs ", controller*2*ports+i
			if i >= ports {
				hub = "ss "
			}
			text += fmt.Sprintf("%s %04d %03d 000 00000000 000000 0-0\n", hub, n, f.states[n])
		}
		f.write("devices/platform/vhci_hcd.0/"+file, text)
	}
}

func (f *fakeKernel) set(port, state int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.states[port] = state
	f.show()
}

// folder is where a device at a port appears.
func (f *fakeKernel) folder(port int) string {
	controller, i := port/(2*ports), port%(2*ports)
	bus := 1 + 2*controller
	return fmt.Sprintf("devices/platform/vhci_hcd.%d/usb%d/%d-%d", controller, bus, bus, i+1)
}

func (f *fakeKernel) store(file, text string) error {
	var port, fd, id, speed int
	if _, err := fmt.Sscanf(text, "%d %d %d %d", &port, &fd, &id, &speed); err != nil || filepath.Base(file) != "attach" || speed != 2 {
		f.t.Errorf("%q was written to %s", text, file)
	}
	if f.refuse != nil {
		if err := f.refuse(port); err != nil {
			return err
		}
	}
	own, err := syscall.Dup(fd)
	if err != nil {
		return err
	}
	socket := os.NewFile(uintptr(own), "socket")
	defer socket.Close()
	c, err := net.FileConn(socket)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.states[port] != portFree {
		c.Close()
		return syscall.EBUSY
	}
	f.states[port] = 6
	f.show()
	f.numbers++
	f.write(f.folder(port)+"/devnum", fmt.Sprintf("%d\n", f.numbers))
	f.attached = append(f.attached, c)
	f.running.Go(func() {
		io.Copy(io.Discard, c)
		if f.keep {
			return
		}
		c.Close()
		f.set(port, portFree)
		if !f.linger {
			os.RemoveAll(filepath.Join(f.host.root, f.folder(port)))
		}
	})
	return nil
}

func (f *fakeKernel) attach() *Port {
	f.t.Helper()
	p, err := f.host.attach(newGadget())
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func (f *fakeKernel) exists(port int) bool {
	_, err := os.Lstat(filepath.Join(f.host.root, f.folder(port)))
	return err == nil
}

func TestAttachFillsThePorts(t *testing.T) {
	f := newFakeKernel(t)
	f.set(1, 7) // VDEV_ST_ERROR
	for _, want := range []string{"1-1", "1-3", "3-1", "3-2", "3-3"} {
		p := f.attach()
		if p.Name() != want {
			t.Fatalf("port %s, not %s", p.Name(), want)
		}
		select {
		case <-p.Done():
			t.Fatal("a fresh port is done")
		default:
		}
	}
	f.host.vacancy = time.Millisecond
	if _, err := f.host.attach(newGadget()); err == nil || !strings.Contains(err.Error(), "all are taken") {
		t.Fatal(err)
	}
	// It waits for a port that is about to be free.
	f.host.vacancy = time.Minute
	go f.set(1, portFree)
	if p := f.attach(); p.Name() != "1-2" {
		t.Fatal(p.Name())
	}
}

func TestAttachRaces(t *testing.T) {
	f := newFakeKernel(t)
	refusals := map[int]error{0: syscall.EBUSY, 1: syscall.EINVAL}
	f.refuse = func(port int) error { return refusals[port] }
	if p := f.attach(); p.Name() != "1-3" {
		t.Fatalf("port %s after two were lost to others", p.Name())
	}
	f.refuse = func(int) error { return &fs.PathError{Op: "write", Err: syscall.EBUSY} }
	f.host.vacancy = time.Millisecond
	if _, err := f.host.attach(newGadget()); !errors.Is(err, syscall.EBUSY) {
		t.Fatal(err)
	}
	// Many at once get a port each.
	f = newFakeKernel(t)
	var all sync.WaitGroup
	names := make(chan string, 6)
	for range 6 {
		all.Go(func() {
			if p, err := f.host.attach(newGadget()); err != nil {
				t.Error(err)
			} else {
				names <- p.Name()
			}
		})
	}
	all.Wait()
	close(names)
	seen := map[string]bool{}
	for n := range names {
		seen[n] = true
	}
	if len(seen) != 6 {
		t.Fatalf("%v", seen)
	}
}

func TestAttachWhatIsMissing(t *testing.T) {
	f := newFakeKernel(t)
	for want, cause := range map[string]error{"run this as root": &fs.PathError{Op: "open", Err: syscall.EACCES}, "no space": errors.New("no space")} {
		f.refuse = func(int) error { return cause }
		if _, err := f.host.attach(newGadget()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	f.host.root = t.TempDir()
	if _, err := f.host.attach(newGadget()); err == nil || !strings.Contains(err.Error(), "modprobe vhci-hcd") {
		t.Fatal(err)
	}
	f.write("devices/platform/vhci_hcd.0/status", "port sta spd dev socket local_busid\n000 004 000 000 0 0-0\n")
	if _, err := f.host.attach(newGadget()); err == nil || !strings.Contains(err.Error(), "older than 4.13") {
		t.Fatal(err)
	}
}

func TestAttachLeavesAPortWithADeviceAlone(t *testing.T) {
	f := newFakeKernel(t)
	f.write(f.folder(0)+"/devnum", "9\n") // free again, but the hub has not noticed
	if p := f.attach(); p.Name() != "1-2" {
		t.Fatal(p.Name())
	}
}

func TestDetach(t *testing.T) {
	f := newFakeKernel(t)
	for range 20 {
		p := f.attach()
		if p.Name() != "1-1" || !f.exists(0) {
			t.Fatalf("attached to %s", p.Name())
		}
		for range 2 {
			if err := p.Detach(); err != nil {
				t.Fatal(err)
			}
		}
		if f.exists(0) {
			t.Fatal("the device is still there")
		}
		<-p.Done()
	}
}

func TestKernelLetsGo(t *testing.T) {
	f := newFakeKernel(t)
	p := f.attach()
	f.attached[0].(*net.UnixConn).CloseWrite()
	<-p.Done()
	if err := p.Detach(); err != nil || f.exists(0) {
		t.Fatalf("%v, %v", err, f.exists(0))
	}
	// Talking nonsense ends it as well, and Detach says so.
	p = f.attach()
	f.attached[1].Write(words(4711))
	<-p.Done()
	if err := p.Detach(); err == nil || !strings.Contains(err.Error(), "command 4711") {
		t.Fatal(err)
	}
}

func TestKernelDoesNotLetGo(t *testing.T) {
	f := newFakeKernel(t)
	f.host.patience = 50 * time.Millisecond
	f.linger = true
	if err := f.attach().Detach(); err == nil || !strings.Contains(err.Error(), "still has the device") {
		t.Fatal(err)
	}
	f.keep = true
	p := f.attach()
	if err := p.Detach(); err == nil || !strings.Contains(err.Error(), "keeps the connection") {
		t.Fatal(err)
	}
	<-p.Done() // all the same nothing is left running
	// Another device at the port is none of ours.
	f = newFakeKernel(t)
	f.linger = true
	p = f.attach()
	go func() {
		<-p.Done()
		f.write(f.folder(0)+"/devnum", "99\n")
	}()
	if err := p.Detach(); err != nil {
		t.Fatal(err)
	}
}

func TestStoreAttribute(t *testing.T) {
	file := filepath.Join(t.TempDir(), "attach")
	if err := storeAttribute(file, "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := storeAttribute(file, "0 7 65537 2"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "0 7 65537 2" {
		t.Fatalf("%q, %v", got, err)
	}
}
