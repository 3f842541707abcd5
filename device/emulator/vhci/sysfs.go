package vhci

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// portFree is the state of a port that has no device (drivers/usb/usbip/usbip_common.h, VDEV_ST_NULL).
const portFree = 4

// host is this machine's virtual host controllers, as sysfs shows them.
type host struct {
	root     string                        // of sysfs
	store    func(file, text string) error // writes to an attribute
	vacancy  time.Duration                 // how long to wait for a free port
	patience time.Duration                 // how long the kernel may take to let go
}

func thisHost() host {
	// The hub works on one port after the other, a second each under an emulated processor.
	return host{root: "/sys", store: storeAttribute, vacancy: 5 * time.Second, patience: 30 * time.Second}
}

func storeAttribute(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// platform is the folder of a controller. The first one has the attributes of all.
func (h host) platform(controller int) string {
	return filepath.Join(h.root, "devices", "platform", fmt.Sprintf("vhci_hcd.%d", controller))
}

// place is a port of a root hub that takes full-speed devices.
type place struct {
	number int    // as the attributes count
	name   string // of a device there: "1-1"
	folder string // of a device there
	free   bool
}

// places lists the ports of every controller, in the kernel's order.
func (h host) places() ([]place, error) {
	var all []place
	for controller := 0; ; controller++ {
		file := filepath.Join(h.platform(0), "status")
		if controller > 0 {
			file += "." + strconv.Itoa(controller)
		}
		status, err := os.ReadFile(file)
		switch {
		case errors.Is(err, fs.ErrNotExist) && controller > 0:
			return all, nil
		case errors.Is(err, fs.ErrNotExist):
			return nil, errors.New(`this kernel has no virtual host controller; load it as root with "modprobe vhci-hcd"`)
		case err != nil:
			return nil, err
		}
		ports, err := parseStatus(string(status))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		hub, bus, ok := h.hub(controller)
		if !ok {
			continue // not ready yet
		}
		for i, p := range ports {
			p.name = fmt.Sprintf("%d-%d", bus, i+1)
			p.folder = filepath.Join(hub, p.name)
			// The port is freed before the hub has noticed; a device that came too early would be
			// taken for the one that left.
			_, err := os.Lstat(p.folder)
			p.free = p.free && errors.Is(err, fs.ErrNotExist)
			all = append(all, p)
		}
	}
}

// hub finds the root hub of a controller that is not for SuperSpeed, and its bus number.
func (h host) hub(controller int) (folder string, bus int, ok bool) {
	hubs, _ := filepath.Glob(filepath.Join(h.platform(controller), "usb*"))
	for _, hub := range hubs {
		speed, err := readAttribute(hub, "speed")
		if err != nil || speed != "480" {
			continue
		}
		if bus, err = strconv.Atoi(strings.TrimPrefix(filepath.Base(hub), "usb")); err == nil {
			return hub, bus, true
		}
	}
	return "", 0, false
}

func readAttribute(folder, name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(folder, name))
	return strings.TrimSpace(string(text)), err
}

// parseStatus reads the status of one controller, in its order of ports; those for SuperSpeed are left out.
//
//	hub port sta spd dev      sockfd local_busid
//	hs  0000 004 000 00000000 000000 0-0
//	ss  0008 004 000 00000000 000000 0-0
func parseStatus(text string) ([]place, error) {
	var ports []place
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "hs" {
			if len(f) > 0 && f[0] != "hub" && f[0] != "ss" {
				return nil, fmt.Errorf("cannot read the line %.80q; the kernel is older than 4.13 or newer than this program", line)
			}
			continue
		}
		number, err := strconv.ParseUint(f[1], 10, 31)
		state, err2 := strconv.ParseUint(f[2], 10, 31)
		if err = errors.Join(err, err2); err != nil {
			return nil, fmt.Errorf("cannot read the line %.80q: %w", line, err)
		}
		ports = append(ports, place{number: int(number), free: state == portFree})
	}
	return ports, nil
}
