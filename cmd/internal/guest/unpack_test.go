package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// bzImage is one with two setup sectors besides the first, and 16 bytes of code before the payload.
func bzImage(payload []byte) []byte {
	const begin = 3*512 + 16
	image := append(make([]byte, begin), payload...)
	image[setupSectorsAt] = 2
	copy(image[magicAt:], "HdrS")
	binary.LittleEndian.PutUint16(image[versionAt:], firstVersionWithPayload)
	binary.LittleEndian.PutUint32(image[payloadOffsetAt:], 16)
	binary.LittleEndian.PutUint32(image[payloadLengthAt:], uint32(len(payload)))
	return append(image, "what follows"...)
}

// compressed is xz's, and the size after it.
func compressed(t testing.TB, plain []byte, size int) []byte {
	t.Helper()
	cmd := exec.Command("xz", "--stdout")
	cmd.Stdin = bytes.NewReader(plain)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.AppendUint32(out, uint32(size))
}

func TestUnpackKernel(t *testing.T) {
	plain := bytes.Repeat([]byte("the kernel "), 1000)
	for complaint, image := range map[string][]byte{
		"":                  bzImage(compressed(t, plain, len(plain))),
		"has not the 10999": bzImage(compressed(t, plain, len(plain)-1)),
		"xz: exit status 1": bzImage(append([]byte("\xfd7zXZ\x00garbage"), 1, 0, 0, 0)),
		"not compressed":    bzImage([]byte("\x1f\x8b\x08gzip is another's")),
		"no bzImage":        []byte("\x7fELF"),
		"ends beyond it":    bzImage(compressed(t, plain, 0))[:3*512+40],
	} {
		dir := t.TempDir()
		from, to := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "vmlinux")
		if err := os.WriteFile(from, image, 0o644); err != nil {
			t.Fatal(err)
		}
		err := unpackKernel(context.Background(), from, to)
		if complaint != "" {
			if err == nil || !strings.Contains(err.Error(), complaint) {
				t.Errorf("%v, not %q", err, complaint)
			}
			continue
		}
		if got, readErr := os.ReadFile(to); err != nil || readErr != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes, %v, %v", len(got), err, readErr)
		}
	}
}

func FuzzPayload(f *testing.F) {
	f.Add(bzImage([]byte("\xfd7zXZ\x00and more")))
	f.Add(bzImage(nil)[:headerEnd])
	f.Fuzz(func(t *testing.T, image []byte) {
		compressed, _, err := payload(image)
		if err == nil && !bytes.Contains(image, compressed) {
			t.Error("the payload is not of the image")
		}
	})
}
