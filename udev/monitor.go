package udev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Multicast groups of NETLINK_KOBJECT_UEVENT, as bits.
const (
	kernelGroup = 1 << iota
	udevGroup
)

const (
	queueSize   = 1 << 20  // bytes that may wait unread; the default overflows in a burst such as a plugged hub
	messageSize = 16 << 10 // libudev reads at most 8 KiB
	burst       = 1000     // messages that Wait reads at most once it has something to tell
)

// ErrLost says that events came faster than they were read. What is there now has to be looked at again.
var ErrLost = errors.New("device events were lost")

// Monitor receives the events of one subsystem, from the kernel and from udev if it runs. It waits without
// polling. It believes what is sent by the kernel itself, and by root in udev's name; others may send to a
// netlink socket as well.
type Monitor struct {
	subsystem string
	file      *os.File
	socket    syscall.RawConn
	buffer    []byte
	control   []byte
}

// Listen begins to receive the events of a subsystem. In a network namespace of its own a process gets
// those of the kernel only.
func Listen(subsystem string) (*Monitor, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, cannotListen(err)
	}
	file := os.NewFile(uintptr(fd), "kernel events") // nonblocking, therefore Go's poller waits for it
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueSize) != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queueSize) // as far as it is allowed without root
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup | udevGroup})
	}
	var socket syscall.RawConn
	if err == nil {
		socket, err = file.SyscallConn()
	}
	if err != nil {
		file.Close()
		return nil, cannotListen(err)
	}
	return &Monitor{
		subsystem: subsystem, file: file, socket: socket,
		buffer: make([]byte, messageSize), control: make([]byte, unix.CmsgSpace(unix.SizeofUcred)),
	}, nil
}

func cannotListen(err error) error {
	return fmt.Errorf("cannot listen to kernel events (netlink): %w", err)
}

// Wait returns the events that have come since the last call, in their order, and at least one: it waits for
// it until ctx ends. When it fails with ErrLost, the next call goes on; after any other error of its own
// nothing will come any more. One goroutine at a time may wait.
func (m *Monitor) Wait(ctx context.Context) ([]Event, error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		m.file.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-interrupted
			m.file.SetReadDeadline(time.Time{})
		}
	}()
	var events []Event
	var failed error
	err := m.socket.Read(func(fd uintptr) bool {
		events, failed = m.drain(ctx, int(fd))
		return len(events) > 0 || failed != nil
	})
	switch {
	case failed != nil:
		return nil, failed
	case len(events) > 0: // also if ctx has just ended: they will not come again
		return events, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("cannot wait for kernel events: %w", err)
}

// drain reads what is queued. While ctx lasts it finds nothing to tell only if the queue is empty: the poller
// would not tell again of what is left in it.
func (m *Monitor) drain(ctx context.Context, fd int) ([]Event, error) {
	var events []Event
	var lost error
	for n := 0; ctx.Err() == nil && (n < burst || len(events) == 0 && lost == nil); n++ {
		event, err := m.receive(fd)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return events, lost
		case errors.Is(err, unix.ENOBUFS) || errors.Is(err, errTruncated):
			lost = ErrLost
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("cannot receive kernel events: %w", err)
		case event.Subsystem == m.subsystem:
			events = append(events, event)
		}
	}
	return events, lost
}

var errTruncated = errors.New("the event is too long")

// receive reads one message. What cannot be believed or understood is returned as the zero Event: others'
// mistakes are no reason to stop listening.
func (m *Monitor) receive(fd int) (Event, error) {
	n, controls, flags, from, err := unix.Recvmsg(fd, m.buffer, m.control, 0)
	if err != nil {
		return Event{}, err
	}
	if flags&unix.MSG_TRUNC != 0 {
		return Event{}, errTruncated
	}
	sender, ok := from.(*unix.SockaddrNetlink)
	if !ok {
		return Event{}, nil
	}
	var event Event
	switch {
	case sender.Groups == kernelGroup && sender.Pid == 0: // port 0 is the kernel's; no socket can have it
		event, err = parseKernel(m.buffer[:n])
	case sender.Groups == udevGroup && byRoot(m.control[:controls]):
		event, err = parseUdev(m.buffer[:n])
	}
	if err != nil {
		return Event{}, nil
	}
	return event, nil
}

// byRoot reports whether the credentials that the kernel has attached are root's.
func byRoot(control []byte) bool {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) != 1 {
		return false
	}
	sender, err := unix.ParseUnixCredentials(&messages[0])
	return err == nil && sender.Uid == 0
}

// Close ends the monitor and a Wait that is under way.
func (m *Monitor) Close() error { return m.file.Close() }
