package pcsc

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
)

func TestTransmit(t *testing.T) {
	r := startRig(t, 1)
	plug(t, r.Ports[0], yubikeyATR, ok)
	observe(t, Bus{}).expect(r.Readers[0], false)
	c := openCard(t, r.Readers[0])
	data, status, err := c.Transmit([]byte{0, 0xA4, 4, 7, 0})
	if err != nil || status != statusOK || !bytes.Equal(data, []byte{0, 0xA4, 4, 7}) {
		t.Errorf("%x, %04x, %v", data, status, err)
	}
	if _, _, err := c.Transmit([]byte{0, 0xA4, 4}); err != errAPDU {
		t.Error(err)
	}
	if _, _, err := c.Transmit([]byte{0, 0xA4, 4, 0}); err != nil {
		t.Errorf("after what was no command: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if _, _, err := c.Transmit([]byte{0, 0xA4, 4, 0}); err != errClosed {
		t.Errorf("after Close: %v", err)
	}
}

func TestAbsentCard(t *testing.T) {
	r := startRig(t, 1)
	_, err := Bus{}.Open(t.Context(), r.Readers[0])
	expectError(t, err, device.ErrGone, "insert it again")
	_, err = Bus{}.Open(t.Context(), "no such reader")
	expectError(t, err, device.ErrGone, "insert it again")
}

func TestPulledWhileOpen(t *testing.T) {
	r := startRig(t, 1)
	o := observe(t, Bus{})
	during, pull := make(chan bool), make(chan bool)
	p := plug(t, r.Ports[0], yubikeyATR, func(apdu []byte) []byte {
		during <- true
		<-pull
		return nil
	})
	go func() {
		<-during
		p.conn.Close()
		close(pull)
	}()
	o.expect(r.Readers[0], false)
	c := openCard(t, r.Readers[0])
	_, _, err := c.Transmit([]byte{0, 1, 0, 0})
	expectError(t, err, device.ErrGone, "insert it again")
	o.expect(r.Readers[0], true)
	_, _, err = c.Transmit([]byte{0, 2, 0, 0})
	expectError(t, err, device.ErrGone, "insert it again")
	p.pull()

	p = plug(t, r.Ports[0], yubikeyATR, ok)
	o.expect(r.Readers[0], false)
	_, _, err = c.Transmit([]byte{0, 2, 0, 0})
	expectError(t, err, device.ErrGone, "insert it again") // this is another card
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c = openCard(t, r.Readers[0])
	p.pull()
	o.expect(r.Readers[0], true)
	_, _, err = c.Transmit([]byte{0, 2, 0, 0})
	expectError(t, err, device.ErrGone, "insert it again")
}

func TestMuteCard(t *testing.T) {
	r := startRig(t, 1)
	p := plug(t, r.Ports[0], yubikeyATR, func([]byte) []byte { return nil })
	observe(t, Bus{}).expect(r.Readers[0], false)
	c := openCard(t, r.Readers[0])
	c.patient = func([]byte) time.Duration { return 50 * time.Millisecond }
	for range 2 {
		_, _, err := c.Transmit([]byte{0, 1, 0, 0})
		expectError(t, err, device.ErrMute, mute().Cure)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	p.pull()
	c.mu.Lock() // when the command has come back
	defer c.mu.Unlock()
}

// An answer without status word is none, but the card is still there.
func TestShortAnswer(t *testing.T) {
	r := startRig(t, 1)
	plug(t, r.Ports[0], yubikeyATR, func([]byte) []byte { return []byte{0x90} })
	observe(t, Bus{}).expect(r.Readers[0], false)
	_, _, err := openCard(t, r.Readers[0]).Transmit([]byte{0, 1, 0, 0})
	expectError(t, err, device.ErrCorrupt, "")
}

func TestPatience(t *testing.T) {
	if patience([]byte{0, insGenerate, 0, 0}) != generateTime || patience([]byte{0, 0xA4, 0, 0}) != answerTime {
		t.Error("not all commands take as long")
	}
}

func TestHeldByAnotherProgram(t *testing.T) {
	r := startRig(t, 1)
	plug(t, r.Ports[0], yubikeyATR, ok)
	observe(t, Bus{}).expect(r.Readers[0], false)
	other := exec.Command("/proc/self/exe")
	other.Env = append(os.Environ(), holderRole+"="+r.Readers[0])
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other program: %q, %v", line, err)
	}
	_, err = Bus{}.Open(t.Context(), r.Readers[0])
	expectError(t, err, device.ErrBusy, "wait until it has finished, or end it, and try again")
	if !strings.Contains(err.Error(), "(process "+strconv.Itoa(other.Process.Pid)+")") {
		t.Errorf("process %d has it: %v", other.Process.Pid, err)
	}
	in.Close()
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	openCard(t, r.Readers[0])
	_, err = Bus{}.Open(t.Context(), r.Readers[0])
	if this := "(process " + strconv.Itoa(os.Getpid()) + ")"; !errors.Is(err, device.ErrBusy) || strings.Contains(err.Error(), this) {
		t.Errorf("while this very process has it: %v", err)
	}
}
