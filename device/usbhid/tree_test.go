package usbhid

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files is a machine whose sysfs, device nodes, udev and processes are plain files, laid out as the kernel
// does it for a key on vhci_hcd.
type files struct {
	*testing.T
	tree
	plugged int // how often something was: the kernel counts devices up
}

func newFiles(t *testing.T) *files {
	root := t.TempDir()
	f := &files{T: t, tree: tree{
		sys: filepath.Join(root, "sys"), dev: filepath.Join(root, "dev"),
		udev: filepath.Join(root, "run/udev"), proc: filepath.Join(root, "proc"),
	}}
	f.plug("usb1", "1d6b", "0002") // the root hub
	f.mkdir(f.proc)
	return f
}

func (f *files) mkdir(name string) {
	f.Helper()
	if err := os.MkdirAll(name, 0o755); err != nil {
		f.Fatal(err)
	}
}

func (f *files) write(name, text string) {
	f.Helper()
	f.mkdir(filepath.Dir(name))
	if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
		f.Fatal(err)
	}
}

func (f *files) link(name, target string) {
	f.Helper()
	f.mkdir(filepath.Dir(name))
	if err := os.Symlink(target, name); err != nil {
		f.Fatal(err)
	}
}

func (f *files) remove(name string) {
	f.Helper()
	if err := os.RemoveAll(name); err != nil {
		f.Fatal(err)
	}
}

// where a device is in /sys/devices.
func (f *files) where(port string) string {
	controller := "pci0000:00/0000:00:14.0"
	if strings.HasPrefix(port, "1-") {
		controller = "platform/vhci_hcd.0"
	}
	return filepath.Join("devices", controller, "usb"+port[:1], port)
}

// plug makes a device without interfaces, and its node. It returns the node.
func (f *files) plug(port, vendor, product string) string {
	f.Helper()
	f.plugged++
	dir := filepath.Join(f.sys, f.where(port))
	f.write(filepath.Join(dir, "idVendor"), vendor)
	f.write(filepath.Join(dir, "idProduct"), product)
	f.write(filepath.Join(dir, "busnum"), "7")
	f.write(filepath.Join(dir, "devnum"), fmt.Sprint(f.plugged))
	f.write(filepath.Join(dir, "dev"), fmt.Sprintf("189:%d", 6*128+f.plugged-1))
	f.write(filepath.Join(dir, "authorized"), "1")
	f.link(f.folder(port), filepath.Join("../../..", f.where(port)))
	node := fmt.Sprintf("bus/usb/007/%03d", f.plugged)
	f.write(filepath.Join(f.dev, node), "")
	return node
}

// plugInterface adds an interface to a device: "1-1:1.0".
func (f *files) plugInterface(path, class, protocol, driver string) {
	f.Helper()
	inside := filepath.Join(f.where(portOf(path)), path)
	f.write(filepath.Join(f.sys, inside, "bInterfaceClass"), class)
	f.write(filepath.Join(f.sys, inside, "bInterfaceProtocol"), protocol)
	f.link(f.folder(path), filepath.Join("../../..", inside))
	f.bind(path, driver)
}

// bind gives an interface to a driver, or to none.
func (f *files) bind(path, driver string) {
	f.Helper()
	link := filepath.Join(f.sys, f.where(portOf(path)), path, "driver")
	f.remove(link)
	if driver != "" {
		f.link(link, "../../../../../../bus/usb/drivers/"+driver)
	}
}

// plugKey plugs in a YubiKey as it should be.
func (f *files) plugKey(port string) key {
	f.Helper()
	f.plug(port, "1050", "0407")
	f.plugInterface(port+":1.0", "03", "01", "usbhid")
	f.plugInterface(port+":1.1", "03", "00", "usbhid")
	k, ok := f.find(port + ":1.0")
	if !ok {
		f.Fatalf("there is no key on %s", port)
	}
	return k
}

func (f *files) unplug(port string) {
	f.Helper()
	k, _ := f.key(port)
	f.remove(filepath.Join(f.dev, k.node))
	links, err := filepath.Glob(f.folder(port + "*"))
	if err != nil {
		f.Fatal(err)
	}
	for _, l := range links {
		f.remove(l)
	}
	f.remove(filepath.Join(f.sys, f.where(port)))
}

// runUdev makes udev run, and tell has it dealt with a key.
func (f *files) runUdev() { f.write(filepath.Join(f.udev, "control"), "") }

func (f *files) tell(k key) { f.write(filepath.Join(f.udev, "data", "c"+k.number), "I:1") }

// process makes a program that has a device node open.
func (f *files) process(number int, name, node string) {
	f.Helper()
	dir := filepath.Join(f.proc, fmt.Sprint(number))
	f.write(filepath.Join(dir, "comm"), name)
	f.link(filepath.Join(dir, "fd/1"), "/dev/null")
	f.link(filepath.Join(dir, "fd/8"), filepath.Join(f.dev, node))
}
