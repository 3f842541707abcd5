package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// metapackage depends on the newest kernel of this Debian.
const metapackage = "linux-image-amd64"

// layout changes when extracted does, so that an older cache is not taken for a whole one.
const layout = "2"

// extracted are the folders of a kernel's modules that are kept: what the guest loads, what that needs, and what
// udev might want for a token. All of them would be 300 MB.
var extracted = []string{
	"drivers/char", "drivers/hid", "drivers/input", "drivers/leds", "drivers/usb", "drivers/virtio",
	"fs/9p", "fs/fscache", "fs/netfs", "fs/overlayfs", "net/9p",
}

// kernel is an extracted one.
type kernel struct {
	dir     string
	version string
}

func (k kernel) packed() string { return filepath.Join(k.dir, "boot", "vmlinuz-"+k.version) }
func (k kernel) image() string  { return filepath.Join(k.dir, "boot", "vmlinux-"+k.version) }
func (k kernel) tree() string   { return filepath.Join(k.dir, "lib", "modules", k.version) }

// findKernel takes the newest one of the cache, or else gets one from Debian's archive. Other processes may do
// the same at the same time.
func findKernel(ctx context.Context, cache string) (kernel, error) {
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return kernel{}, err
	}
	defer lock.Close()
	if err := await(ctx, lock); err != nil {
		return kernel{}, err
	}
	if k, ok := cached(cache); ok {
		return k, nil
	}
	fmt.Fprintln(os.Stderr, "guest: getting Debian's kernel, 70 MB, once")
	if err := clearHalves(cache); err != nil {
		return kernel{}, err
	}
	name, err := kernelPackage(ctx)
	if err != nil {
		return kernel{}, err
	}
	half, err := os.MkdirTemp(cache, halfPrefix)
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(half)
	k := kernel{dir: filepath.Join(half, "tree"), version: strings.TrimPrefix(name, "linux-image-")}
	if err := fetch(ctx, half, name, k); err != nil {
		return kernel{}, err
	}
	whole := kernel{dir: filepath.Join(cache, k.version+wholeSuffix), version: k.version}
	return whole, os.Rename(k.dir, whole.dir)
}

// await takes a lock. Only getting a kernel takes time under it.
func await(ctx context.Context, lock *os.File) error {
	for {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

const (
	halfPrefix  = "half-"
	wholeSuffix = ".layout" + layout
)

// cached is the newest whole kernel. The directory appears by a rename, so that what is there is whole.
func cached(cache string) (kernel, bool) {
	dirs, _ := filepath.Glob(filepath.Join(cache, "[0-9]*"+wholeSuffix))
	if len(dirs) == 0 {
		return kernel{}, false
	}
	newest := slices.MaxFunc(dirs, func(a, b string) int { return compareVersions(filepath.Base(a), filepath.Base(b)) })
	return kernel{dir: newest, version: strings.TrimSuffix(filepath.Base(newest), wholeSuffix)}, true
}

// clearHalves removes what killed runs left. The lock is held: nobody works in them.
func clearHalves(cache string) error {
	halves, err := filepath.Glob(filepath.Join(cache, halfPrefix+"*"))
	for _, half := range halves {
		err = errors.Join(err, os.RemoveAll(half))
	}
	return err
}

var kernelDependency = regexp.MustCompile(`(?m)^\s*\|?Depends: (linux-image-[0-9][0-9.+~deb-]*-amd64)$`)

func kernelPackage(ctx context.Context) (string, error) {
	out, err := output(ctx, "apt-cache", "depends", metapackage)
	if err == nil {
		if name := newestDependency(out); name != "" {
			return name, nil
		}
		err = fmt.Errorf("%s depends on no kernel", metapackage)
	}
	return "", fmt.Errorf("cannot tell which kernel Debian has now: %w; it needs Debian's package lists: try apt-get update", err)
}

// newestDependency reads the output of apt-cache depends.
func newestDependency(out []byte) string {
	var names []string
	for _, match := range kernelDependency.FindAllSubmatch(out, -1) {
		names = append(names, string(match[1]))
	}
	if len(names) == 0 {
		return ""
	}
	return slices.MaxFunc(names, compareVersions)
}

var number = regexp.MustCompile(`[0-9]+`)

// compareVersions compares names by the numbers in them, as 6.1.0-56 is newer than 6.1.0-9.
func compareVersions(a, b string) int {
	numbers := func(name string) []string {
		found := number.FindAllString(name, -1)
		for i, n := range found {
			found[i] = fmt.Sprintf("%20s", n)
		}
		return found
	}
	return slices.Compare(numbers(a), numbers(b))
}

// fetch fills a kernel's directory.
func fetch(ctx context.Context, scratch, name string, k kernel) error {
	download := filepath.Join(scratch, "download")
	if err := os.Mkdir(download, 0o755); err != nil {
		return err
	}
	// apt checks the archive's signature. Its own user cannot write here.
	get := program(ctx, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name)
	get.Dir = download
	if err := finish(get); err != nil {
		return fmt.Errorf("cannot download %s: %w; it needs Debian's archive: try apt-get update", name, err)
	}
	packages, err := filepath.Glob(filepath.Join(download, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages, not one", name, len(packages))
	}
	if err := extractPackage(ctx, packages[0], k); err != nil {
		return err
	}
	if err := unpackKernel(ctx, k.packed(), k.image()); err != nil {
		return err
	}
	if err := os.Remove(k.packed()); err != nil {
		return err
	}
	return finish(program(ctx, "/sbin/depmod", "-b", k.dir, k.version)) // the package has no modules.dep
}

func extractPackage(ctx context.Context, file string, k kernel) error {
	read, write := io.Pipe()
	unpack := program(ctx, "dpkg-deb", "--fsys-tarfile", file)
	unpack.Stdout = write
	go func() { write.CloseWithError(finish(unpack)) }()
	err := extract(read, k.dir, wanted(k.version))
	read.Close()
	return err
}

// wanted tells the files that are kept, by their names relative to the package's root.
func wanted(version string) func(name string) bool {
	tree := "lib/modules/" + version + "/"
	return func(name string) bool {
		if name == "boot/vmlinuz-"+version {
			return true
		}
		rest, ok := strings.CutPrefix(name, tree)
		if !ok {
			return false
		}
		if !strings.Contains(rest, "/") {
			return true // modules.builtin and its like
		}
		return slices.ContainsFunc(extracted, func(folder string) bool { return strings.HasPrefix(rest, "kernel/"+folder+"/") })
	}
}
