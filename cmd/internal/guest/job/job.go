// Package job is what the host hands to the guest's first process, and what that process reports back.
package job

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Job is one boot. Paths are the host's, which the guest sees under the same names.
type Job struct {
	Modules    []string // file names below /modules of the initramfs, in the order to load them
	ForRoot    int      // how many of the first modules mounting the host's root takes
	Version    string   // of the kernel
	ModuleTree string   // becomes /lib/modules/VERSION
	Udev       string   // directory of *.rules and *.hwdb to install; may be empty
	HWDB       string   // compiled hardware database to install; may be empty
	TPM        bool     // whether /dev/tpm0 must be there
	Dir        string   // where the command runs
	Command    []string
}

// Where the job lies in the initramfs.
const Path = "/job.json"

// Device is the guest's end of the line that carries reports.
const Device = "/dev/ttyS1"

// What a Report says.
const (
	Started = "started" // the guest is ready, the command runs
	Output  = "output"  // Data is what the command wrote
	Exited  = "exited"  // Code is the command's exit status, 128 and the signal if it was killed
	Refused = "refused" // the command cannot be run: Code is 126 or 127, Text says why
	Failed  = "failed"  // the guest could not be made ready: Text says why
)

// Report is one line from the guest.
type Report struct {
	Event string `json:"event"`
	Data  []byte `json:"data,omitempty"`
	Code  int    `json:"code,omitempty"` // 0 to 255
	Text  string `json:"text,omitempty"`
}

// Line is the report as it is sent.
func (r Report) Line() []byte {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings, bytes and a number
	}
	return append(line, '\n')
}

// Parse reads a line that Line made, with or without its end.
func Parse(line []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(line, &r); err != nil {
		return Report{}, fmt.Errorf("cannot read the guest's report %.80q: %w", line, err)
	}
	switch r.Event {
	case Started, Output, Exited, Refused, Failed:
	default:
		return Report{}, fmt.Errorf("the guest reports an unknown event %.40q", r.Event)
	}
	if r.Code < 0 || r.Code > 255 {
		return Report{}, errors.New("the guest reports an exit status outside 0 to 255")
	}
	return r, nil
}
