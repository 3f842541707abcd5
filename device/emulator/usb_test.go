package emulator

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

// usbHost is a USB host on the other side of a key's face.
type usbHost struct {
	t *testing.T
	d vhci.Device
}

// plugged makes a key that is held by its USB face.
func pluggedIn(t *testing.T, o Options) (*YubiKey, usbHost) {
	t.Helper()
	o.Absent = true
	if o.Product == 0 {
		o.Product = 0x0401
	}
	k := newKey(t, o)
	k.moveToUSB()
	return k, usbHost{t, k.newFace()}
}

// request sends a control request given as the eight bytes of its setup packet, in hexadecimal.
func (h usbHost) request(setup string, data ...byte) (string, error) {
	h.t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(setup, " ", ""))
	if err != nil || len(b) != 8 {
		h.t.Fatalf("%q is no setup packet", setup)
	}
	word := func(i int) uint16 { return uint16(b[i]) | uint16(b[i+1])<<8 }
	out, err := h.d.Control(vhci.Setup{RequestType: b[0], Request: b[1], Value: word(2), Index: word(4), Length: word(6)}, data)
	return hex.EncodeToString(out), err
}

func (h usbHost) expect(want, setup string, data ...byte) {
	h.t.Helper()
	if got, err := h.request(setup, data...); err != nil || got != strings.ReplaceAll(want, " ", "") {
		h.t.Fatalf("%s answered %s, %v; expected %s", setup, got, err, want)
	}
}

// The descriptors are those that lsusb shows of a YubiKey 5 with firmware 5.4.3, as far as OTP goes.
func TestDescriptors(t *testing.T) {
	_, h := pluggedIn(t, Options{})
	h.expect("12 01 0002 00 00 00 40 5010 0104 4305 01 02 00 01", "80 06 0001 0000 1200")
	h.expect("09 02 2200 01 01 00 80 0f"+"09 04 00 00 01 03 01 01 00"+"09 21 1001 00 01 22 4700"+"07 05 81 03 0800 0a", "80 06 0002 0000 ff00")
	h.expect("04 03 0904", "80 06 0003 0000 ff00")
	h.expect("0e 03 590075006200690063006f00", "80 06 0103 0904 ff00")
	h.expect("18 03 59007500620069004b006500790020004f0054005000", "80 06 0203 0904 ff00")
	h.expect("09 21 1001 00 01 22 4700", "81 06 0021 0000 0900")
	if r, err := h.request("81 06 0022 0000 4700"); err != nil || len(r) != 2*0x47 || !strings.HasPrefix(r, "05010906a101") || !strings.HasSuffix(r, "b102c0") {
		t.Fatalf("report descriptor %s, %v", r, err)
	}
	_, h = pluggedIn(t, Options{Product: 0x0010, Firmware: device.Version{Major: 2, Minor: 3, Build: 1}})
	h.expect("12 01 0002 00 00 00 40 5010 1000 3102 01 02 00 01", "80 06 0001 0000 1200")
}

