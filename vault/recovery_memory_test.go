package vault_test

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/secret/memscan"
)

const rootSize = 32

// passOn passes on a root secret from standard input, and lives until that ends.
func passOn() error {
	root, err := secret.Make(rootSize, func(b []byte) error { _, err := io.ReadFull(os.Stdin, b); return err })
	if err != nil {
		return err
	}
	defer root.Wipe()
	if err := vault.PassOn(root); err != nil {
		return err
	}
	runtime.GC() // twice: see secret.Do
	runtime.GC()
	fmt.Println("passed on")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// What age has read and written stays in no buffer of its.
func TestRecoveryLeavesNothingInMemory(t *testing.T) {
	if !secret.Erases() {
		t.Fatal("build this with GOEXPERIMENT=runtimesecret, as the Makefile does")
	}
	c := child(t, "pass on", "")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}()
	root := make([]byte, rootSize)
	rand.Read(root)
	if _, err := in.Write(root); err != nil {
		t.Fatal(err)
	}
	if said, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("%q: %v", said, err)
	}
	pieces := map[string][]byte{}
	for i := 0; i < rootSize; i += 8 {
		pieces[fmt.Sprintf("root from byte %d", i)] = root[i : i+8]
	}
	hits, err := memscan.Scan(c.Process.Pid, pieces)
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, h := range hits {
		if h.Protected() {
			kept++
		} else {
			t.Error(h)
		}
	}
	if kept == 0 {
		t.Error("the root secret that it still has is not seen")
	}
}
