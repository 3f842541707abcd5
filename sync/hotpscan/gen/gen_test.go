package main

import (
	"bytes"
	"os"
	"testing"
)

func TestKernelsAreWhatIsGenerated(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../kernel_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Error("kernel_amd64.s is not what is generated: run go generate ./sync/hotpscan")
	}
}
