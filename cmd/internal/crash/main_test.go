package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"testing"

	"tokendesk/cmd/internal/crash/tracer"
	"tokendesk/cmd/internal/world"
)

// bin holds the desk's programs as they ship.
var bin string

func TestMain(m *testing.M) {
	tracer.Main()
	os.Setenv("GORACE", "atexit_sleep_ms=0") // or the tracer sleeps a second at its end
	if slices.ContainsFunc(os.Args, func(a string) bool { return strings.HasPrefix(a, "-test.fuzzworker") }) {
		os.Exit(m.Run()) // needs no programs, and is killed at its end
	}
	os.Exit(withPrograms(m))
}

func withPrograms(m *testing.M) int {
	dir, err := os.MkdirTemp("", "td")
	if err == nil {
		defer os.RemoveAll(dir)
		err = world.Build(dir, false)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	return m.Run()
}

// TestNothingIsLost tries a sample of what make crash tries.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	var said, out bytes.Buffer
	o := options{bin: bin, every: 40, random: 15, seed: 1, jobs: 4, log: log.New(&said, "", 0)}
	err := run(t.Context(), o, "", &out)
	t.Logf("%s\n%s", &said, &out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), " 0 lost\n") {
		t.Error("the summary does not say that nothing was lost")
	}
	for _, s := range scenarios() {
		if !strings.Contains(out.String(), "\n"+s.Name+" ") {
			t.Errorf("%s was not tried", s.Name)
		}
	}
}

func TestUnknownScenario(t *testing.T) {
	err := run(context.Background(), options{every: 1, jobs: 1, log: log.New(os.Stderr, "", 0)}, "enroll,absent", new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), `no scenario "absent"`) {
		t.Error(err)
	}
}
