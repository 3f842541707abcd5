// Package memscan looks for byte strings in the memory of a process, so that tests can prove where secrets are and
// that they are gone. It is for tests only, and needs the right to trace the process: the same user and a dumpable
// process, or CAP_SYS_PTRACE.
//
// It reads every page that is in memory or in swap, of whatever mapping: heap, stacks, files, even what the process
// itself may not read at the moment. Devices and the kernel's own pages ([vvar], [vsyscall]) are left out. It does
// not see the registers of threads, nor buffers in the kernel, such as those of pipes.
package memscan

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Hit says how often a pattern is in one mapping.
type Hit struct {
	Pattern string // its name
	Mapping
	Count int    // overlapping ones included
	First uint64 // the address of the first
}

func (h Hit) String() string {
	return fmt.Sprintf("%s: %d times, first at %x, in %s", h.Pattern, h.Count, h.First, h.Mapping)
}

// Protected reports whether the mapping is kept out of swap, core dumps and forked processes.
func (m Mapping) Protected() bool { return m.Locked && m.DontDump && m.WipeOnFork }

const bufferSize = 1 << 20

// Scan looks for patterns, which are named and have at least 4 bytes each, in process pid. Another process is stopped
// (SIGSTOP) meanwhile, so that nothing moves to where was looked already, unless it stands still. In the own process the bytes
// that patterns itself refers to do not count, and what other goroutines do meanwhile may be missed. A hit that spans
// mappings is the first one's. The hits are in the order of names and addresses.
func Scan(pid int, patterns map[string][]byte) (hits []Hit, err error) {
	f, err := newFinder(patterns)
	if err != nil {
		return nil, err
	}
	// A mapping of its own can be told from what is looked at in the own process, and leaves nothing behind.
	buf, err := unix.Mmap(-1, 0, bufferSize+f.longest, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(buf)) }()
	if pid != os.Getpid() {
		resume, err := stop(pid)
		if err != nil {
			return nil, err
		}
		defer resume()
	} else {
		f.own = append(f.own, buf)
		for _, p := range patterns {
			f.own = append(f.own, p)
		}
	}
	p, err := open(pid)
	if err != nil {
		return nil, err
	}
	defer p.close()
	mappings, err := p.mappings()
	if err != nil {
		return nil, err
	}
	w := window{finder: f, buf: buf, found: map[key]*Hit{}, mappings: mappings}
	for i, m := range mappings {
		if m.device {
			continue
		}
		if err := p.present(m, func(from, to uint64) error { return w.scan(p, i, from, to) }); err != nil {
			return nil, fmt.Errorf("cannot read %s of process %d: %w", m, pid, err)
		}
	}
	for _, h := range w.found {
		hits = append(hits, *h)
	}
	slices.SortFunc(hits, func(a, b Hit) int {
		if c := strings.Compare(a.Pattern, b.Pattern); c != 0 {
			return c
		}
		return int(int64(a.First) - int64(b.First))
	})
	return hits, nil
}

type key struct {
	pattern string
	mapping int
}

// window slides over the memory. It keeps the end of what was read before, as a pattern may span two reads.
type window struct {
	*finder
	buf      []byte
	at       uint64 // the address of buf[0]
	n        int    // how much of buf is known
	mapping  int    // of buf[0]
	mappings []Mapping
	found    map[key]*Hit
}

func (w *window) scan(p *process, mapping int, from, to uint64) error {
	for from < to {
		if w.at+uint64(w.n) != from || w.n == 0 {
			w.at, w.n, w.mapping = from, 0, mapping
		}
		keep := min(w.n, w.longest-1)
		copy(w.buf, w.buf[w.n-keep:w.n])
		w.at += uint64(w.n - keep)
		size := int(min(to-from, bufferSize))
		n, err := p.mem.ReadAt(w.buf[keep:keep+size], int64(from))
		if n == 0 {
			w.n = keep
			if !strings.HasPrefix(w.mappings[mapping].Perms, "r") {
				return nil // some kernels refuse to read what the process may not
			}
			return err
		}
		w.n = keep + n
		w.finder.each(w.buf[:w.n], func(name string, i, size int) {
			at := w.at + uint64(i)
			if i+size <= keep || w.mine(at) {
				return // counted before, or the pattern itself
			}
			m := w.mapping
			for at >= w.mappings[m].End {
				m++
			}
			h := w.found[key{name, m}]
			if h == nil {
				h = &Hit{Pattern: name, Mapping: w.mappings[m], First: at}
				w.found[key{name, m}] = h
			}
			h.Count++
		})
		from += uint64(n)
	}
	return nil
}
