package usbhid

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"tokendesk/device"
)

// tree is where the kernel and udev show devices as files.
type tree struct {
	sys  string // sysfs
	dev  string // device nodes
	udev string // what udev knows
	proc string // processes
}

// key is a device of a vendor that the desk knows, as it is plugged in once: when it comes back, its node is
// another one.
type key struct {
	info       device.Info
	node       string // below /dev: "bus/usb/001/002"
	number     string // of the node: "189:1"
	unfinished bool   // does not have its HID interface yet
	reportSize int    // of that interface's feature reports
}

const (
	hidClass         = "03"
	keyboardProtocol = "01" // boot keyboard
)

// portName is a device's folder in sysfs: bus, and the ports on the way to it.
var portName = regexp.MustCompile(`^[0-9]+-[0-9]+(\.[0-9]+)*$`)

func (t tree) folder(name string) string { return filepath.Join(t.sys, "bus/usb/devices", name) }

func (t tree) nodePath(k key) string { return filepath.Join(t.dev, k.node) }

// keys lists what is plugged in and of a known vendor. It opens no device, and reads nothing for which the
// kernel waits until a device has answered.
func (t tree) keys() ([]key, error) {
	entries, err := os.ReadDir(t.folder(""))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot see USB devices: this machine has no USB (%s is absent)", t.folder(""))
	}
	if err != nil {
		return nil, fmt.Errorf("cannot see USB devices: %w", err)
	}
	var keys []key
	for _, e := range entries {
		if !portName.MatchString(e.Name()) {
			continue
		}
		if k, ok := t.key(e.Name()); ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b key) int { return cmp.Compare(a.info.Path, b.info.Path) })
	return keys, nil
}

// find looks up the key that Watch has told with this path; it is gone if there is none now.
func (t tree) find(path string) (key, bool) {
	port := portOf(path)
	if !portName.MatchString(port) {
		return key{}, false
	}
	k, ok := t.key(port)
	return k, ok && k.info.Path == path
}

// portOf cuts the port out of the name of an interface: "1-1:1.0" is on port "1-1".
func portOf(path string) string {
	port, _, _ := strings.Cut(path, ":")
	return port
}

// key reads the folder of a device. It is not ok if that is none for this bus, or being removed.
func (t tree) key(port string) (key, bool) {
	vendor, err := t.number(port, "idVendor", 16)
	product, err1 := t.number(port, "idProduct", 16)
	model, known := device.FindModel(vendor, product)
	if err != nil || model.ReportSize() == 0 && vendor != device.YubicoVendor {
		return key{}, false
	}
	bus, err2 := t.number(port, "busnum", 10)
	dev, err3 := t.number(port, "devnum", 10)
	number, err4 := t.read(port, "dev")
	emulated, err5 := t.emulated(port)
	if errors.Join(err1, err2, err3, err4, err5) != nil {
		return key{}, false
	}
	k := key{
		info: device.Info{Path: port, Port: port, Vendor: vendor, Product: product, Emulated: emulated},
		node: fmt.Sprintf("bus/usb/%03d/%03d", bus, dev), number: number, reportSize: model.ReportSize(),
	}
	t.judge(&k, model, known)
	return k, true
}

// judge finds the HID interface, or says why it cannot be used.
func (t tree) judge(k *key, model device.Model, known bool) {
	identity := fmt.Sprintf("%04x:%04x", k.info.Vendor, k.info.Product)
	authorized, err := t.read(k.info.Port, "authorized")
	switch face := t.face(k.info.Port, model); {
	case err == nil && authorized == "0":
		k.info.Problem = fmt.Sprintf("the device %s is not authorised to work on this machine", identity)
		k.info.Cure = fmt.Sprintf("usbguard allow-device, or as root: echo 1 > %s", filepath.Join(t.folder(k.info.Port), "authorized"))
	case !known:
		k.info.Problem = "this is not a token we know: " + identity
		k.info.Cure = "use a YubiKey with the OTP application"
	case model.ReportSize() == 0:
		k.info.Problem, k.info.Cure = withoutOTP(model)
	case face == "" && model.Has(device.OTP):
		k.unfinished = true
		k.info.Problem = fmt.Sprintf("this %s (%s) shows no OTP keyboard", model.Name, identity)
		k.info.Cure = "pull it and insert it again; if that does not help: ykman config usb --enable OTP"
	case face == "":
		k.unfinished = true
		k.info.Problem = fmt.Sprintf("this %s (%s) shows no HID interface", model.Name, identity)
		k.info.Cure = "pull it and insert it again"
	default:
		k.info.Path = face
	}
}

