package pcsctest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A port that another program takes between our look and pcscd's is noticed, and others are taken then.
func TestTakenPort(t *testing.T) {
	dir, err := os.MkdirTemp("", "pcsc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r, err := Start(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", fmt.Sprintf(":%d", r.Ports[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := r.Restart(); !errors.As(err, new(*takenError)) {
		t.Errorf("with its port taken, pcscd starts: %v", err)
	}
	if r.PID() != 0 {
		t.Errorf("process %d is left", r.PID())
	}
}

func TestNoPCSCD(t *testing.T) {
	whole := needed
	t.Cleanup(func() { needed = whole })
	needed = []struct{ path, debian string }{{filepath.Join(t.TempDir(), "pcscd"), "pcscd"}}
	if _, err := Start(t.TempDir(), 1); err == nil || !strings.Contains(err.Error(), "install Debian's package pcscd") {
		t.Errorf("without pcscd: %v", err)
	}
}
