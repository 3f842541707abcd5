package udev

import (
	"encoding/binary"
	"strings"
	"testing"
)

// Messages as Debian 12 sends them when a key is plugged in, shortened in the middle.
var (
	fromKernel = []byte("add@/devices/platform/vhci_hcd.0/usb1/1-1\x00ACTION=add\x00DEVPATH=/devices/platform/vhci_hcd.0/usb1/1-1\x00" +
		"SUBSYSTEM=usb\x00MAJOR=189\x00MINOR=1\x00DEVNAME=bus/usb/001/002\x00DEVTYPE=usb_device\x00PRODUCT=1050/405/543\x00SEQNUM=1312\x00")
	fromUdev = udevMessage("UDEV_DATABASE_VERSION=1\x00ACTION=add\x00DEVPATH=/devices/platform/vhci_hcd.0/usb1/1-1\x00SUBSYSTEM=usb\x00" +
		"DEVNAME=/dev/bus/usb/001/002\x00DEVTYPE=usb_device\x00ID_MODEL=YubiKey_OTP=CCID\x00")
	plugged = Event{Action: "add", Path: "/devices/platform/vhci_hcd.0/usb1/1-1", Subsystem: "usb", DevType: "usb_device"}
)

func udevMessage(properties string) []byte {
	m := make([]byte, udevHeaderSize, udevHeaderSize+len(properties))
	copy(m, udevPrefix)
	binary.BigEndian.PutUint32(m[8:], udevMagic)
	binary.NativeEndian.PutUint32(m[12:], udevHeaderSize)
	binary.NativeEndian.PutUint32(m[16:], udevHeaderSize)
	binary.NativeEndian.PutUint32(m[20:], uint32(len(properties)))
	return append(m, properties...)
}

func TestParse(t *testing.T) {
	if got, err := parseKernel(fromKernel); err != nil || got != plugged {
		t.Errorf("%+v, %v", got, err)
	}
	settled := plugged
	settled.Settled = true
	if got, err := parseUdev(fromUdev); err != nil || got != settled {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	udev := func(change func(m []byte)) []byte {
		m := append([]byte(nil), fromUdev...)
		change(m)
		return m
	}
	for name, m := range map[string][]byte{
		"nothing":             nil,
		"a part of a header":  fromUdev[:39],
		"a kernel event":      fromKernel,
		"another magic":       udev(func(m []byte) { m[8]++ }),
		"another prefix":      udev(func(m []byte) { m[0]++ }),
		"offset in header":    udev(func(m []byte) { binary.NativeEndian.PutUint32(m[16:], 39) }),
		"offset behind":       udev(func(m []byte) { binary.NativeEndian.PutUint32(m[16:], 1<<20) }),
		"length behind":       udev(func(m []byte) { m[20]++ }),
		"sum that overflows":  udev(func(m []byte) { copy(m[16:24], strings.Repeat("\xff", 8)) }),
		"no properties":       udevMessage(""),
		"without a subsystem": udevMessage("ACTION=add\x00DEVPATH=/devices/x\x00"),
	} {
		if e, err := parseUdev(m); err == nil {
			t.Errorf("%s is taken for %+v", name, e)
		}
	}
	for name, m := range map[string]string{
		"nothing":        "",
		"a udev event":   string(fromUdev),
		"no path":        "add\x00ACTION=add\x00DEVPATH=/devices/x\x00SUBSYSTEM=usb\x00",
		"no properties":  "add@/devices/x\x00",
		"no zero at all": "add@/devices/x ACTION=add",
	} {
		if e, err := parseKernel([]byte(m)); err == nil {
			t.Errorf("%s is taken for %+v", name, e)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fromKernel)
	f.Add(fromUdev)
	f.Add(udevMessage("ACTION=x\x00DEVPATH=\x00SUBSYSTEM=\x00="))
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, parse := range []func([]byte) (Event, error){parseKernel, parseUdev} {
			e, err := parse(message)
			if err == nil && (e.Action == "" || e.Path == "" || e.Subsystem == "") {
				t.Errorf("%q is taken for %+v", message, e)
			}
			if fields := e.Action + e.Path + e.Subsystem + e.DevType; strings.Contains(fields, "\x00") || len(fields) > len(message) {
				t.Errorf("%q makes %+v", message, e)
			}
		}
	})
}