func TestUSBRequests(t *testing.T) {
	_, h := pluggedIn(t, Options{})
	h.expect("00", "80 08 0000 0000 0100") // not configured yet
	h.expect("", "00 09 0100 0000 0000")
	h.expect("01", "80 08 0000 0000 0100")
	h.expect("0000", "80 00 0000 0000 0200")
	h.expect("0000", "81 00 0000 0000 0200")
	h.expect("0000", "82 00 0000 8100 0200")
	h.expect("", "02 01 0000 8100 0000") // clear a halt
	h.expect("", "01 0b 0000 0000 0000")
	h.expect("00", "81 0a 0000 0000 0100")
	h.expect("", "21 0a 0005 0000 0000")
	h.expect("05", "a1 02 0000 0000 0100")
	h.expect("01", "a1 03 0000 0000 0100")
	h.expect("", "21 0b 0000 0000 0000") // boot protocol
	h.expect("00", "a1 03 0000 0000 0100")
	h.expect("", "21 09 0002 0000 0100", 0x02) // caps lock
	h.expect("0000000000000000", "a1 01 0001 0000 0800")
	for name, setup := range map[string]string{
		"device qualifier":         "80 06 0006 0000 0a00",
		"BOS":                      "80 06 000f 0000 0500",
		"a second configuration":   "80 06 0102 0000 ff00",
		"the serial string":        "80 06 0303 0904 ff00",
		"physical descriptor":      "81 06 0023 0000 ff00",
		"configuration 2":          "00 09 0200 0000 0000",
		"alternate setting 1":      "01 0b 0100 0000 0000",
		"set feature":              "00 03 0100 0000 0000",
		"set descriptor":           "00 07 0001 0000 1200",
		"report of another number": "a1 01 0103 0000 0800",
		"report of interface 1":    "a1 01 0003 0100 0800",
		"output report":            "a1 01 0002 0000 0100",
		"vendor request":           "c0 01 0000 0000 0800",
		"a short feature report":   "21 09 0003 0000 0700",
		"LEDs of no bytes":         "21 09 0002 0000 0000",
	} {
		if got, err := h.request(setup); err != vhci.ErrStall {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestFeatureReportsOverUSB(t *testing.T) {
	k, h := pluggedIn(t, Options{})
	const get, set = "a1 01 0003 0000 0800", "21 09 0003 0000 0800"
	h.expect("0005040300000000", get)
	for _, r := range golden {
		b, _ := hex.DecodeString(r)
		h.expect("", set, b...)
	}
	h.expect("00050403010a0000", get)
	if _, held, err := k.Touch(true); err != nil || !held {
		t.Fatalf("%v, held %v", err, held)
	}
	p, err := h.d.In(t.Context(), 1)
	if err != nil || !bytes.Equal(p, []byte{0, 0, 0x18, 0, 0, 0, 0, 0}) { // u
		t.Fatalf("%x, %v", p, err)
	}
	if _, err := h.d.In(t.Context(), 2); err != vhci.ErrStall {
		t.Fatal(err)
	}
	fault(t, k, FaultUnplugAtChunk, 0)
	if _, err := h.request(set, 0, 0, 0, 0, 0, 0, 0, 0x80); !errors.Is(err, device.ErrGone) {
		t.Fatalf("the chunk at which it vanishes: %v", err)
	}
	for _, setup := range []string{get, set} {
		if _, err := h.request(setup, make([]byte, 8)...); !errors.Is(err, device.ErrGone) {
			t.Fatalf("afterwards: %v", err)
		}
	}
	if _, err := h.d.In(t.Context(), 1); !errors.Is(err, device.ErrGone) {
		t.Fatalf("afterwards: %v", err)
	}
}

func TestTypingOverUSB(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timing := RealTiming()
		k, h := pluggedIn(t, Options{Timing: &timing})
		if !(host{t, k.holder}).wrote(cmdConfig1, hotpConfig().payload()) {
			t.Fatal("refused")
		}
		// The host waits, and is not told before the key has typed.
		start := time.Now()
		first := make(chan []byte)
		go func() {
			p, _ := h.d.In(t.Context(), 1)
			first <- p
		}()
		synctest.Wait()
		k.Touch(false)
		if p := <-first; !bytes.Equal(p, []byte{0, 0, 0x24, 0, 0, 0, 0, 0}) || time.Since(start) != usbInterval { // 7
			t.Fatalf("%x after %v", p, time.Since(start))
		}
		for range 13 {
			if _, err := h.d.In(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d != 14*usbInterval {
			t.Fatalf("typing took %v", d)
		}
		// Nothing more comes, for as long as anybody waits.
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
		defer cancel()
		if p, err := h.d.In(ctx, 1); len(p) != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%x, %v", p, err)
		}
	})
}

func TestWhatFitsUSB(t *testing.T) {
	fits := map[uint16]bool{0x0010: true, 0x0110: true, 0x0111: true, 0x0401: true, 0x0405: true}
	for _, m := range device.Models {
		if err := newKey(t, Options{Product: m.Product}).fitsUSB(); (err == nil) != fits[m.Product] {
			t.Errorf("%s %04x: %v", m.Name, m.Product, err)
		}
	}
}
