package vaulttest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tokendesk/vault"
)

func TestNewVaultPassesItsCheck(t *testing.T) {
	v := New(t)
	if err := v.Check(); err != nil {
		t.Fatal(err)
	}
	if v.Level() != vault.LevelEmulated || v.ID() == "" {
		t.Errorf("level %q, ID %q", v.Level(), v.ID())
	}
}

func TestSWTPMProcessStopsAndStartsAgain(t *testing.T) {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for range 2 {
		device, stop, err := StartSWTPMProcess(dir)
		if err != nil {
			t.Fatal(err)
		}
		path := strings.TrimPrefix(device, "unix:")
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			t.Error("swtpm still listens after stop")
		}
	}
}

func TestSWTPMThatCannotStartSaysWhy(t *testing.T) {
	_, _, err := StartSWTPMProcess(t.TempDir() + "/absent")
	if err == nil {
		t.Fatal("swtpm started without a directory")
	}
	if !strings.Contains(err.Error(), "cannot start swtpm") || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("the error does not show what swtpm said: %v", err)
	}
}

const roleVariable = "TOKENDESK_VAULTTEST_DIR"

// The test binary plays the process that dies, if it is started again with a directory.
func TestMain(m *testing.M) {
	dir := os.Getenv(roleVariable)
	if dir == "" {
		os.Exit(m.Run())
	}
	device, _, err := StartSWTPMProcess(dir)
	fmt.Println(device, err)
	os.Stdin.Read(make([]byte, 1)) // until killed
}

func TestSWTPMDiesWithItsProcess(t *testing.T) {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "<nil>\n") {
		t.Fatalf("the child said %q, %v", line, err)
	}
	c, err := net.Dial("unix", strings.TrimPrefix(strings.Fields(line)[0], "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("swtpm outlives the process that started it")
	}
}
