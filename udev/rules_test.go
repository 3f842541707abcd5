package udev

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// key is what sysfs shows of a key with an OTP keyboard, FIDO and CCID, as far as udev looks at it.
func key(t *testing.T, root string, product uint16) {
	t.Helper()
	plug(t, root, 0x1050, product, "01", "00")
}

// nitrokey is what it shows of a Nitrokey Pro, or of a Nitrokey 3, whose HID interface is for FIDO.
func nitrokey(t *testing.T, root string, product uint16) {
	t.Helper()
	plug(t, root, 0x20A0, product, "00")
}

// plug makes the tree of a device whose HID interfaces have these protocols.
func plug(t *testing.T, root string, vendor, product uint16, protocols ...string) {
	t.Helper()
	const device = "devices/platform/vhci_hcd.0/usb1/1-1/"
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, target string) {
		t.Helper()
		from := filepath.Join(root, filepath.Dir(name))
		relative, err := filepath.Rel(from, filepath.Join(root, target))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(from, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(relative, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("bus/hid/drivers_probe", "")
	link("bus/usb/devices/1-1", device)
	link(device+"subsystem", "bus/usb")
	write(device+"uevent", "MAJOR=189\nMINOR=1\nDEVNAME=bus/usb/001/002\nDEVTYPE=usb_device\nDRIVER=usb")
	write(device+"dev", "189:1")
	write(device+"idVendor", fmt.Sprintf("%04x", vendor))
	write(device+"idProduct", fmt.Sprintf("%04x", product))
	for n, protocol := range protocols {
		usb := fmt.Sprintf("%s1-1:1.%d/", device, n)
		link(usb+"subsystem", "bus/usb")
		write(usb+"uevent", "DEVTYPE=usb_interface")
		write(usb+"bInterfaceNumber", fmt.Sprintf("%02d", n))
		write(usb+"bInterfaceClass", "03")
		write(usb+"bInterfaceProtocol", protocol)
		hid := fmt.Sprintf("%s0003:1050:0407.000%d/", usb, n+1)
		link(hid+"subsystem", "bus/hid")
		write(hid+"uevent", "HID_ID=0003:00001050:00000407")
		raw := fmt.Sprintf("%shidraw/hidraw%d/", hid, n)
		link(raw+"subsystem", "class/hidraw")
		link(fmt.Sprintf("class/hidraw/hidraw%d", n), raw)
		write(raw+"uevent", fmt.Sprintf("MAJOR=240\nMINOR=%d\nDEVNAME=hidraw%d", n, n))
		write(raw+"dev", fmt.Sprintf("240:%d", n))
	}
}

// others are rules that hand keys to whoever sits at the screen, in each way that is in use.
const others = `ACTION!="remove", ATTRS{idVendor}=="1050|20a0", ENV{ID_SECURITY_TOKEN}="1"
ACTION!="remove", SUBSYSTEM=="hidraw", ATTRS{idVendor}=="1050|20a0", TAG+="uaccess", GROUP="plugdev", MODE="0664"
SUBSYSTEM=="usb|hidraw", RUN+="/bin/earlier"
`

// decide asks the machine's own udev, with all of its rules and ours, what it would do about a device of the
// tree in sys. It returns the lines that say so. Nothing outside of a private mount namespace is changed.
func decide(t *testing.T, sys, action, device string) []string {
	t.Helper()
	etc := t.TempDir()
	files := map[string]string{
		"rules.d/" + RulesFile:        Rules(),
		"rules.d/69-somebody.rules":   others,
		"group":                       "root:x:0:\nplugdev:x:46:\n" + Group + ":x:4711:\n",
		"rules.d/90-later-rule.rules": `SUBSYSTEM=="usb|hidraw", RUN+="/bin/later", TAG+="systemd", ENV{SYSTEMD_WANTS}="later.service"`,
	}
	if err := os.Mkdir(filepath.Join(etc, "rules.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "--map-root-user", "--mount", "sh", "-ec", `
		mount -t tmpfs run /run
		mount -t tmpfs dev /dev
		mount --bind "$1/rules.d" /etc/udev/rules.d
		mount --bind "$1/group" /etc/group
		mount --rbind "$2" /sys
		exec udevadm test --action="$3" "$4"`, "sh", etc, sys, action, device)
	cmd.Env = append(os.Environ(), "SYSTEMD_DEVICE_VERIFY_SYSFS=0") // it is none, and udev would see that
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if _, ours, ok := strings.Cut(line, RulesFile+":"); ok {
			_, what, _ := strings.Cut(ours, " ")
			lines = append(lines, what)
		} else if strings.HasPrefix(line, "run: ") || strings.HasPrefix(line, "CURRENT_TAGS=") || strings.HasPrefix(line, "SYSTEMD_WANTS=") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestUdevGivesTheKeysToTheDesk(t *testing.T) {
	const usb, keyboard, fido = "/sys/bus/usb/devices/1-1", "/sys/class/hidraw/hidraw0", "/sys/class/hidraw/hidraw1"
	for _, test := range []struct {
		name    string
		plug    func(t *testing.T, root string, product uint16)
		product uint16
		device  string
		ours    bool
	}{
		{"the device", key, 0x0407, usb, true},
		{"its keyboard", key, 0x0407, keyboard, true},
		{"its FIDO interface", key, 0x0407, fido, false},
		{"a device without OTP", key, 0x0402, usb, false},
		{"a keyboard of something else", key, 0x0402, keyboard, false},
		{"a Nitrokey Pro", nitrokey, 0x4108, usb, true},
		{"its slots", nitrokey, 0x4108, keyboard, true},
		{"a Nitrokey 3", nitrokey, 0x42B2, usb, false},
		{"its FIDO interface", nitrokey, 0x42B2, keyboard, false},
	} {
		for _, action := range []string{"add", "bind", "change"} {
			t.Run(test.name+" "+action, func(t *testing.T) {
				sys := t.TempDir()
				test.plug(t, sys, test.product)
				got := decide(t, sys, action, test.device)
				open := slices.Contains(got, "run: 'uaccess'")
				tagged := slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, "TAGS=") && strings.Contains(line, ":uaccess:") })
				given := slices.Contains(got, "GROUP 4711") && slices.Contains(got, "MODE 0660")
				if open == test.ours || tagged == test.ours || given != test.ours {
					t.Errorf("open to the seat: %v, tagged for it: %v, given to the desk: %v\n%s", open, tagged, given, strings.Join(got, "\n"))
				}
			})
		}
	}
}

// Nothing but ours is run for the desk's nodes, whichever rules ask for it; units are still started. What is not
// the desk's is left alone, and so are removals.
func TestNothingElseIsRun(t *testing.T) {
	const usb, keyboard, fido = "/sys/bus/usb/devices/1-1", "/sys/class/hidraw/hidraw0", "/sys/class/hidraw/hidraw1"
	sys := t.TempDir()
	key(t, sys, 0x0407)
	for what, ours := range map[string]bool{
		"add " + usb: true, "bind " + usb: true, "change " + usb: true, "add " + keyboard: true, "change " + keyboard: true,
		"add " + fido: false, "remove " + usb: false, "remove " + keyboard: false,
	} {
		action, device, _ := strings.Cut(what, " ")
		var run []string
		got := decide(t, sys, action, device)
		for _, line := range got {
			if command, ok := strings.CutPrefix(line, "run: "); ok {
				run = append(run, command)
			}
		}
		if ours && !slices.Equal(run, []string{"'kmod load usbhid'"}) {
			t.Errorf("%s runs %q", what, run)
		}
		if !ours && (!slices.Contains(run, "'/bin/earlier'") || !slices.Contains(run, "'/bin/later'")) {
			t.Errorf("%s runs only %q", what, run)
		}
		if action != "remove" && !slices.Contains(got, "SYSTEMD_WANTS=later.service") {
			t.Errorf("%s starts no unit: %q", what, got)
		}
	}
}

// What udev does not understand it says, and skips.
func TestUdevUnderstandsTheRules(t *testing.T) {
	sys := t.TempDir()
	key(t, sys, 0x0407)
	understood := []string{"GROUP 4711", "MODE 0660", "RUN 'kmod load usbhid'"}
	if got := decide(t, sys, "add", "/sys/bus/usb/devices/1-1"); !slices.Equal(got[:min(3, len(got))], understood) {
		t.Errorf("%q", got)
	}
	if got := decide(t, sys, "remove", "/sys/bus/usb/devices/1-1"); slices.Contains(got, "MODE 0660") {
		t.Errorf("a removal is handled: %q", got)
	}
}
