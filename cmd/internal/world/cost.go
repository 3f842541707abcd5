package world

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Wakeups counts how often the daemon's threads have been scheduled.
func (w *World) Wakeups() (n int, err error) {
	tasks, err := filepath.Glob(w.proc("task/*/status"))
	if err != nil || len(tasks) == 0 {
		return 0, fmt.Errorf("the daemon has no threads: %w", errors.Join(err, os.ErrNotExist))
	}
	for _, task := range tasks {
		for _, name := range []string{"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"} {
			switches, err := number(task, name)
			if err != nil {
				return 0, err
			}
			n += switches
		}
	}
	return n, nil
}

// ResidentMiB is how much memory the daemon takes.
func (w *World) ResidentMiB() (float64, error) {
	kib, err := number(w.proc("status"), "VmRSS:")
	return float64(kib) / 1024, err
}

func (w *World) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(w.DaemonPID()), file)
}

// number reads a line such as "VmRSS:  1234 kB".
func number(file, name string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name); found {
			return strconv.Atoi(strings.Fields(value)[0])
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, name)
}
