package pcsc

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"tokendesk/device"
)

func TestHoldersAreNamed(t *testing.T) {
	proc := t.TempDir()
	process := func(pid int, name, maps string) {
		folder := filepath.Join(proc, strconv.Itoa(pid))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"comm": name + "\n", "maps": maps} {
			if err := os.WriteFile(filepath.Join(folder, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	const library = "7f00-7f01 r-xp 0 08:01 17 /usr/lib/x86_64-linux-gnu/libpcsclite.so.1.0.0\n"
	process(os.Getpid(), "me", library)
	process(10, "pcscd", library)
	process(11, "innocent", "")
	if who := holders(proc); len(who) != 0 {
		t.Error(who)
	}
	expectError(t, busy(nil), device.ErrBusy, "end the program that uses smart cards (as root: fuser -v /run/pcscd/pcscd.comm names some), and try again")
	process(12, "ykman", library)
	who := holders(proc)
	if !slices.Equal(who, []string{"ykman (process 12)"}) {
		t.Error(who)
	}
	expectError(t, busy(who), device.ErrBusy, "wait until it has finished, or end it, and try again")
	process(13, "scdaemon", "") // of another user, whose files cannot be read
	err := busy(holders(proc))
	expectError(t, err, device.ErrBusy, "gpgconf --kill scdaemon, as the user who runs it, and try again")
	if want := "the device is held by another program: scdaemon (process 13) of GnuPG has the card"; err.Err.Error() != want {
		t.Errorf("%q, not %q", err.Err, want)
	}
}

func TestUSBPlaces(t *testing.T) {
	root := t.TempDir()
	plug := func(name, controller, bus, address string) {
		folder := filepath.Join(root, "devices", controller, name)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"busnum": bus, "devnum": address} {
			if err := os.WriteFile(filepath.Join(folder, file), []byte(text+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(root, "bus"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../devices/"+controller+"/"+name, filepath.Join(root, "bus", name)); err != nil {
			t.Fatal(err)
		}
	}
	d := devices(filepath.Join(root, "bus"))
	expect := func(channel uint32, port string, emulated bool) {
		t.Helper()
		if p, e := d.find(channel); p != port || e != emulated {
			t.Errorf("channel %x: port %q, emulated %v", channel, p, e)
		}
	}
	expect(usbChannel<<16|1<<8|4, "", false)
	plug("1-1", "pci0000:00", "1", "4")
	plug("1-1:1.0", "pci0000:00", "1", "5") // an interface
	plug("usb1", "pci0000:00", "1", "1")
	expect(usbChannel<<16|1<<8|4, "1-1", false)
	expect(usbChannel<<16|1<<8|5, "", false)
	expect(1<<8|4, "", false) // a serial reader
	plug("3-1.2", "platform/vhci_hcd.0", "3", "200")
	expect(usbChannel<<16|3<<8|200, "3-1.2", true)
	expect(usbChannel<<16|1<<8|4, "1-1", false)
	expect(usbChannel<<16|9<<8|9, "", true) // it may be the virtual one
}
