//go:build guest

package e2e

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/otpslot"
	"tokendesk/device/usbhid"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

const eyesKey device.Serial = 12345678

const configure2 = 0x03 // slot command

const rfcSeed = "12345678901234567890" // RFC 4226, appendix D

// keyAlone is a key on USB, without a desk.
func keyAlone(t *testing.T) *desk {
	t.Helper()
	d := keysAlone(t, present(eyesKey))
	run(t, nil, "udevadm", "settle")
	return d
}

// driver has our own driver work with the key that is alone.
func (d *desk) driver(fn func(ctx context.Context, s *otpslot.Session, two *otpslot.Slot)) {
	d.Helper()
	r, err := usbhid.Bus{}.Open(d.bounded(), d.port(eyesKey)+":1.0")
	if err != nil {
		d.Fatal(err)
	}
	defer r.Close()
	s := otpslot.New(r)
	two, err := s.Slot(2)
	if err != nil {
		d.Fatal(err)
	}
	fn(d.bounded(), s, two)
}

func (d *desk) program(c device.HOTPConfig) {
	d.Helper()
	d.driver(func(ctx context.Context, _ *otpslot.Session, two *otpslot.Slot) {
		d.Helper()
		if err := two.Program(ctx, c); err != nil {
			d.Fatal(err)
		}
	})
}

// captured is the code that a touch types into our driver.
func (d *desk) captured() (code string) {
	d.Helper()
	d.driver(func(ctx context.Context, _ *otpslot.Session, two *otpslot.Slot) {
		d.Helper()
		pressed := make(chan error, 1)
		go func() { pressed <- d.Press(ctx, eyesKey, true) }()
		var err error
		if code, err = two.Code(ctx); err != nil {
			d.Fatal(err)
		}
		if err := <-pressed; err != nil {
			d.Fatal(err)
		}
	})
	return code
}

// ykinfo sees the key as our driver does, before and after our driver has programmed it.
func TestYkinfo(t *testing.T) {
	d := keyAlone(t)
	for _, configured := range []bool{false, true} {
		if configured {
			d.program(device.HOTPConfig{Seed: secret.New([]byte(rfcSeed)), Digits: 6})
		}
		said := run(t, officer, "ykinfo", "-a")
		d.driver(func(ctx context.Context, s *otpslot.Session, _ *otpslot.Slot) {
			status, err := s.Status(ctx)
			if err != nil || status.Configured(2) != configured || status.Configured(1) {
				t.Fatalf("%+v, %v", status, err)
			}
			slot2 := map[bool]string{false: "0", true: "1"}[configured]
			for _, fact := range []string{
				"serial: 12345678", "version: " + status.Firmware.String(), "programming_sequence: " + strconv.Itoa(int(status.Sequence)),
				"slot1_status: 0", "slot2_status: " + slot2, "vendor_id: 1050", "product_id: 401",
			} {
				if !strings.Contains(said, fact+"\n") {
					t.Errorf("ykinfo does not say %q:\n%s", fact, said)
				}
			}
		})
	}
}

// What ykpersonalize programs types what our driver expects, and the kernel sees both send the same bytes.
func TestYkpersonalize(t *testing.T) {
	d := keyAlone(t)
	bus, _, _ := strings.Cut(d.port(eyesKey), "-")
	run(t, nil, "modprobe", "usbmon")
	seed, code := secret.New([]byte(rfcSeed)), secret.New([]byte{1, 2, 3, 4, 5, 6})
	var protected secret.Secret // the access code that slot 2 has now
	for _, c := range []struct {
		name    string
		options []string
		config  device.HOTPConfig
	}{
		{"plain", []string{"-oappend-cr"}, device.HOTPConfig{Seed: seed, Digits: 6, Enter: true}},
		{"no Enter", []string{"-o-append-cr"}, device.HOTPConfig{Seed: seed, Digits: 6}},
		{"all options", []string{"-oappend-cr", "-ooath-hotp8", "-ooath-imf=16", "-ooath-id", "-oaccess=010203040506"},
			device.HOTPConfig{Seed: seed, Digits: 8, StartCounter: 16, TokenIdentifier: true, Enter: true, NewAccessCode: code}},
		{"over an access code", []string{"-c010203040506", "-oappend-cr", "-oaccess=010203040506"},
			device.HOTPConfig{Seed: seed, Digits: 6, Enter: true, CurrentAccessCode: code, NewAccessCode: code}},
	} {
		sent := func(write func()) [][]byte {
			d.clear(protected)
			if before := c.config.CurrentAccessCode; before.Len() > 0 {
				d.program(device.HOTPConfig{Seed: seed, Digits: 8, NewAccessCode: before})
			}
			protected = c.config.NewAccessCode
			return wire(t, bus, configure2, write)
		}
		options := append([]string{"-2", "-y", "-ooath-hotp", "-oserial-api-visible", "-oallow-update", "-a" + hex.EncodeToString([]byte(rfcSeed))}, c.options...)
		theirs := sent(func() { run(t, officer, "ykpersonalize", options...) })
		if got, want := d.captured(), hotpscan.Code(seed, c.config.Digits, c.config.StartCounter); got != want {
			t.Errorf("%s: programmed by ykpersonalize, the key types %s, not %s", c.name, got, want)
		}
		ours := sent(func() { d.program(c.config) })
		if !slices.EqualFunc(ours, theirs, slices.Equal) {
			t.Errorf("%s: over the wire\n%x is ours,\n%x is ykpersonalize's", c.name, ours, theirs)
		}
	}
}