// withoutOTP says what a model without OTP is. The identity 0402 is that of newer Security Keys, and of
// YubiKeys that have all but FIDO switched off.
func withoutOTP(m device.Model) (problem, cure string) {
	if m.Product == 0x0120 {
		return m.Name + " has no OTP application", "use a YubiKey with the OTP application"
	}
	cure = "switch it on: ykman config usb --enable OTP (before firmware 5: ykman config mode OTP+FIDO+CCID)"
	if m.Capabilities == device.FIDO {
		cure += "; a Security Key has no OTP application at all"
	}
	return "this " + m.Name + " has OTP switched off", cure
}

// face names the HID interface that is worked with, in whatever configuration is active: "1-1:1.0". The OTP application of
// YubiKeys is a boot keyboard and number 0. Nitrokeys have one HID interface, behind the others of a Storage; old ones are
// keyboards, new ones are not (nitrokey-pro-firmware, CCIDHID_usb_desc.c; nitrokey-storage-firmware, usb_descriptors.h).
func (t tree) face(port string, model device.Model) string {
	entries, err := os.ReadDir(t.folder(port))
	if err != nil {
		return ""
	}
	for _, e := range entries {
		number, ok := interfaceNumber(e.Name())
		if !ok || !strings.HasPrefix(e.Name(), port+":") {
			continue
		}
		class, err1 := t.read(e.Name(), "bInterfaceClass")
		protocol, err2 := t.read(e.Name(), "bInterfaceProtocol")
		if err1 != nil || err2 != nil || class != hidClass {
			continue
		}
		if model.Has(device.NitrokeySlots) || number == otpNumber && protocol == keyboardProtocol {
			return e.Name()
		}
	}
	return ""
}

// interfaceNumber cuts the number out of the name of an interface: that of "1-1:1.0" is 0.
func interfaceNumber(path string) (number int, ok bool) {
	_, inside, _ := strings.Cut(path, ":")
	_, text, _ := strings.Cut(inside, ".")
	number, err := strconv.Atoi(text)
	return number, err == nil
}

// claimed is the driver of an interface that a program has claimed.
const claimed = "usbfs"

// driver names what has the HID interface; "" if nothing has.
func (t tree) driver(k key) string {
	target, err := os.Readlink(filepath.Join(t.folder(k.info.Path), "driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// hasKeyboardDriver reports whether the kernel has the driver that the keys type through.
func (t tree) hasKeyboardDriver() bool {
	_, err := os.Stat(filepath.Join(t.sys, "bus/usb/drivers/usbhid"))
	return !errors.Is(err, fs.ErrNotExist)
}

// settled reports whether udev has dealt with the device, so that its node has its owner. Without udev there
// is nothing to wait for.
func (t tree) settled(k key) bool {
	if _, err := os.Stat(filepath.Join(t.udev, "control")); err != nil {
		return true
	}
	_, err := os.Stat(filepath.Join(t.udev, "data", "c"+k.number))
	return err == nil
}

// waiting reports whether udev has events to deal with (libudev: udev_queue_get_queue_is_empty).
func (t tree) waiting() bool {
	_, err := os.Stat(filepath.Join(t.udev, "queue"))
	return err == nil
}

// emulated reports whether the device hangs on the kernel's virtual host controller (rule D6).
func (t tree) emulated(port string) (bool, error) {
	target, err := os.Readlink(t.folder(port))
	return strings.Contains(target, "/vhci_hcd."), err
}

func (t tree) read(folder, file string) (string, error) {
	text, err := os.ReadFile(filepath.Join(t.folder(folder), file))
	return strings.TrimSpace(string(text)), err
}

func (t tree) number(folder, file string, base int) (uint16, error) {
	text, err := t.read(folder, file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, base, 16)
	return uint16(n), err
}
