// Package usbhid reaches OTP keyboard interfaces over USB, through karalabe/hid.
//
// On Linux that library carries hidapi's libusb backend: it works on USB device nodes and detaches the
// kernel's keyboard driver while an interface is open, which is what keeps captured codes private. It
// needs cgo; without cgo it would list nothing, so Watch says so instead. The library reports every
// failure alike; the causes are looked up in sysfs and /proc and named here.
//
// Hotplug is noticed by looking at sysfs four times a second. That is the fallback until kernel events
// are listened to: it costs one directory listing per look and opens nothing.
package usbhid

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/karalabe/hid"
	"golang.org/x/sys/unix"

	"tokendesk/device"
	"tokendesk/device/keyboard"
)

const (
	sysfs      = "/sys/bus/usb/devices"
	otpUsage   = 6 // keyboard, on usage page 1
	otpPage    = 1
	otpNumber  = 0 // the OTP keyboard is interface 0 of every model
	lookPeriod = 250 * time.Millisecond
)

// Bus is the machine's USB. Its zero value is ready.
type Bus struct{}

var _ device.Bus = Bus{}

// Name implements device.Bus.
func (Bus) Name() string { return "usb" }

// Watch implements device.Bus.
func (b Bus) Watch(ctx context.Context, fn func(device.Event)) error {
	if !hid.Supported() {
		return errors.New("cannot see USB devices: this tokendeskd was built without cgo; build it with CGO_ENABLED=1")
	}
	tick := time.NewTicker(lookPeriod)
	defer tick.Stop()
	var names []string
	known := map[string]plugging{}
	for first := true; ; first = false {
		now, err := plugged()
		if err != nil {
			return err
		}
		if first || !slices.Equal(now, names) {
			names = now
			present, err := list()
			if err != nil {
				return err
			}
			for path, old := range known {
				if present[path] != old {
					delete(known, path)
					fn(device.Event{Info: old.info, Removed: true})
				}
			}
			for path, new := range present {
				if _, ok := known[path]; !ok {
					known[path] = new
					fn(device.Event{Info: new.info})
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// plugging is an interface as it was plugged in once: a key that comes back has another device node.
type plugging struct {
	info device.Info
	node string
}

// plugged lists the names of everything on the bus; the device number tells a re-plugged key apart.
func plugged() ([]string, error) {
	entries, err := os.ReadDir(sysfs)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot see USB devices: this machine has no USB (%s is absent)", sysfs)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot see USB devices: %w", err)
	}
	var names []string
	for _, e := range entries {
		number, _ := os.ReadFile(filepath.Join(sysfs, e.Name(), "devnum"))
		names = append(names, e.Name()+"="+strings.TrimSpace(string(number)))
	}
	return names, nil
}

func list() (map[string]plugging, error) {
	found, err := hid.Enumerate(device.YubicoVendor, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot list USB devices: %w", err)
	}
	present := map[string]plugging{}
	for _, f := range found {
		model, known := device.FindModel(f.VendorID, f.ProductID)
		keyboard := f.UsagePage == otpPage && f.Usage == otpUsage || f.UsagePage == 0 // libusb does not always tell
		if !known || !model.Has(device.OTP) || f.Interface != otpNumber || !keyboard {
			continue
		}
		port := portOf(f.Path)
		node, err := nodeOf(port)
		if err != nil {
			continue // pulled since
		}
		present[f.Path] = plugging{node: node, info: device.Info{
			Path: f.Path, Port: port, Vendor: f.VendorID, Product: f.ProductID, Emulated: emulated(port),
		}}
	}
	return present, nil
}

// portOf cuts the port out of a sysfs interface name: "1-1:1.0" is on port "1-1".
func portOf(path string) string {
	port, _, _ := strings.Cut(path, ":")
	return port
}

// emulated reports whether the device hangs on the kernel's virtual host controller (rule D6).
func emulated(port string) bool {
	target, err := os.Readlink(filepath.Join(sysfs, port))
	return err == nil && strings.Contains(target, "/vhci_hcd.")
}

// Open implements device.Bus.
func (Bus) Open(ctx context.Context, path string) (device.Report, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	port := portOf(path)
	node, err := nodeOf(port)
	if err != nil {
		return nil, fmt.Errorf("cannot open the key on USB port %s: %w", port, device.ErrGone)
	}
	d, err := (hid.DeviceInfo{Path: path}).Open()
	if err != nil {
		return nil, fmt.Errorf("cannot open the key on USB port %s: %w", port, cause(port, node))
	}
	return &report{device: d, port: port, node: node}, nil
}

// cause finds out why the key on a port cannot be opened.
func cause(port, node string) error {
	if now, err := nodeOf(port); err != nil || now != node {
		return device.ErrGone
	}
	if unix.Access(node, unix.R_OK|unix.W_OK) != nil {
		return fmt.Errorf("%w: %s is not open to this user; install the udev rules of tokendesk and join the group tokendesk", device.ErrPermission, node)
	}
	if who := holders(node); who != "" {
		return fmt.Errorf("%w: %s holds %s", device.ErrBusy, who, node)
	}
	return fmt.Errorf("%w; pull the key and insert it again", device.ErrBusy)
}

func nodeOf(port string) (string, error) {
	var numbers [2]int
	for i, file := range []string{"busnum", "devnum"} {
		text, err := os.ReadFile(filepath.Join(sysfs, port, file))
		if err != nil {
			return "", err
		}
		if _, err := fmt.Sscan(string(text), &numbers[i]); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("/dev/bus/usb/%03d/%03d", numbers[0], numbers[1]), nil
}

// holders names the other processes that have node open, as far as this user may see them.
func holders(node string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	var who []string
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != node {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		if filepath.Base(process) == fmt.Sprint(os.Getpid()) {
			continue
		}
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		who = append(who, fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(process)))
	}
	return strings.Join(slices.Compact(who), ", ")
}

type report struct {
	device hid.Device
	port   string
	node   string // the device node it was opened through
}

func (r *report) SetFeature(p []byte) error {
	if err := checkSize(p); err != nil {
		return err
	}
	_, err := r.device.SendFeatureReport(p)
	return r.explain("write to", err)
}

func (r *report) GetFeature(p []byte) error {
	if err := checkSize(p); err != nil {
		return err
	}
	n, err := r.device.GetFeatureReport(p)
	if err == nil && n < device.ReportSize {
		err = device.ErrCorrupt
	}
	return r.explain("read from", err)
}

// checkSize refuses what hidapi would take and cut: with 8 bytes the flags are lost.
func checkSize(p []byte) error {
	if len(p) != device.ReportSize || p[0] != 0 {
		return fmt.Errorf("a feature report has %d bytes and number 0, this one has %d bytes", device.ReportSize, len(p))
	}
	return nil
}

func (r *report) ReadInput(p []byte, timeout time.Duration) (int, error) {
	if len(p) < keyboard.ReportSize {
		return 0, fmt.Errorf("a keyboard report has %d bytes, not %d", keyboard.ReportSize, len(p))
	}
	n, err := r.device.ReadTimeout(p, max(1, int(timeout.Milliseconds())))
	return n, r.explain("read from", err)
}

func (r *report) Close() error { return r.device.Close() }

// explain finds out whether the key is still there; the library's own text does not tell.
func (r *report) explain(what string, err error) error {
	if err == nil {
		return nil
	}
	if now, statErr := nodeOf(r.port); statErr != nil || now != r.node {
		return device.ErrGone
	}
	return fmt.Errorf("cannot %s the key on USB port %s: %w", what, r.port, err)
}
