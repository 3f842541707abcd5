package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/guest/job"
)

// follow lets a follower read reports, and tells its output.
func follow(reports io.Reader) (f follower, last job.Report, out string, err error) {
	var b bytes.Buffer
	f = follower{out: &b, up: time.AfterFunc(time.Hour, func() {})}
	last, err = f.follow(reports)
	return f, last, b.String(), err
}

func lines(reports ...job.Report) io.Reader {
	var b bytes.Buffer
	for _, r := range reports {
		b.Write(r.Line())
	}
	return &b
}

func TestFollow(t *testing.T) {
	f, last, out, err := follow(lines(
		job.Report{Event: job.Started},
		job.Report{Event: job.Output, Data: []byte("one\ntw")},
		job.Report{Event: job.Output, Data: []byte("o\n")},
		job.Report{Event: job.Exited, Code: 7},
		job.Report{Event: job.Output, Data: []byte("too late")},
	))
	if err != nil || last.Event != job.Exited || last.Code != 7 || out != "one\ntwo\n" {
		t.Errorf("%+v, %q, %v", last, out, err)
	}
	if f.up.Stop() {
		t.Error("the clock for the start still runs")
	}
	var told bytes.Buffer
	if f.tell(&told); !strings.Contains(told.String(), "up after") {
		t.Errorf("%q", &told)
	}
}

func TestFollowToAnEarlyEnd(t *testing.T) {
	half := job.Report{Event: job.Exited, Code: 7}.Line()[:10]
	for name, reports := range map[string]io.Reader{
		"nothing":     lines(),
		"output":      lines(job.Report{Event: job.Started}, job.Report{Event: job.Output, Data: []byte("x")}),
		"half a line": io.MultiReader(lines(job.Report{Event: job.Started}), bytes.NewReader(half)),
	} {
		if _, last, _, err := follow(reports); err != nil || last.Event != "" {
			t.Errorf("%s: %+v, %v", name, last, err)
		}
	}
	if _, last, _, err := follow(strings.NewReader("SeaBIOS\n")); err == nil || last.Event != "" {
		t.Errorf("a foreign line: %+v, %v", last, err)
	}
}

func TestVerdict(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	log, err := newLog(name)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	panicked, err := newLog(name) // the first is still open
	if err != nil {
		t.Fatal(err)
	}
	defer panicked.Close()
	if _, err := panicked.WriteString("[ 1.0] fine\r\n[ 2.0] Kernel panic - not syncing: Attempted to kill init!\r\n[ 2.1] CPU: 0\r\n"); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		v    verdict
		code int
		says string
	}{
		{verdict{last: job.Report{Event: job.Exited}, started: true}, 0, ""},
		{verdict{last: job.Report{Event: job.Exited, Code: 255}, started: true, cause: errTimeIsUp}, 255, "the command failed with 255"},
		{verdict{last: job.Report{Event: job.Refused, Code: 127, Text: "no such"}}, 127, "cannot be run: no such"},
		{verdict{last: job.Report{Event: job.Failed, Text: "no 9p"}}, ownFailed, "could not be made ready: no 9p"},
		{verdict{cause: fmt.Errorf("%w after 1s", errTimeIsUp)}, timeIsUp, "time is up after 1s, before the command began"},
		{verdict{cause: errTimeIsUp, started: true}, timeIsUp, "while the command ran"},
		{verdict{cause: errors.New("signal")}, ownFailed, "interrupted before the command began"},
		{verdict{cause: errNotUp}, ownFailed, "did not come up within 2m0s"},
		{verdict{follow: io.ErrShortWrite}, ownFailed, "short write"},
		{verdict{log: panicked, started: true}, ownFailed, "panicked while the command ran: Attempted to kill init!"},
		{verdict{qemu: errors.New("exit status 1")}, ownFailed, "qemu ended before the command began: exit status 1"},
		{verdict{}, ownFailed, "without a word"},
	} {
		if c.v.log == nil {
			c.v.log = log
		}
		code, err := c.v.decide()
		if code != c.code || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%d: %d, %v", i, code, err)
		}
	}
}

func TestShowTail(t *testing.T) {
	log, err := newLog(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var b strings.Builder
	if showTail(&b, log); b.Len() > 0 {
		t.Errorf("of nothing, it shows %q", &b)
	}
	for i := range 100 {
		if _, err := fmt.Fprintf(log, "line %d\r\n", i); err != nil {
			t.Fatal(err)
		}
	}
	showTail(&b, log)
	shown := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(shown) != 1+tailLines || !strings.Contains(shown[0], log.Name()) || shown[1] != "line 40" || shown[tailLines] != "line 99" {
		t.Errorf("%q", shown)
	}
}

func TestTooLittleMemory(t *testing.T) {
	if _, err := machine(kernel{}, os.DevNull, options{memory: leastMemory - 1}); err == nil || !strings.Contains(err.Error(), "it takes 256") {
		t.Errorf("%v", err)
	}
}

func FuzzFollow(f *testing.F) {
	f.Add(job.Report{Event: job.Output, Data: []byte("x")}.Line())
	f.Add([]byte("\n{}\n"))
	f.Fuzz(func(t *testing.T, reports []byte) {
		if _, last, _, err := follow(bytes.NewReader(reports)); err != nil && last.Event != "" {
			t.Errorf("%+v and %v", last, err)
		}
	})
}
