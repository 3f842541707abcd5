//go:build guest

package e2e

import (
	"bufio"
	"context"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
)

// Of the OTP protocol: the last byte of a report that carries a chunk, and the place of the command in a frame.
const (
	chunkFlag     = 0x80
	chunkNumber   = 0x1f
	chunkSize     = 7
	lastChunk     = 9
	commandOffset = 64
)

// wire listens with the kernel's usbmon while do works, and returns the chunks of the first frame with a command
// that went to a key on a bus.
func wire(t *testing.T, bus string, command byte, do func()) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mon, err := os.Open("/sys/kernel/debug/usb/usbmon/" + bus + "u")
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan [][]byte, 1)
	go func() { // a read of usbmon cannot be interrupted: if nothing comes, this lasts as long as the guest
		defer mon.Close()
		var frame [][]byte
		for lines := bufio.NewScanner(mon); lines.Scan(); {
			report := featureWrite(lines.Text())
			if report == nil || report[chunkSize] == 0x8f || report[chunkSize] == 0xff || report[chunkSize]&chunkFlag == 0 {
				continue
			}
			number := report[chunkSize] & chunkNumber
			if number == 0 {
				frame = nil
			}
			frame = append(frame, report)
			if at := commandOffset % chunkSize; number == lastChunk && report[at] == command {
				sent <- frame
				return
			}
		}
	}()
	do()
	select {
	case frame := <-sent:
		return frame
	case <-ctx.Done():
		t.Fatalf("usbmon has seen no frame with command %d", command)
		return nil
	}
}

// featureWrite reads a line of usbmon's text format (Documentation/usb/usbmon.rst): if it is the submission of a
// SET_REPORT of a feature report, the result is its 8 bytes.
func featureWrite(line string) []byte {
	f := strings.Fields(line)
	if len(f) < 13 || f[2] != "S" || !strings.HasPrefix(f[3], "Co:") || !slices.Equal(f[4:12], strings.Fields("s 21 09 0300 0000 0008 8 =")) {
		return nil
	}
	report, err := hex.DecodeString(strings.Join(f[12:], ""))
	if err != nil || len(report) != chunkSize+1 {
		return nil
	}
	return report
}
