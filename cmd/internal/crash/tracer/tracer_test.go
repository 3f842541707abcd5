package tracer

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This test binary is also the program that is traced.
const victimVariable = "TOKENDESK_CRASH_VICTIM"

func TestMain(m *testing.M) {
	Main()
	if what, dir, found := strings.Cut(os.Getenv(victimVariable), " "); found {
		if err := victims[what](dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or every process sleeps a second at its end
	os.Exit(m.Run())
}

const (
	writers  = 4
	perEach  = 5
	fileSize = 64
)

var victims = map[string]func(dir string) error{"files": writeFiles, "page": writePage, "lose": writeUnsynced, "rename": renameUnsynced, "remove": removeUnsynced, "shell": runShell, "wait": waitLong}

// writeFiles makes numbered files, from several goroutines: each under another name first, synced, then renamed.
func writeFiles(dir string) error {
	var all sync.WaitGroup
	failed := make(chan error, writers*perEach)
	for w := range writers {
		all.Go(func() {
			for i := range perEach {
				name := filepath.Join(dir, fmt.Sprintf("%d-%d", w, i))
				failed <- writeFile(name)
			}
		})
	}
	all.Wait()
	close(failed)
	for err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

func writeFile(name string) error {
	f, err := os.Create(name + ".new")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte{'x'}, fileSize)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func start(t *testing.T) *Tracer {
	t.Helper()
	tr, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

func (t *Tracer) victim(what, dir string) *exec.Cmd {
	cmd := t.Command(os.Args[0])
	cmd.Env = append(cmd.Env, victimVariable+"="+what+" "+dir)
	return cmd
}

// trace runs a victim to its end and returns what came of it.
func trace(t *testing.T, tr *Tracer, what, dir string, p Plan) (Report, error) {
	t.Helper()
	p.Kinds = append(p.Kinds, Kind{Name: "file", Prefix: dir}, Kind{Name: "elsewhere", Ignore: true})
	if err := tr.Arm(p); err != nil {
		t.Fatal(err)
	}
	out, runErr := tr.victim(what, dir).CombinedOutput()
	if len(out) > 0 {
		t.Errorf("the victim says: %s", out)
	}
	r, err := tr.Disarm()
	if err != nil {
		t.Fatal(err)
	}
	return r, runErr
}

// effects is what calls lead to: files and their sizes.
func effects(calls []Call, dir string) map[string]int64 {
	files := map[string]int64{}
	for _, c := range calls {
		name := strings.TrimPrefix(c.Target, dir+"/")
		switch c.Name {
		case "openat":
			files[name] = 0
		case "write":
			files[name] += int64(c.Size)
		case "renameat":
			files[name] = files[name+".new"]
			delete(files, name+".new")
		}
	}
	return files
}

func found(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	files := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		files[d.Name()] = info.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestRecordsEveryCall(t *testing.T) {
	tr, dir := start(t), t.TempDir()
	r, err := trace(t, tr, "files", dir, Plan{})
	if err != nil || r.Killed {
		t.Fatal(r.Killed, err)
	}
	if want := writers * perEach * 4; len(r.Calls) != want {
		t.Errorf("%d calls, not %d: %v", len(r.Calls), want, r.Calls)
	}
	for i, c := range r.Calls {
		if c.Ordinal != i+1 || c.Kind != "file" {
			t.Errorf("call %d is %v", i+1, c)
		}
	}
	if got, want := found(t, dir), effects(r.Calls, dir); !maps.Equal(got, want) || len(got) != writers*perEach {
		t.Errorf("the calls led to %v, not to %v", got, want)
	}
}

func TestKillsExactly(t *testing.T) {
	tr := start(t)
	for n := 1; ; n++ {
		dir := t.TempDir()
		r, err := trace(t, tr, "files", dir, Plan{Kill: n})
		if !r.Killed {
			if err != nil || n != writers*perEach*4+1 {
				t.Fatalf("ended by itself, to be killed at %d: %v", n, err)
			}
			return
		}
		if exit, ok := err.(*exec.ExitError); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("killed at %d, it ended otherwise: %v", n, err)
		}
		if len(r.Calls) != n {
			t.Fatalf("killed at %d, it made %d calls", n, len(r.Calls))
		}
		if got, want := found(t, dir), effects(r.Calls[:n-1], dir); !maps.Equal(got, want) {
			t.Fatalf("killed at %v, it left %v, not %v", r.Last(), got, want)
		}
	}
}

func TestCountsOneKindOnly(t *testing.T) {
	tr, dir := start(t), t.TempDir()
	r, err := trace(t, tr, "files", dir, Plan{Kinds: []Kind{{Name: "third", Prefix: filepath.Join(dir, "3-")}}, On: "third", Kill: 6})
	if !r.Killed || err == nil {
		t.Fatalf("%+v %v", r, err)
	}
	third := 0
	for _, c := range r.Calls {
		if c.Kind == "third" {
			third++
		}
	}
	if third != 6 || r.Last().Kind != "third" || !strings.Contains(r.Last().Target, "/3-1") {
		t.Errorf("killed at %v after %d of its kind", r.Last(), third)
	}
}

func TestLooksIntoWrites(t *testing.T) {
	tr, dir := start(t), t.TempDir()
	r, err := trace(t, tr, "shell", dir, Plan{Kinds: []Kind{{Name: "second", Prefix: dir, At: 1, Bytes: []byte("wo")}}, On: "second", Kill: 1})
	if !r.Killed || err == nil || r.Last().Target != dir+"/two" || r.Last().Name != "write" {
		t.Fatalf("%+v %v", r, err)
	}
	if got := found(t, dir); !maps.Equal(got, map[string]int64{"one": 4, "two": 0}) {
		t.Errorf("left %v", got)
	}
}

// waitLong does nothing until it is killed; the runtime's own signals interrupt it.
func waitLong(string) error {
	for {
		unix.Pause()
	}
}

func TestKillsAfterATime(t *testing.T) {
	tr := start(t)
	begin := time.Now()
	r, err := trace(t, tr, "wait", t.TempDir(), Plan{After: 200 * time.Millisecond})
	if !r.Killed || err == nil || time.Since(begin) < 200*time.Millisecond {
		t.Errorf("%+v %v after %s", r, err, time.Since(begin))
	}
}

// runShell has a program of its own write.
func runShell(dir string) error {
	return exec.Command("sh", "-c", "echo one >"+dir+"/one; echo two >"+dir+"/two").Run()
}

func TestKillsChildrenToo(t *testing.T) {
	tr, dir := start(t), t.TempDir()
	r, err := trace(t, tr, "shell", dir, Plan{Kill: 3})
	if !r.Killed || err == nil || r.Last().Target != dir+"/two" {
		t.Fatalf("%+v %v", r, err)
	}
	if got := found(t, dir); !maps.Equal(got, map[string]int64{"one": 4}) {
		t.Errorf("left %v", got)
	}
}

func TestSurvivesWhatEndsByItself(t *testing.T) {
	tr := start(t)
	if err := tr.Arm(Plan{Kill: 1000}); err != nil {
		t.Fatal(err)
	}
	if out, err := tr.Command("sh", "-c", "kill -SEGV $$").CombinedOutput(); err == nil {
		t.Errorf("it did not die: %s", out)
	}
	if out, err := tr.Command("/absent").CombinedOutput(); err == nil || !strings.Contains(string(out), "no such file") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := tr.Command("sh", "-c", "echo fine").CombinedOutput(); err != nil || string(out) != "fine\n" {
		t.Errorf("%v: %q", err, out)
	}
	r, err := tr.Disarm()
	if err != nil || r.Killed {
		t.Errorf("%+v %v", r, err)
	}
}

func TestPassesSignalsOn(t *testing.T) {
	tr := start(t)
	cmd := tr.Command("sh", "-c", "trap 'echo trapped' TERM; kill -TERM $$; kill -STOP $$; echo gone on")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(cmd.Process.Pid, &status, unix.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("it did not stop: %v %v", status, err)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || out.String() != "trapped\ngone on\n" {
		t.Errorf("%v: %q", err, out.String())
	}
}

var addresses = map[string][]byte{
	"unix:/x":           {unix.AF_UNIX, 0, '/', 'x', 0},
	"unix:":             {unix.AF_UNIX, 0},
	"tcp:127.0.0.1:389": {unix.AF_INET, 0, 1, 133, 127, 0, 0, 1},
	"tcp:[::1]:389":     {unix.AF_INET6, 0, 1, 133, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
	"":                  {unix.AF_NETLINK, 0},
}

func TestSockaddr(t *testing.T) {
	for want, b := range addresses {
		if got := parseSockaddr(b); got != want {
			t.Errorf("%v is %q, not %q", b, got, want)
		}
	}
}

// The traced program may hand anything to connect.
func FuzzSockaddr(f *testing.F) {
	for _, b := range addresses {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := parseSockaddr(b)
		if got != "" && !strings.HasPrefix(got, "unix:") && !strings.HasPrefix(got, "tcp:") || len(got) > len(b)+64 {
			t.Errorf("%v is %q", b, got)
		}
	})
}
