package main

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"tokendesk/cmd/internal/world"
)

var bin string

func TestMain(m *testing.M) { os.Exit(world.RunTests(m, &bin)) }

// TestAllAgree is a short form of the command.
func TestAllAgree(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := run(t.Context(), options{bin: bin, length: 40 * time.Second, seed: uint64(time.Now().UnixNano()), keys: 6}, &out)
	t.Logf("%s", &out)
	if err != nil {
		t.Fatal(err)
	}
	last := regexp.MustCompile(`(?m)^chaos: 40 s, (\d+) changes, (\d+) daemon kills, (\d+) slapd kills, \d+ pauses, (\d+) cuts, (\d+) logins: all agree, 0 counters lowered, 0 writes beyond what attempts explain$`).FindSubmatch(out.Bytes())
	if last == nil {
		t.Fatal("the last line is not as it should be")
	}
	for i, least := range []int{20, 1, 1, 2, 5} { // or there was no chaos
		if n, err := strconv.Atoi(string(last[i+1])); err != nil || n < least {
			t.Errorf("number %d is %s, want %d at least", i+1, last[i+1], least)
		}
	}
}
