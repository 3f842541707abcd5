// Package window hears what keys type into a workstation, as the window that has the focus would.
//
// It reads the kernel's input devices (evdev) of every USB keyboard that is there or comes, so that tests and
// the demo can tell what reached the system from what only the desk got. It needs root, and a US layout is
// assumed. Nothing that ships imports it: what it hears are one-time codes. Whenever a program gives a keyboard back,
// the kernel makes a new input device; what is typed in the moment before it is opened here is not heard.
package window

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

const (
	nodes = "/dev/input"
	class = "/sys/class/input"

	queueSize = 256 * 24 // bytes: more events than the kernel keeps for a reader
)

// Window is a focused window. It is safe for concurrent use.
type Window struct {
	watcher *fsnotify.Watcher
	readers sync.WaitGroup

	mu      sync.Mutex
	open    map[string]*keyboard // by the name of the event node
	typed   []stroke
	changed chan struct{} // closed at the next change
	closed  bool
}

type keyboard struct {
	port string
	node *os.File
}

type stroke struct {
	port string
	char byte
}

// Open starts to hear. Close ends it.
func Open() (*Window, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &Window{watcher: watcher, open: map[string]*keyboard{}, changed: make(chan struct{})}
	if err := watcher.Add(nodes); err != nil {
		watcher.Close()
		return nil, err
	}
	present, err := filepath.Glob(filepath.Join(nodes, "event*"))
	if err != nil {
		watcher.Close()
		return nil, err
	}
	for _, node := range present {
		w.hear(node)
	}
	w.readers.Go(w.follow)
	return w, nil
}

// Close ends every goroutine.
func (w *Window) Close() error {
	err := w.watcher.Close()
	w.mu.Lock()
	w.closed = true
	for _, k := range w.open {
		k.node.Close()
	}
	w.mu.Unlock()
	w.readers.Wait()
	return err
}

// follow hears the keyboards that come.
func (w *Window) follow() {
	for event := range w.watcher.Events {
		if event.Has(fsnotify.Create) && strings.HasPrefix(filepath.Base(event.Name), "event") {
			w.hear(event.Name)
		}
	}
}

// hear reads an event node until it vanishes. What is no USB keyboard, or is gone already, is left alone.
func (w *Window) hear(node string) {
	name := filepath.Base(node)
	port := portOf(name)
	if port == "" {
		return
	}
	file, err := os.OpenFile(node, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	k := &keyboard{port: port, node: file}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.open[name] != nil {
		file.Close()
		return
	}
	w.open[name] = k
	w.tell()
	w.readers.Go(func() {
		read(bufio.NewReaderSize(file, queueSize), func(char byte) { w.hit(port, char) })
		file.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.open, name)
		w.tell()
	})
}

var usbPort = regexp.MustCompile(`/([0-9]+-[0-9.]+)/`)

// portOf finds the USB port behind an event node; empty if there is none.
func portOf(event string) string {
	path, err := filepath.EvalSymlinks(filepath.Join(class, event))
	if err != nil {
		return ""
	}
	ports := usbPort.FindAllStringSubmatch(path, -1)
	if len(ports) == 0 {
		return ""
	}
	return ports[len(ports)-1][1]
}

func (w *Window) hit(port string, char byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.typed = append(w.typed, stroke{port, char})
	w.tell()
}

// tell wakes those who wait, with mu held.
func (w *Window) tell() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// Hears reports whether the keyboard on a USB port reaches this window now.
func (w *Window) Hears(port string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.open {
		if k.port == port {
			return true
		}
	}
	return false
}

// Text is everything that was typed on a port; every port if it is empty.
func (w *Window) Text(port string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var text strings.Builder
	for _, s := range w.typed {
		if port == "" || s.port == port {
			text.WriteByte(s.char)
		}
	}
	return text.String()
}

// Lines are the finished lines that were typed on a port.
func (w *Window) Lines(port string) []string {
	lines := strings.Split(w.Text(port), "\n")
	return lines[:len(lines)-1]
}

// Await waits until done, looking whenever something was typed or a keyboard came or went.
func (w *Window) Await(ctx context.Context, done func() bool) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inputEvent is struct input_event of a 64-bit kernel (linux/input.h).
type inputEvent struct {
	Seconds, Microseconds int64
	Type, Code            uint16
	Value                 int32
}

// Of linux/input-event-codes.h.
const (
	evSyn      = 0
	synDropped = 3
	evKey      = 1
	pressed    = 1
	leftShift  = 42
	rightShift = 54
)

// layout is the characters of key codes on a US keyboard, from the first code of each row on.
var layout = map[uint16]string{
	2: "1234567890", 15: "\t", 16: "qwertyuiop", 28: "\n", 30: "asdfghjkl", 44: "zxcvbnm",
	71: "789", 75: "456", 79: "1230", 96: "\n",
}

func character(code uint16) (char byte, known bool) {
	for first, row := range layout {
		if code >= first && int(code-first) < len(row) {
			return row[code-first], true
		}
	}
	return 0, false
}

// read passes on the characters of keys that are pressed, until the node ends. A key without a character is "?", and
// so is what the kernel dropped because it was not read in time.
func read(node io.Reader, fn func(byte)) {
	var shift bool
	for {
		var e inputEvent
		if err := binary.Read(node, binary.NativeEndian, &e); err != nil {
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			return
		}
		switch char, known := character(e.Code); {
		case e.Type == evSyn && e.Code == synDropped:
			fn('?')
		case e.Type != evKey:
		case slices.Contains([]uint16{leftShift, rightShift}, e.Code):
			shift = e.Value != 0
		case e.Value != pressed:
		case !known:
			fn('?')
		case shift && char >= 'a' && char <= 'z':
			fn(char - 'a' + 'A')
		default:
			fn(char)
		}
	}
}
