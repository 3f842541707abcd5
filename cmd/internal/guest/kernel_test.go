package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNewestDependency(t *testing.T) {
	const depends = `linux-image-amd64
  Depends: linux-image-6.1.0-9-amd64
 |Depends: linux-image-6.1.0-56-amd64
  Depends: linux-image-6.1.0-57-amd64-unsigned
  Depends: linux-image-6.1.0-58-cloud-amd64
  Conflicts: linux-image-6.1.0-99-amd64
  Depends: <linux-image-6.1.0-98-amd64>
`
	for text, want := range map[string]string{depends: "linux-image-6.1.0-56-amd64", "linux-image-amd64\n": "", "": ""} {
		if got := newestDependency([]byte(text)); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

func FuzzNewestDependency(f *testing.F) {
	f.Add([]byte("  Depends: linux-image-6.1.0-56-amd64\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if name := newestDependency(text); strings.ContainsAny(name, "/ \n\x00") {
			t.Errorf("%q would be a package's name", name)
		}
	})
}

func TestWanted(t *testing.T) {
	keep := wanted("6.1.0-56-amd64")
	for name, want := range map[string]bool{
		"boot/vmlinuz-6.1.0-56-amd64":                                      true,
		"boot/config-6.1.0-56-amd64":                                       false,
		"lib/modules/6.1.0-56-amd64/modules.builtin":                       true,
		"lib/modules/6.1.0-56-amd64/kernel/drivers/usb/core/usbcore.ko":    true,
		"lib/modules/6.1.0-56-amd64/kernel/drivers/usbX/core.ko":           false,
		"lib/modules/6.1.0-56-amd64/kernel/drivers/net/ethernet/e1000.ko":  false,
		"lib/modules/6.1.0-55-amd64/modules.builtin":                       false,
		"usr/share/doc/linux-image-6.1.0-56-amd64/changelog.Debian.gz":     false,
		"lib/modules/6.1.0-56-amd64/kernel/fs/overlayfs/overlay.ko":        true,
		"lib/modules/6.1.0-56-amd64/kernel/net/9p/../../../../../etc/sudo": true, // refused later
	} {
		if got := keep(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What a killed run left does not count, nor does what an older layout has.
func TestCacheCountsWholeKernelsOnly(t *testing.T) {
	cache := t.TempDir()
	for _, dir := range []string{"half-1/tree/boot", "7.0.0-1-amd64.layout0", "6.1.0-9-amd64" + wholeSuffix, "6.1.0-56-amd64" + wholeSuffix} {
		if err := os.MkdirAll(filepath.Join(cache, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k, err := findKernel(context.Background(), cache)
	if want := (kernel{filepath.Join(cache, "6.1.0-56-amd64"+wholeSuffix), "6.1.0-56-amd64"}); err != nil || k != want {
		t.Errorf("%+v, %v", k, err)
	}
}

// A machine without package lists, as a fresh container is.
func TestNoKernelSaysWhatToDo(t *testing.T) {
	dir, cache := t.TempDir(), t.TempDir()
	config := filepath.Join(dir, "apt.conf")
	text := `Dir::State "` + dir + `"; Dir::State::status "/dev/null"; Dir::Cache "` + dir + `"; Dir::Etc "` + dir + `";`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", config)
	if err := os.MkdirAll(filepath.Join(cache, "half-1", "tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := findKernel(context.Background(), cache)
	if err == nil || !strings.Contains(err.Error(), "try apt-get update") {
		t.Errorf("%v", err)
	}
	if halves, err := filepath.Glob(filepath.Join(cache, halfPrefix+"*")); err != nil || len(halves) != 0 {
		t.Errorf("halves are left: %v, %v", halves, err)
	}
}

func TestAwaitingTheCacheEnds(t *testing.T) {
	cache := t.TempDir()
	lock, err := os.Create(filepath.Join(cache, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errTimeIsUp)
	if _, err := findKernel(ctx, cache); !errors.Is(err, errTimeIsUp) {
		t.Errorf("%v", err)
	}
}

func TestMissingProgramNamesItsPackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for name, in := range packages {
		for _, asked := range []string{name, filepath.Join(t.TempDir(), name)} {
			err := finish(program(context.Background(), asked))
			if want := name + " is not installed: it is in Debian's package " + in + " (make deps)"; err == nil || err.Error() != want {
				t.Errorf("%s: %v", asked, err)
			}
		}
	}
}
