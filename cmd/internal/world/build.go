package world

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// module is the import path under which the programs are found, wherever the caller runs.
const module = "tokendesk"

// Build puts the three programs into dir as this source tree has them, with the race detector if race says so.
// Tests call it once, in TestMain. More flags go to go build.
func Build(dir string, race bool, flags ...string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, flags...)
	if race {
		args = append(args, "-race")
	}
	for _, program := range []string{"tokendesk", "tokendeskd", "tokenemu"} {
		args = append(args, module+"/cmd/"+program)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the programs: %w: %s", err, out)
	}
	return nil
}
