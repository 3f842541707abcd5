package memscan

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Mapping is a line of /proc/PID/smaps with what matters of its VmFlags (proc_pid_smaps(5)).
type Mapping struct {
	Start, End uint64
	Perms      string // such as rw-p
	Name       string // a path, or a name such as [heap], or empty
	Locked     bool   // lo: never swapped
	DontDump   bool   // dd: not in core dumps
	WipeOnFork bool   // wf: zeroes in forked processes
	device     bool
}

func (m Mapping) String() string {
	flags := ""
	for _, f := range []struct {
		name string
		set  bool
	}{{"lo", m.Locked}, {"dd", m.DontDump}, {"wf", m.WipeOnFork}} {
		if f.set {
			flags += " " + f.name
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%x-%x %s %s", m.Start, m.End, m.Perms, m.Name)) + flags
}

type process struct {
	dir          string
	mem, pagemap *os.File
}

func open(pid int) (*process, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	mem, err := os.Open(filepath.Join(dir, "mem"))
	if err != nil {
		return nil, err
	}
	pagemap, err := os.Open(filepath.Join(dir, "pagemap"))
	if err != nil {
		return nil, errors.Join(err, mem.Close())
	}
	return &process{dir, mem, pagemap}, nil
}

func (p *process) close() {
	p.mem.Close()
	p.pagemap.Close()
}

func (p *process) mappings() ([]Mapping, error) {
	b, err := os.ReadFile(filepath.Join(p.dir, "smaps"))
	if err != nil {
		return nil, err
	}
	return parse(b)
}

// parse reads smaps: a head for each mapping, and lines "Field: value" of which the last is VmFlags.
func parse(smaps []byte) ([]Mapping, error) {
	var out []Mapping
	for s := bufio.NewScanner(bytes.NewReader(smaps)); s.Scan(); {
		words := strings.Fields(s.Text())
		if len(words) > 0 && words[0] == "VmFlags:" && len(out) > 0 {
			m, flags := &out[len(out)-1], words[1:]
			m.Locked, m.DontDump, m.WipeOnFork = slices.Contains(flags, "lo"), slices.Contains(flags, "dd"), slices.Contains(flags, "wf")
			m.device = m.device || slices.Contains(flags, "pf") || slices.Contains(flags, "io")
			continue
		}
		if len(words) < 5 || strings.HasSuffix(words[0], ":") {
			continue
		}
		from, to, ok := strings.Cut(words[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if !ok || err != nil || err2 != nil || end <= start {
			return nil, fmt.Errorf("cannot read smaps: %q", s.Text())
		}
		name := strings.Join(words[min(5, len(words)):], " ")
		out = append(out, Mapping{Start: start, End: end, Perms: words[1], Name: name, device: name == "[vsyscall]"})
	}
	if len(out) == 0 {
		return nil, errors.New("the process has no memory: it has ended")
	}
	return out, nil
}

// Bits of /proc/PID/pagemap (proc_pid_pagemap(5)).
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
)

// present calls f for each run of pages that have something in them. Most of the address space has nothing, and
// reading it would fill it.
func (p *process) present(m Mapping, f func(from, to uint64) error) error {
	page := uint64(os.Getpagesize())
	entries := make([]byte, 64<<10)
	begin := m.End // of the run; m.End means none
	for at := m.Start; at < m.End; {
		n := min(uint64(len(entries)/8), (m.End-at)/page)
		if _, err := p.pagemap.ReadAt(entries[:n*8], int64(at/page*8)); err != nil {
			return err
		}
		for i := range n {
			full := binary.NativeEndian.Uint64(entries[i*8:])&(pagePresent|pageSwapped) != 0
			switch here := at + i*page; {
			case full && begin == m.End:
				begin = here
			case !full && begin != m.End:
				if err := f(begin, here); err != nil {
					return err
				}
				begin = m.End
			}
		}
		at += n * page
	}
	if begin != m.End {
		return f(begin, m.End)
	}
	return nil
}

// stopping is how long a process may take to stand still.
const stopping = 10 * time.Second

// stop makes a process stand still until resume is called. One that stands still already stays so.
func stop(pid int) (resume func(), err error) {
	still, err := stopped(pid)
	if err != nil || still {
		return func() {}, err
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return nil, err
	}
	resume = func() { _ = unix.Kill(pid, unix.SIGCONT) }
	for deadline := time.Now().Add(stopping); ; time.Sleep(time.Millisecond) { // the kernel tells only the parent
		still, err := stopped(pid)
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("process %d does not stop", pid)
		}
		if err != nil {
			resume()
			return nil, err
		}
		if still {
			return resume, nil
		}
	}
}

// stopped reports whether all threads of a process stand still.
func stopped(pid int) (bool, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	alive := false
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that ended
		}
		_, rest, _ := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte(" "))
		switch rest[0] {
		case 'T', 't':
			alive = true
		case 'Z', 'X':
		default:
			return false, nil
		}
	}
	if !alive {
		return false, fmt.Errorf("process %d has ended", pid)
	}
	return true, nil
}
