package main

import (
	"flag"
	"os"
	"testing"

	"tokendesk/cmd/internal/world"
)

// bin has the programs as this source tree has them.
var bin string

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "6") // scripts wait far more than they compute; -parallel overrides it
	flag.Parse()
	if flag.Lookup("test.fuzz").Value.String() != "" {
		os.Exit(m.Run()) // each worker comes by here, and none needs the programs
	}
	os.Exit(world.RunTests(m, &bin))
}
