//go:build guest

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/device/usbhid"
	"tokendesk/udev"
)

const accessKey device.Serial = 70000001

const look = 100 * time.Millisecond // between two calls of doctor

// usbNode is the device node of the key on a port.
func usbNode(t *testing.T, port string) string {
	t.Helper()
	var numbers [2]int
	for i, name := range []string{"busnum", "devnum"} {
		text, err := os.ReadFile(filepath.Join("/sys/bus/usb/devices", port, name))
		if err != nil {
			t.Fatal(err)
		}
		if numbers[i], err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("/dev/bus/usb/%03d/%03d", numbers[0], numbers[1])
}

// The rules give usb and hidraw nodes to the group, to nobody else, and to no seat; also after a bind event.
func TestRules(t *testing.T) {
	d := keyAlone(t)
	port := d.port(eyesKey)
	hidraw, err := filepath.Glob("/sys/bus/usb/devices/" + port + ":1.0/*/hidraw/hidraw*")
	if err != nil || len(hidraw) != 1 {
		t.Fatalf("%v, %v", hidraw, err)
	}
	group, err := user.LookupGroup(udev.Group)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, node := range []string{usbNode(t, port), "/dev/" + filepath.Base(hidraw[0])} {
			info, err := os.Stat(node)
			if err != nil {
				t.Fatal(err)
			}
			owner := info.Sys().(*syscall.Stat_t)
			if info.Mode()&fs.ModePerm != 0o660 || owner.Uid != 0 || fmt.Sprint(owner.Gid) != group.Gid {
				t.Errorf("%s has mode %v, owner %d, group %d", node, info.Mode(), owner.Uid, owner.Gid)
			}
			if n, err := unix.Getxattr(node, "system.posix_acl_access", nil); err != unix.ENODATA {
				t.Errorf("%s has an access list of %d bytes, %v", node, n, err)
			}
			about := run(t, nil, "udevadm", "info", "--name", node)
			for line := range strings.Lines(about) {
				if strings.HasPrefix(line, "E: CURRENT_TAGS=") && strings.Contains(line, ":uaccess:") {
					t.Errorf("%s is tagged for whoever sits at the screen: %s", node, line)
				}
			}
			if strings.HasPrefix(node, "/dev/bus") && !strings.Contains(about, "E: TOKENDESK_CAPABILITIES=otp\n") {
				t.Errorf("the hardware database does not know %s:\n%s", node, about)
			}
		}
		run(t, nil, "udevadm", "trigger", "--settle", "-c", "bind", "/sys/bus/usb/devices/"+port)
	}
}

// expectProblem waits until doctor finds something that contains all these words, in text or cure.
func (d *desk) expectProblem(words ...string) {
	d.Helper()
	var found []api.Finding
	ctx := d.bounded()
	for ; ctx.Err() == nil; <-time.After(look) {
		found = d.doctor()
		for _, f := range found {
			all := !f.OK
			for _, w := range words {
				all = all && strings.Contains(f.Text+"\n"+f.Cure, w)
			}
			if all {
				d.Logf("doctor: %s\n  cure: %s", f.Text, f.Cure)
				return
			}
		}
	}
	d.Errorf("doctor does not find a problem with %q: %+v", words, found)
}

func (d *desk) expectHealthy() {
	d.Helper()
	if err := d.AwaitKeys(d.bounded(), accessKey); err != nil {
		d.Fatal(err)
	}
	var found []api.Finding
	ctx := d.bounded()
	for ; ctx.Err() == nil; <-time.After(look) {
		found = d.doctor()
		healthy, seen := true, false
		for _, f := range found {
			healthy = healthy && f.OK
			seen = seen || strings.Contains(f.Text, string(device.YubiKeyID(accessKey))) && strings.Contains(f.Text, "EMULATED")
		}
		if healthy && seen {
			return
		}
	}
	d.Errorf("doctor is not content: %+v", found)
}

