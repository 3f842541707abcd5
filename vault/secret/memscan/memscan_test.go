package memscan_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/vault/secret/memscan"
)

func pages(t *testing.T, size int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func scan(t *testing.T, pid int, patterns map[string][]byte) []memscan.Hit {
	t.Helper()
	hits, err := memscan.Scan(pid, patterns)
	if err != nil {
		t.Fatal(err)
	}
	return hits
}

// Wherever a border between two reads may be, every copy is counted once.
func TestBorders(t *testing.T) {
	short, long := random(32), random(3000)
	b := pages(t, 5<<20)
	for at := 1; at+len(short) <= len(b); at += 4093 { // a prime, so that all places within a page are seen
		copy(b[at:], short)
	}
	last := len(b) - len(short)
	copy(b[last:], short)
	copy(b[1<<20-1500:], long)
	n := bytes.Count(b, short)
	hits := scan(t, os.Getpid(), map[string][]byte{"short": short, "long": long, "same": short})
	if len(hits) != 3 || hits[0].Pattern != "long" || hits[0].Count != 1 || hits[1].Pattern != "same" || hits[1].Count != n || hits[2].Count != n {
		t.Errorf("%v, not %d times", hits, n)
	}
	clear(b)
	if hits := scan(t, os.Getpid(), map[string][]byte{"short": short, "long": long}); len(hits) > 0 {
		t.Errorf("cleared, but %v", hits)
	}
}

func TestMappings(t *testing.T) {
	page := os.Getpagesize()
	p := random(32)
	b := pages(t, 8*page)
	copy(b[2*page-10:], p) // spans two mappings, see below
	copy(b[5*page+7:], p)  // may not be read
	twice := append(p[:16:16], p[:16]...)
	copy(b[7*page:], twice)
	copy(b[7*page+16:], twice)
	for at, prot := range map[int]int{2: unix.PROT_READ, 5: unix.PROT_NONE} {
		if err := unix.Mprotect(b[at*page:(at+1)*page], prot); err != nil {
			t.Fatal(err)
		}
	}
	for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_WIPEONFORK} {
		if err := unix.Madvise(b[:2*page], advice); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mlock(b[:2*page]); err != nil {
		t.Fatal(err)
	}
	hits := scan(t, os.Getpid(), map[string][]byte{"p": p})
	if len(hits) != 2 || hits[0].Count != 1 || hits[1].Count != 1 {
		t.Fatal(hits)
	}
	if !hits[0].Protected() || hits[0].End != hits[0].First+10 || !strings.HasSuffix(hits[0].String(), " lo dd wf") {
		t.Error(hits[0])
	}
	if hits[1].Protected() || hits[1].Perms != "---p" || hits[1].First != hits[1].Start+7 {
		t.Error(hits[1])
	}
	if hits := scan(t, os.Getpid(), map[string][]byte{"twice": twice}); len(hits) != 1 || hits[0].Count != 2 {
		t.Errorf("overlapping: %v", hits)
	}
}

func TestForms(t *testing.T) {
	for n := range 40 {
		p := random(n + 8)
		text := append(random(n), append(bytes.Clone(p), random(n%7)...)...)
		forms := memscan.Forms(map[string][]byte{"p": p})
		for name, s := range map[string]string{
			"p":            string(text),
			"p as hex":     hex.EncodeToString(text),
			"p as HEX":     strings.ToUpper(hex.EncodeToString(text)),
			"p as base64 ": base64.StdEncoding.EncodeToString(text),
			"p as base64u": base64.URLEncoding.EncodeToString(text),
			"p as base32":  base32.StdEncoding.EncodeToString(text),
		} {
			found := false
			for form, pattern := range forms {
				found = found || strings.HasPrefix(form, name) && strings.Contains(s, string(pattern))
			}
			if !found {
				t.Errorf("%s of %d bytes behind %d others is not found", name, len(p), n)
			}
		}
	}
}

// Another process goes on after it was looked at.
func TestOtherProcess(t *testing.T) {
	p := random(32)
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	for range 3 {
		if _, err := in.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len(p))); err != nil {
			t.Fatal(err)
		}
		if hits := scan(t, pid, map[string][]byte{"p": p}); len(hits) != 1 || hits[0].Count != 1 || hits[0].Protected() {
			t.Error(hits)
		}
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(pid, nil, unix.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
	if hits := scan(t, pid, map[string][]byte{"p": p}); len(hits) != 1 {
		t.Error(hits)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || !bytes.Contains(b, []byte(") T ")) {
		t.Errorf("what stood still goes on: %s %v", b, err)
	}
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := memscan.Scan(pid, map[string][]byte{"p": p}); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("a process that is gone: %v", err)
	}
	if _, err := memscan.Scan(os.Getpid(), map[string][]byte{"tiny": p[:3]}); err == nil || !strings.Contains(err.Error(), "tiny") {
		t.Errorf("a tiny pattern: %v", err)
	}
}
