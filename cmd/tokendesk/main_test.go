package main

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"tokendesk/cmd/internal/world"
)

// bin has the programs as this source tree has them.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := world.Build(dir, true); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	bin = dir
	flag.Set("test.parallel", "6") // scripts wait far more than they compute; -parallel overrides it
	return m.Run()
}