// eve may use the TPM and is not in the group of the keys: doctor names her, the group and the command.
func TestDoctorWithoutTheGroup(t *testing.T) {
	tss, err := user.LookupGroup("tss")
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.ParseUint(tss.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	withTPM := &syscall.Credential{Uid: eve.Uid, Gid: eve.Gid, Groups: []uint32{uint32(id)}}
	d := startWith(t, world.Options{Keys: []string{present(accessKey)}, Officer: withTPM})
	d.expectProblem("no permission", "port "+d.port(accessKey), "group tokendesk", "usermod -aG tokendesk eve")
}

// What can be wrong with one key is told apart, and is gone when its cause is.
func TestDoctor(t *testing.T) {
	d := start(t, present(accessKey))
	d.expectHealthy()
	port := d.port(accessKey)
	node := usbNode(t, port)

	t.Run("the rules are not there", func(t *testing.T) {
		d := &desk{T: t, World: d.World}
		if err := os.Chown(node, 0, 0); err != nil {
			t.Fatal(err)
		}
		d.expectProblem("no permission", node, "root", udev.RulesFile)
		run(t, nil, "udevadm", "trigger", "--settle", "/sys/bus/usb/devices/"+port)
		d.expectHealthy()
	})
	t.Run("another program of this user holds it", func(t *testing.T) {
		d := &desk{T: t, World: d.World}
		release, pid := hold(t, officer, port)
		d.expectProblem("held by another program", "e2e.test", strconv.Itoa(pid))
		release()
		d.expectHealthy()
	})
	t.Run("a program of another user holds it", func(t *testing.T) {
		d := &desk{T: t, World: d.World}
		release, _ := hold(t, nil, port)
		d.expectProblem("held by another program", "fuser", node)
		release()
		d.expectHealthy()
	})
	t.Run("the kernel has no driver", func(t *testing.T) {
		d := &desk{T: t, World: d.World}
		run(t, nil, "modprobe", "--remove", "usbhid")
		d.expectProblem("keyboard driver", "modprobe usbhid")
		run(t, nil, "modprobe", "usbhid")
		d.expectHealthy()
	})
	t.Run("the kernel's driver was taken away", func(t *testing.T) {
		d := &desk{T: t, World: d.World}
		if err := os.WriteFile("/sys/bus/usb/drivers/usbhid/unbind", []byte(port+":1.0"), 0); err != nil {
			t.Fatal(err)
		}
		d.expectHealthy() // by doctor at the latest
		if driver := keyboardDriver(t, port); driver != "usbhid" {
			t.Errorf("the keyboard has the driver %q", driver)
		}
	})
}

// Devices that the desk cannot use are named with the reason.
func TestDoctorOfUnusableDevices(t *testing.T) {
	d := start(t, "serial=70000002,fw=1.3.2,product=0010")
	d.expectProblem("firmware 2.2.0 or newer", "1.3.2", "newer key")
	for _, c := range []struct {
		product uint16
		words   []string
	}{
		{0x0999, []string{"not a token", "1050:0999"}},
		{0x0120, []string{"Security Key", "OTP"}},
		{0x0406, []string{"YubiKey", "OTP", "ykman config usb --enable OTP"}},
	} {
		port := plugStranger(t, c.product)
		d.expectProblem(append(c.words, "port "+port)...)
	}
}

const holdVariable = "TOKENDESK_E2E_HOLD"

// hold has another process open the key on a port until release is called.
func hold(t *testing.T, as *syscall.Credential, port string) (release func(), pid int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "e2e.test"))
	cmd.Env = append(os.Environ(), holdVariable+"="+port+":1.0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Dir = "/"
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, len(holding))
	if _, err := stdout.Read(word); err != nil || string(word) != holding {
		t.Fatalf("the holder says %q, %v", word, err)
	}
	return func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}, cmd.Process.Pid
}

const holding = "holding"

// holder is the other process of hold: it ends with its standard input.
func holder(path string) error {
	var r device.Report
	err := device.ErrBusy // the desk may be looking at it
	for tries := 0; errors.Is(err, device.ErrBusy) && tries < 100; tries++ {
		r, err = usbhid.Bus{}.Open(context.Background(), path)
	}
	if err != nil {
		return err
	}
	fmt.Print(holding)
	io.Copy(io.Discard, os.Stdin)
	return r.Close()
}

// While doctor looks again and again, another program takes the key, works with it and gives it back, undisturbed.
func TestOthersAreNotDisturbed(t *testing.T) {
	d := start(t, present(accessKey))
	d.expectHealthy()
	ctx, cancel := context.WithCancel(d.bounded())
	looks := make(chan int, 1)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			var found api.Findings
			_ = d.Client.Get(ctx, "/v1/doctor", nil, &found) // what it finds depends on the moment
		}
		looks <- n
	}()
	for range 10 {
		run(t, officer, "ykinfo", "-a")
	}
	cancel()
	if n := <-looks; n < 10 {
		t.Errorf("doctor has looked %d times only", n)
	}
	d.expectHealthy()
	if driver := keyboardDriver(t, d.port(accessKey)); driver != "usbhid" {
		t.Errorf("the keyboard has the driver %q", driver)
	}
}
