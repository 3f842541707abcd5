package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
)

// newLog makes a file for the guest's console. What was there before is another file: a guest that still runs may
// write to it.
func newLog(name string) (*os.File, error) {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// Appending, as qemu opens it once more for the console.
	return os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_RDWR, 0o644)
}

// console is what a log has. The guest's lines end as a terminal wants them.
func console(log *os.File) []byte {
	text, err := io.ReadAll(io.NewSectionReader(log, 0, math.MaxInt64))
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
}

// findPanic is the kernel's own line about its end.
func findPanic(log *os.File) string {
	_, after, _ := strings.Cut(string(console(log)), "Kernel panic - not syncing: ")
	line, _, _ := strings.Cut(after, "\n")
	return line
}

// tailLines is how much of the console is shown when something went wrong.
const tailLines = 60

// showTail prints the end of the console, if there is any.
func showTail(to io.Writer, log *os.File) {
	text := strings.TrimSpace(string(console(log)))
	if text == "" {
		return
	}
	lines := strings.Split(text, "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	fmt.Fprintf(to, "guest: the end of its console, %s:\n%s\n", log.Name(), strings.Join(lines, "\n"))
}
