package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tokendesk/cmd/internal/guest/job"
)

// What the guest loads, each after what it needs: the way to the host's root, then what a token's USB takes.
// (The TPM's drivers and hidraw are in the kernel.)
var (
	forRoot = []string{"virtio_pci", "9pnet_virtio", "9p", "overlay"}
	forUSB  = []string{"vhci-hcd", "usbhid", "hid-generic", "evdev", "usbmon"}
)

// loadOrder asks modprobe for the files to load.
func loadOrder(ctx context.Context, k kernel, modules ...string) ([]string, error) {
	// The host's own modprobe.d is not meant for the guest.
	args := []string{"-C", "/dev/null", "-d", k.dir, "-S", k.version, "--show-depends", "-a"}
	out, err := output(ctx, "/sbin/modprobe", append(args, modules...)...)
	if err != nil {
		return nil, err
	}
	return parseOrder(out)
}

// parseOrder reads modprobe --show-depends: lines "insmod FILE [OPTION…]" and "builtin NAME". A file that comes
// again is left out.
func parseOrder(out []byte) ([]string, error) {
	var files []string
	for text := range strings.Lines(string(out)) {
		words := strings.Fields(text)
		switch {
		case len(words) == 0 || words[0] == "builtin":
		case len(words) < 2 || words[0] != "insmod":
			return nil, fmt.Errorf("cannot read the order of the kernel modules at %q", text)
		case !slices.Contains(files, words[1]):
			files = append(files, words[1])
		}
	}
	return files, nil
}

// makeInitramfs writes an archive of the guest's first process, the modules and the job.
func makeInitramfs(ctx context.Context, root, scratch string, k kernel, j job.Job) (string, error) {
	stage := filepath.Join(scratch, "stage")
	if err := os.MkdirAll(filepath.Join(stage, "modules"), 0o755); err != nil {
		return "", err
	}
	if err := buildInit(ctx, root, filepath.Join(stage, "init")); err != nil {
		return "", err
	}
	first, err := loadOrder(ctx, k, forRoot...)
	if err != nil {
		return "", err
	}
	order, err := loadOrder(ctx, k, slices.Concat(forRoot, forUSB)...)
	if err != nil {
		return "", err
	}
	j.ForRoot = len(first)
	names := []string{"init", "modules"}
	for _, from := range order {
		name := filepath.Base(from)
		j.Modules = append(j.Modules, name)
		names = append(names, "modules/"+name)
		if err := copyFile(from, filepath.Join(stage, "modules", name)); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(j)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(stage, job.Path), text, 0o644); err != nil {
		return "", err
	}
	names = append(names, strings.TrimPrefix(job.Path, "/"))
	archive := filepath.Join(scratch, "initramfs")
	return archive, pack(ctx, stage, names, archive)
}

func buildInit(ctx context.Context, root, to string) error {
	build := program(ctx, "go", "build", "-o", to, "./cmd/internal/guest/init")
	build.Dir, build.Env = root, append(build.Env, "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	return finish(build)
}

// pack writes the kind of cpio archive that the kernel reads.
func pack(ctx context.Context, dir string, names []string, archive string) error {
	out, err := os.OpenFile(archive, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	cpio := program(ctx, "cpio", "--create", "--format=newc", "--owner=0:0", "--quiet")
	cpio.Dir, cpio.Stdin, cpio.Stdout = dir, strings.NewReader(strings.Join(names, "\n")+"\n"), out
	return errors.Join(finish(cpio), out.Close())
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
