package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseOrder(t *testing.T) {
	const said = `builtin hidraw
insmod /k/usb-common.ko 
insmod /k/usbcore.ko quiet=1
insmod /k/usb-common.ko 

insmod /k/usbhid.ko 
`
	want := []string{"/k/usb-common.ko", "/k/usbcore.ko", "/k/usbhid.ko"}
	if got, err := parseOrder([]byte(said)); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"install /bin/sh\n", "insmod\n", "insmod /k/a.ko\nmodprobe: FATAL\n"} {
		if got, err := parseOrder([]byte(bad)); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

func FuzzParseOrder(f *testing.F) {
	f.Add([]byte("builtin a\ninsmod /k/b.ko x=1\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		files, err := parseOrder(said)
		if err != nil {
			return
		}
		for i, name := range files {
			if name == "" || strings.ContainsAny(name, " \n") || slices.Contains(files[:i], name) {
				t.Errorf("%q gives %q", said, files)
			}
		}
	})
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"init": 0o755, "modules/a.ko": 0o644, "left": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	to := filepath.Join(t.TempDir(), "initramfs")
	if err := pack(context.Background(), dir, []string{"init", "modules", "modules/a.ko"}, to); err != nil {
		t.Fatal(err)
	}
	packed, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(packed), "070701") { // newc, the only format that the kernel reads
		t.Errorf("it begins %q", packed[:6])
	}
	list := program(context.Background(), "cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet")
	list.Stdin = strings.NewReader(string(packed))
	said, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(said)) {
		words := strings.Fields(line)
		got = append(got, strings.Join([]string{words[0], words[2], words[3], words[len(words)-1]}, " "))
	}
	want := []string{"-rwxr-xr-x 0 0 init", "drwxr-xr-x 0 0 modules", "-rw-r--r-- 0 0 modules/a.ko"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if err := pack(context.Background(), dir, []string{"missing"}, to+"2"); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing file: %v", err)
	}
}