// clear erases slot 2.
func (d *desk) clear(code secret.Secret) {
	d.Helper()
	d.driver(func(ctx context.Context, _ *otpslot.Session, two *otpslot.Slot) {
		d.Helper()
		if err := two.Delete(ctx, code); err != nil {
			d.Fatal(err)
		}
	})
}

// ykchalresp gets the answers that HMAC-SHA1 gives, at once and after a touch, and our driver is not disturbed.
func TestYkchalresp(t *testing.T) {
	d := keyAlone(t)
	const challenge = "as long as a challenge may be?"
	mac := hmac.New(sha1.New, []byte(rfcSeed))
	mac.Write([]byte(challenge))
	want := hex.EncodeToString(mac.Sum(nil))
	options := []string{"-2", "-y", "-ochal-resp", "-ochal-hmac", "-ohmac-lt64", "-oserial-api-visible", "-a" + hex.EncodeToString([]byte(rfcSeed))}
	run(t, officer, "ykpersonalize", options...)
	if got := strings.TrimSpace(run(t, officer, "ykchalresp", "-2", "-H", challenge)); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	run(t, officer, "ykpersonalize", append(options, "-ochal-btn-trig")...)
	ctx := d.bounded()
	waiting := exec.CommandContext(ctx, "ykchalresp", "-2", "-H", challenge)
	waiting.SysProcAttr = &syscall.SysProcAttr{Credential: officer}
	type result struct {
		out []byte
		err error
	}
	results := make(chan result, 1)
	go func() {
		out, err := waiting.Output()
		results <- result{out, err}
	}()
	touching := time.NewTicker(200 * time.Millisecond)
	defer touching.Stop()
	for {
		select {
		case <-touching.C: // until one comes after the challenge
			if err := d.Press(ctx, eyesKey, true); err != nil {
				t.Fatal(err)
			}
			continue
		case r := <-results:
			if got := strings.TrimSpace(string(r.out)); got != want || r.err != nil {
				t.Errorf("after a touch: %s, not %s, %v", got, want, r.err)
			}
		}
		break
	}
	d.driver(func(ctx context.Context, s *otpslot.Session, _ *otpslot.Slot) {
		if serial, err := s.Serial(ctx); err != nil || serial != eyesKey {
			t.Errorf("%s, %v", serial, err)
		}
	})
}

// What is typed reaches the system exactly when the desk does not hold the key, and never while it captures.
func TestTyping(t *testing.T) {
	d := start(t, present(eyesKey))
	if err := d.AwaitKeys(d.bounded(), eyesKey); err != nil {
		t.Fatal(err)
	}
	port := d.port(eyesKey)
	d.enroll(eyesKey)
	if leaked := d.Window.Text(""); leaked != "" {
		t.Fatalf("%d characters reached the system while the desk captured", len(leaked))
	}
	typed, err := d.Touch(d.bounded(), eyesKey, true, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.work(d.bounded(), eyesKey, tokenPath(eyesKey)+"/resync", map[string]any{"capture": true}); err != nil {
		t.Fatal(err)
	}
	last, err := d.Touch(d.bounded(), eyesKey, true, 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := d.Window.Lines(port), slices.Concat(typed, last); !slices.Equal(got, want) {
		t.Errorf("the system got %d lines, where %d were for it", len(got), len(want))
	}
	out, err := d.Command(d.bounded(), "tokendesk", "test", string(device.SlotToken(device.YubiKeyID(eyesKey), 2)), last[0]).CombinedOutput()
	if err != nil {
		t.Errorf("the desk does not know the last code: %v: %s", err, out)
	}
}
