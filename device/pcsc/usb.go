package pcsc

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/ebfe/scard"
)

// usbChannel is in the high half of a channel's number if the reader is a USB device; bus and address are in the low half
// (PC/SC part 3, section 3.1.2, as libccid gives it).
const usbChannel = 0x0020

// place finds out which USB port a reader is plugged into, and whether that is one of the kernel's virtual host controller
// (rule D6). The reader is asked without touching its card; meanwhile nobody can have the card exclusively, so that it is
// done before anybody is told of the card, and never later. If it does not say, or could not be asked as another program has
// it, then it counts as emulated while there is any virtual device.
func place(reader string) (port string, emulated bool) {
	limited, cancel := context.WithTimeout(context.Background(), placeTime)
	defer cancel()
	var channel []byte
	if over, err := takeTurn(limited, reader); err == nil {
		told := make(chan []byte, 1)
		go func() {
			channel := channelOf(reader)
			over()
			told <- channel
		}()
		select {
		case channel = <-told:
		case <-limited.Done(): // pcscd waits for another program's transaction
		}
	}
	if len(channel) != 4 {
		return "", devices(sysfs).virtual()
	}
	return devices(sysfs).find(binary.NativeEndian.Uint32(channel))
}

// channelOf asks a reader for its channel; nil: it cannot be asked, or does not say.
func channelOf(reader string) []byte {
	c, err := establish()
	if err != nil {
		return nil
	}
	defer c.Release()
	card, err := c.Connect(reader, scard.ShareDirect, scard.ProtocolUndefined)
	if err != nil {
		return nil
	}
	defer card.Disconnect(scard.LeaveCard)
	channel, err := card.GetAttrib(scard.AttrChannelId)
	if err != nil {
		return nil
	}
	return channel
}

const sysfs = "/sys/bus/usb/devices"

// devices is the folder of sysfs that has one for each USB device.
type devices string

// portName is a device's folder: bus, and the ports on the way to it.
var portName = regexp.MustCompile(`^[0-9]+-[0-9]+(\.[0-9]+)*$`)

// ports lists the ports that something is plugged into.
func (d devices) ports() (names []string) {
	entries, _ := os.ReadDir(string(d))
	for _, e := range entries {
		if portName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names
}

// find names the port of the device with a channel number.
func (d devices) find(channel uint32) (port string, emulated bool) {
	if channel>>16 != usbChannel {
		return "", false
	}
	for _, name := range d.ports() {
		if d.number(name, "busnum") == int(channel>>8&0xFF) && d.number(name, "devnum") == int(channel&0xFF) {
			return name, d.emulated(name)
		}
	}
	return "", d.virtual()
}

// virtual tells whether any device hangs on the virtual host controller.
func (d devices) virtual() bool {
	for _, name := range d.ports() {
		if d.emulated(name) {
			return true
		}
	}
	return false
}

// emulated is how package usbhid tells it.
func (d devices) emulated(port string) bool {
	target, err := os.Readlink(filepath.Join(string(d), port))
	return err == nil && strings.Contains(target, "/vhci_hcd.")
}

func (d devices) number(port, file string) int {
	text, err := os.ReadFile(filepath.Join(string(d), port, file))
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return -1
	}
	return n
}
