package world

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// module is the import path under which the programs are found, wherever the caller runs.
const module = "tokendesk"

const raceOptions = "GORACE"

// Build puts the three programs into dir as this source tree has them, with the race detector if race says so.
// Programs started from then on inherit what makes them end without delay. More flags go to go build.
func Build(dir string, race bool, flags ...string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, flags...)
	if race {
		args = append(args, "-race")
		if os.Getenv(raceOptions) == "" {
			os.Setenv(raceOptions, "atexit_sleep_ms=0") // a program with the race detector sleeps a second at its end
		}
	}
	for _, program := range []string{"tokendesk", "tokendeskd", "tokenemu"} {
		args = append(args, module+"/cmd/"+program)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the programs: %w: %s", err, out)
	}
	return nil
}

// RunTests builds the programs with the race detector, tells their directory, and runs a package's tests. It is
// for TestMain, with a *testing.M.
func RunTests(m interface{ Run() int }, bin *string) (code int) {
	dir, err := os.MkdirTemp("", "td")
	if err == nil {
		defer os.RemoveAll(dir)
		err = Build(dir, true)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*bin = dir
	return m.Run()
}
