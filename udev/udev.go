// Package udev is what the desk wants from udev: rules that hand the keys to the desk's group, a hardware
// database that names them, and a Monitor that tells of devices as they come and go.
//
// The rules and the database are generated from the table in package device and checked in, to be packaged
// as they are; "go generate ./udev" writes them anew. They are numbered 71 because distributions open
// security tokens to whoever sits at the screen by tagging them "uaccess" in files up to 70, and act on that
// tag in 73-seat-late.rules: in between that can be prevented.
//
// The Monitor speaks netlink itself; it needs neither cgo nor libudev, nor a running udev.
package udev

import (
	"fmt"
	"strings"

	"tokendesk/device"
)

//go:generate go test -run ^TestFilesAreCurrent$ . -write

// Group is the group that the rules give the keys to.
const Group = "tokendesk"

// The files as they are installed, in rules.d and hwdb.d below /etc/udev or /usr/lib/udev.
const (
	RulesFile = "71-tokendesk.rules"
	HwdbFile  = "71-tokendesk.hwdb"
)

const rulesHead = `# Generated from the models that the desk knows ("go generate ./udev"); do not edit.
#
# YubiKeys with the OTP application belong to the desk: whoever can write to the USB node can take the
# keyboard interface away from the kernel, and capture what the key types or overwrite its slots. So do Nitrokeys
# with slots: whoever can write to theirs has the codes of the slots, which ask for no PIN. Other
# rules tag such keys "uaccess", by which whoever sits at the screen would get in. The tag is taken off for
# logind; but 73-seat-late.rules of systemd 252 still acts on it, and is stopped by := alone, which closes
# the list of what is to be run. That list cannot be empty: it asks for the driver that the key types through.
#
# To administrators: when such a key is added, bound or changed, no other RUN entry of any rules takes effect for
# these two nodes of it. Those of files before this one are dropped from the list, those of later files are
# ignored, both RUN{program} and RUN{builtin}. To start something for a key, set ENV{SYSTEMD_WANTS} and
# TAG+="systemd" instead, which still work, as does RUN when it is removed.
#
# A key that was inserted before these rules came keeps its access list until it is inserted again.
#
# The FIDO interface has a hidraw node of its own, which browsers use: it is left alone. Smart cards are reached
# through pcscd, which needs no rule; programs of others that reach one by USB themselves, as scdaemon can, do so no more.
# Bind and change events match as well: what is set on add alone is gone after the next event.

ACTION=="remove", GOTO="tokendesk_end"

# The OTP keyboard of a YubiKey. One rule cannot match attributes of two parents, so these are two.
SUBSYSTEM=="hidraw", ATTRS{bInterfaceNumber}=="00", ATTRS{bInterfaceClass}=="03", ATTRS{bInterfaceProtocol}=="01", \
  ENV{.TOKENDESK_KEYBOARD}="1"
`

// give is what is done to the two nodes of a key.
const give = `
SUBSYSTEM=="usb", ENV{DEVTYPE}=="usb_device", ATTR{idVendor}=="%[1]s", ATTR{idProduct}=="%[2]s", \
  MODE="0660", GROUP="%[3]s", TAG-="uaccess", RUN{builtin}:="kmod load usbhid"
SUBSYSTEM=="hidraw", %[4]sATTRS{idVendor}=="%[1]s", ATTRS{idProduct}=="%[2]s", \
  MODE="0660", GROUP="%[3]s", TAG-="uaccess", RUN{builtin}:="kmod load usbhid"
`

const rulesTail = `
LABEL="tokendesk_end"
`

// Rules is the text of RulesFile: only identities with an HID interface that the desk works with are in it, because it opens no
// others.
func Rules() string {
	var text strings.Builder
	text.WriteString(rulesHead)
	for _, v := range vendors {
		var products []string
		for _, m := range device.Models {
			if m.Vendor == v.number && m.ReportSize() != 0 {
				products = append(products, fmt.Sprintf("%04x", m.Product))
			}
		}
		keyboard := ""
		if v.number == device.YubicoVendor {
			keyboard = `ENV{.TOKENDESK_KEYBOARD}=="1", ` // others have one HID interface
		}
		fmt.Fprintf(&text, give, fmt.Sprintf("%04x", v.number), strings.Join(products, "|"), Group, keyboard)
	}
	text.WriteString(rulesTail)
	return text.String()
}

// vendors are all in the table of models.
var vendors = []struct {
	number uint16
	name   string
}{
	{device.YubicoVendor, "Yubico"},
	{device.NitrokeyVendor, "Nitrokey"},
	{device.PurismVendor, "Purism"},
}

const hwdbHead = `# Generated from the models that the desk knows ("go generate ./udev"); do not edit.
`

// Hwdb is the text of HwdbFile. It names every identity, also those that the desk can only name.
func Hwdb() string {
	var text strings.Builder
	text.WriteString(hwdbHead)
	for _, m := range device.Models {
		applications := applicationsOf(m)
		fmt.Fprintf(&text, "\nusb:v%04Xp%04X*\n", m.Vendor, m.Product)
		fmt.Fprintf(&text, " ID_VENDOR_FROM_DATABASE=%s\n", vendorOf(m))
		fmt.Fprintf(&text, " ID_MODEL_FROM_DATABASE=%s %s\n", m.Name, strings.Join(applications, "+"))
		fmt.Fprintf(&text, " TOKENDESK_CAPABILITIES=%s\n", strings.ToLower(strings.Join(applications, " ")))
	}
	return text.String()
}

func vendorOf(m device.Model) string {
	for _, v := range vendors {
		if v.number == m.Vendor {
			return v.name
		}
	}
	panic(fmt.Sprintf("udev: vendor %04x has no name", m.Vendor))
}

func applicationsOf(m device.Model) []string {
	var names []string
	for _, c := range []struct {
		capability device.Capability
		name       string
	}{{device.OTP, "OTP"}, {device.NitrokeySlots, "HOTP"}, {device.FIDO, "FIDO"}, {device.CCID, "CCID"}} {
		if m.Has(c.capability) {
			names = append(names, c.name)
		}
	}
	return names
}
