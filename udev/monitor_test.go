package udev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = 10 * time.Second

func listen(t *testing.T, subsystem string) *Monitor {
	t.Helper()
	m, err := Listen(subsystem)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

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
		{Action: "change", Path: "/devices/virtual/mem/null", Subsystem: "mem", Node: "null"},
		{Action: "add", Path: "/devices/virtual/mem/zero", Subsystem: "mem", Node: "zero"},
	}
	ctx := within(t, patience)
	for len(want) > 0 {
		events, err := m.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Settled || e.Node == "" {
				continue // a machine's own udev, or its own doings
			}
			if e != want[0] {
				t.Fatalf("%+v, not %+v", e, want[0])
			}
			want = want[1:]
		}
	}
}

func TestWaitEnds(t *testing.T) {
	m := listen(t, "no such subsystem")
	provoke(t, "null", "change") // which is nothing to it
	if _, err := m.Wait(within(t, 20*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("with a deadline: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled before: %v", err)
	}
	ended := make(chan error, 1)
	go func() { _, err := m.Wait(t.Context()); ended <- err }()
	m.Close()
	select {
	case err := <-ended:
		if err == nil || errors.Is(err, ErrLost) {
			t.Fatalf("closed: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close does not end Wait")
	}
	if _, err := m.Wait(t.Context()); err == nil {
		t.Fatal("a closed monitor waits")
	}
}

// A context that has ended spoils nothing for the next call.
func TestWaitGoesOn(t *testing.T) {
	m := listen(t, "mem")
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if _, err := m.Wait(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		provoke(t, "null", "change")
		if events, err := m.Wait(within(t, patience)); err != nil || len(events) == 0 {
			t.Fatalf("%v, %v", events, err)
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
		m, err := Listen("usb")
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

func named(node string) []byte {
	return udevMessage("ACTION=add\x00DEVPATH=/devices/x\x00SUBSYSTEM=usb\x00DEVTYPE=usb_device\x00DEVNAME=/dev/" + node + "\x00")
}

func TestBelievesRootAndKernelOnly(t *testing.T) {
	alone(t, func(m *Monitor, s speaker) {
		s.send(udevGroup, 1000, named("forged"))
		s.send(kernelGroup, 0, []byte("add@/devices/x\x00ACTION=add\x00DEVPATH=/devices/x\x00SUBSYSTEM=usb\x00DEVNAME=forged\x00"))
		s.send(kernelGroup, 0, named("forged"))
		s.send(udevGroup, 0, []byte("garbage"))
		s.send(udevGroup, 0, nil)
		s.send(udevGroup, 0, udevMessage("ACTION=add\x00DEVPATH=/devices/x\x00SUBSYSTEM=block\x00"))
		s.send(udevGroup, 0, named("good"))
		events, err := m.Wait(within(t, patience))
		if err != nil || len(events) != 1 || events[0].Node != "good" || !events[0].Settled {
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
			if events[len(events)-1].Node == "late" {
				break
			}
		}
		if lost != 1 {
			t.Errorf("losses were said %d times", lost)
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
			if e.Node != fmt.Sprint(i) {
				t.Errorf("event %d is of %s", i, e.Node)
				return
			}
		}
	})
}

func TestWaitIdlesWithoutWork(t *testing.T) {
	m := listen(t, "no such subsystem")
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Wait(within(t, 200*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	if spent := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()); spent > 50*time.Millisecond {
		t.Errorf("200 ms of waiting cost %v of work", spent)
	}
}
