//go:build guest

package udev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// provoke makes the kernel tell of /dev/null or another of its memory devices, which takes root.
func provoke(t *testing.T, name, action string) {
	t.Helper()
	if err := os.WriteFile("/sys/class/mem/"+name+"/uevent", []byte(action), 0); err != nil {
		t.Fatalf("kernel events are made as root: %v", err)
	}
}

func TestKernelEvents(t *testing.T) {
	m := listen(t, "mem")
	provoke(t, "null", "change")
	provoke(t, "zero", "add")
	want := []Event{
		{Action: "change", Path: "/devices/virtual/mem/null", Subsystem: "mem"},
		{Action: "add", Path: "/devices/virtual/mem/zero", Subsystem: "mem"},
	}
	ctx := within(t, patience)
	for len(want) > 0 {
		events, err := m.Wait(ctx)
		if err != nil {
			t.Fatalf("%v; still to come: %+v", err, want)
		}
		for _, e := range events { // others are the machine's own doings
			if len(want) > 0 && e == want[0] {
				want = want[1:]
			}
		}
	}
}

// speaker sends messages as programs may, not only the kernel and udev.
type speaker struct {
	t  *testing.T
	fd int
}

// alone runs test in a network namespace of its own, so that no other program hears what is sent there.
func alone(t *testing.T, test func(m *Monitor, s speaker)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a network namespace is made as root: %v", err)
			return
		}
		m, err := Listen(ours)
		if err != nil {
			t.Error(err)
			return
		}
		defer m.Close()
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		test(m, speaker{t, fd})
	}()
	<-done
}

func (s speaker) send(group uint32, uid int, message []byte) {
	credentials := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(uid)})
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: group}
	if err := unix.Sendmsg(s.fd, message, credentials, to, 0); err != nil {
		s.t.Errorf("cannot send: %v", err)
	}
}

// ours is a subsystem of which nobody else on the machine tells.
const ours = "tokendesk-test"

// named is udev's message of a device, and told the event that it makes.
func named(device string) []byte {
	return udevMessage("ACTION=add\x00DEVPATH=/devices/" + device + "\x00SUBSYSTEM=" + ours + "\x00")
}

func told(device string) Event {
	return Event{Action: "add", Path: "/devices/" + device, Subsystem: ours, Settled: true}
}

// A context that has ended spoils nothing for the next call.
func TestWaitGoesOn(t *testing.T) {
	alone(t, func(m *Monitor, s speaker) {
		for i := range 20 {
			ctx, cancel := context.WithCancel(t.Context())
			go cancel()
			if _, err := m.Wait(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
				return
			}
			s.send(udevGroup, 0, named(fmt.Sprint(i)))
			events, err := m.Wait(within(t, patience))
			if err != nil || len(events) != 1 || events[0] != told(fmt.Sprint(i)) {
				t.Errorf("%v, %v", events, err)
				return
			}
		}
	})
}

func TestBelievesRootAndKernelOnly(t *testing.T) {
	alone(t, func(m *Monitor, s speaker) {
		s.send(udevGroup, 1000, named("forged"))
		s.send(kernelGroup, 0, []byte("add@/devices/forged\x00ACTION=add\x00DEVPATH=/devices/forged\x00SUBSYSTEM="+ours+"\x00"))
		s.send(kernelGroup, 0, named("forged"))
		s.send(udevGroup, 0, []byte("garbage"))
		s.send(udevGroup, 0, nil)
		s.send(udevGroup, 0, udevMessage("ACTION=add\x00DEVPATH=/devices/x\x00SUBSYSTEM=block\x00"))
		s.send(udevGroup, 0, named("good"))
		events, err := m.Wait(within(t, patience))
		if err != nil || len(events) != 1 || events[0] != told("good") {
			t.Errorf("%+v, %v", events, err)
		}
	})
}

func TestLostEventsAreSaid(t *testing.T) {
	alone(t, func(m *Monitor, s speaker) {
		long := append(named("early"), strings.Repeat("x", 8000)...)
		for range 4 * queueSize / 8000 {
			s.send(udevGroup, 0, long)
		}
		lost := 0
		for ctx := within(t, patience); ; {
			events, err := m.Wait(ctx)
			if errors.Is(err, ErrLost) {
				lost++
				s.send(udevGroup, 0, named("late"))
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			if events[len(events)-1] == told("late") {
				break
			}
		}
		if lost == 0 {
			t.Error("losses were not said")
		}
	})
	alone(t, func(m *Monitor, s speaker) {
		s.send(udevGroup, 0, append(named("x"), strings.Repeat("x", messageSize)...))
		if _, err := m.Wait(within(t, patience)); !errors.Is(err, ErrLost) {
			t.Errorf("an event that was too long: %v", err)
		}
	})
}

// A burst arrives whole and in order, and what does not matter costs the caller nothing.
func TestBurst(t *testing.T) {
	alone(t, func(m *Monitor, s speaker) {
		const n = 300
		for i := range n {
			s.send(udevGroup, 0, udevMessage("ACTION=add\x00DEVPATH=/devices/x\x00SUBSYSTEM=block\x00"))
			s.send(udevGroup, 0, named(fmt.Sprint(i)))
		}
		var got []Event
		for ctx := within(t, patience); len(got) < n; {
			events, err := m.Wait(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			got = append(got, events...)
		}
		for i, e := range got {
			if e != told(fmt.Sprint(i)) {
				t.Errorf("event %d is %+v", i, e)
				return
			}
		}
	})
}
