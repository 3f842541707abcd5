package udev

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/device"
)

var write = flag.Bool("write", false, "write the generated files anew")

func TestFilesAreCurrent(t *testing.T) {
	for name, text := range map[string]string{RulesFile: Rules(), HwdbFile: Hwdb()} {
		if *write {
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("%s is not what the models say: run go generate ./udev (%v)", name, err)
		}
	}
}

// The keys that the desk opens are taken from the seat's user; those that it only names are not.
func TestRulesAreAboutWhatIsOpened(t *testing.T) {
	for _, m := range device.Models {
		if in := strings.Contains(Rules(), fmt.Sprintf("%04x", m.Product)); in != (m.ReportSize() != 0) {
			t.Errorf("%04x:%04x: in the rules: %v, size of reports: %d", m.Vendor, m.Product, in, m.ReportSize())
		}
	}
}

// systemd's own tool compiles the database and finds every model in it.
func TestHwdbFindsEveryModel(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "etc/udev/hwdb.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, HwdbFile), []byte(Hwdb()), 0o644); err != nil {
		t.Fatal(err)
	}
	hwdb := func(args ...string) string {
		out, err := exec.Command("systemd-hwdb", append([]string{"--root", root}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("systemd-hwdb %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if complaint := hwdb("--strict", "update"); complaint != "" {
		t.Fatal(complaint)
	}
	for _, m := range device.Models {
		// The form that udev asks for a usb_device: with the product's own name behind the numbers.
		found := hwdb("query", fmt.Sprintf("usb:v%04Xp%04X:what it calls itself", m.Vendor, m.Product))
		capabilities := "_CAPABILITIES="
		switch {
		case m.Has(device.OTP):
			capabilities += "otp"
		case m.Has(device.NitrokeySlots):
			capabilities += "hotp"
		}
		vendor := map[uint16]string{0x1050: "Yubico", 0x20A0: "Nitrokey", 0x316D: "Purism"}[m.Vendor]
		for _, want := range []string{"ID_VENDOR_FROM_DATABASE=" + vendor + "\n", "ID_MODEL_FROM_DATABASE=" + m.Name + " ", capabilities} {
			if !strings.Contains(found, want) {
				t.Errorf("%04x:%04x: no %q in\n%s", m.Vendor, m.Product, want, found)
			}
		}
	}
	if found := hwdb("query", "usb:v1050p0200:Gnubby"); found != "" {
		t.Errorf("a stranger is named:\n%s", found)
	}
}
