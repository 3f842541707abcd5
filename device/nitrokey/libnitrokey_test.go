package nitrokey_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/nitrokeypro"
)

// TestLibnitrokey has Debian's libnitrokey read what was programmed here and program what is read here, with every way that
// firmware takes it. The guest does so with nitrocli over USB; here are the devices that it does not have.
func TestLibnitrokey(t *testing.T) {
	program := filepath.Join(t.TempDir(), "libnitrokey")
	out, err := exec.CommandContext(t.Context(), "gcc", "-Wall", "-Werror", "-rdynamic", "-o", program, "testdata/libnitrokey.c",
		"-l:libnitrokey.so.3").CombinedOutput()
	if err != nil {
		t.Fatalf("cannot build the host program (make deps installs what it needs): %v\n%s", err, out)
	}
	talks := map[string]*talk{}
	for name, o := range kinds(t) {
		if name == "storage-dev" || name == "pro-0.8" {
			continue // as the releases after them, to libnitrokey
		}
		o.Timing = &nitrokeypro.Timing{Card: 30 * time.Millisecond}
		talks[name] = begin(t, program, newToken(o)) // at the same time: it waits 100 ms for each answer
	}
	for name, talk := range talks {
		t.Run(name, talk.check)
	}
}

// talk is a conversation of a host program with a device.
type talk struct {
	k    *nitrokeypro.Token
	over chan struct{}
	said string
	err  error
}

// begin programs slot 2, and lends the device to a host program.
func begin(t *testing.T, host string, k *nitrokeypro.Token) *talk {
	t.Helper()
	s, _ := open(t, k)
	two, err := s.Token(t.Context(), "nk-00005d19/hotp2")
	if err != nil {
		t.Fatal(err)
	}
	c := config()
	c.Digits, c.StartCounter = 8, 5
	program(t, two, c)
	letter := map[uint16]string{0x4108: "P", 0x4109: "S", 0x4C4B: "L"}[k.Model().Product]
	of := &talk{k: k, over: make(chan struct{})}
	go func() {
		defer close(of.over)
		of.said, of.err = converse(t.Context(), k, host, letter, hex.EncodeToString(seed.Reveal()))
	}()
	return of
}

// check waits for the end, and reads what the host program has programmed.
func (of *talk) check(t *testing.T) {
	<-of.over
	k, v := of.k, of.k.Firmware()
	want := fmt.Sprintf(`login 1
device 00005d19 %d.%d
slot 2 tokendesk 68254676 18287922
slot 1 status 3
wrong PIN 4, tries 2
PIN 0, tries 3
write slot 1 0
slot 1 six digits 287082 359152
write slot 3 0
erase slot 2 0
erase slot 3 without the PIN 1
`, v.Major, v.Minor)
	if of.err != nil || of.said != want {
		t.Fatalf("libnitrokey says (error %v)\n%s\nwant\n%s", of.err, of.said, want)
	}
	s, one := open(t, k)
	expectCodes(t, one, codes[3:]...)
	id, err := s.Identify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h := id.Holds; !h[0].Configured || h[1].Configured || !h[2].Configured {
		t.Errorf("the slots are %+v", h)
	}
	three, err := s.Token(t.Context(), "nk-00005d19/hotp3")
	if err != nil {
		t.Fatal(err)
	}
	expectCodes(t, three, "82162583", "73399871") // RFC 4226, appendix D, to 8 digits
	program(t, one, config())
	expectCodes(t, one, codes...)
	if err := three.Delete(t.Context(), adminPIN); err != nil {
		t.Error(err)
	}
}

// converse lends a device to a host program, and returns what it says.
func converse(ctx context.Context, k *nitrokeypro.Token, host string, args ...string) (string, error) {
	theirIn, answers, err := os.Pipe()
	if err != nil {
		return "", err
	}
	calls, theirOut, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer calls.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, host, args...)
	cmd.Env = []string{fmt.Sprintf("DEVICE=%04x:%04x", k.Model().Vendor, k.Model().Product)}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	served := make(chan error, 1)
	go func() {
		defer answers.Close()
		served <- serve(k, calls, answers)
	}()
	out, err := cmd.Output()
	theirIn.Close()
	theirOut.Close()
	return string(out), errors.Join(err, <-served)
}

// serve carries out what a host program does with its USB.
func serve(k *nitrokeypro.Token, calls io.Reader, answers io.Writer) error {
	r := k.Open()
	defer r.Close()
	for {
		var p [1 + device.NitrokeyReportSize]byte
		if _, err := io.ReadFull(calls, p[:1]); err != nil {
			return nil // it has ended
		}
		if p[0] == 'S' {
			if _, err := io.ReadFull(calls, p[1:]); err != nil {
				return err
			}
			if err := r.SetFeature(p[1:]); err != nil {
				return err
			}
			continue
		}
		if err := r.GetFeature(p[1:]); err != nil {
			return err
		}
		if _, err := answers.Write(p[1:]); err != nil {
			return err
		}
	}
}
