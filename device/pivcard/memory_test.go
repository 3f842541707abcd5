package pivcard_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"tokendesk/device"
	"tokendesk/device/pivcard"
	"tokendesk/vault/secret"
	"tokendesk/vault/secret/memscan"
)

// workerRole names, in the environment, the reader that this process is to provision by secrets from its input.
const workerRole = "PIVCARD_TEST_WORKER"

const textSize = device.MaxPINSize

// work uses every secret in every way there is, wipes them, and waits until its input ends.
func work(reader string) int {
	read := func(n int) secret.Secret {
		b := make([]byte, n)
		if _, err := io.ReadFull(os.Stdin, b); err != nil {
			panic(err)
		}
		return secret.New(b)
	}
	pin, puk, key := read(textSize), read(textSize), read(device.ManagementKeySize)
	if err := provision(reader, pin, puk, key); err != nil {
		fmt.Println(err)
		return 1
	}
	for _, s := range []secret.Secret{pin, puk, key} {
		s.Wipe()
	}
	runtime.GC()
	runtime.GC()
	fmt.Println("done")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func provision(reader string, pin, puk, key secret.Secret) error {
	ctx := context.Background()
	c, err := pivcard.Open(ctx, reader, true)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, step := range []func() error{
		func() error { return c.SetManagementKey(ctx, factory, key) },
		func() error { return c.ChangePUK(ctx, factory, puk) },
		func() error { return c.ChangePIN(ctx, factory, pin) },
		func() error { return c.Unblock(ctx, puk, pin) },
		func() error { return c.VerifyPIN(ctx, pin) },
		func() error {
			_, err := c.Generate(ctx, key, device.PIVKeySpec{Slot: 0x9A, Algorithm: device.ECCP256, PIN: device.PINAlways, Touch: device.TouchNever})
			return err
		},
		func() error {
			_, err := c.Request(ctx, pin, 0x9A, &x509.CertificateRequest{})
			return err
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Nothing of what a process has shown to a card stays in its memory.
func TestSecretsAreErased(t *testing.T) {
	if !secret.Erases() {
		t.Fatal("build with GOEXPERIMENT=runtimesecret")
	}
	for _, firmware := range []device.Version{firmwares[0], firmwares[3]} {
		t.Run(firmware.String(), func(t *testing.T) {
			newToken(t, firmware)
			pin, puk, key := []byte(rand.Text()[:textSize]), []byte(rand.Text()[:textSize]), make([]byte, device.ManagementKeySize)
			rand.Read(key)
			worker := exec.Command("/proc/self/exe")
			worker.Env = append(os.Environ(), workerRole+"="+rig.Readers[0])
			in, err := worker.StdinPipe()
			must(t, err)
			out, err := worker.StdoutPipe()
			must(t, err)
			must(t, worker.Start())
			_, err = in.Write(bytes.Join([][]byte{pin, puk, key}, nil))
			must(t, err)
			said := make([]byte, 200)
			n, err := out.Read(said)
			if string(said[:n]) != "done\n" {
				t.Fatalf("the worker says %s (%v)", said[:n], err)
			}
			hits, err := memscan.Scan(worker.Process.Pid, memscan.Forms(map[string][]byte{
				"PIN": pin, "PUK": puk, "management key": key, "its first 16 bytes": key[:16], "its last 8 bytes": key[16:],
			}))
			must(t, err)
			for _, hit := range hits {
				t.Error(hit)
			}
			must(t, in.Close())
			must(t, worker.Wait())
		})
	}
}
