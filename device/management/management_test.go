package management

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/device/emulator/smartcard"
)

// emulated is an emulated card without reader.
type emulated struct{ *smartcard.Card }

func (e emulated) Transmit(apdu []byte) ([]byte, uint16, error) {
	answer := e.Card.Transmit(apdu)
	if len(answer) < 2 {
		return nil, 0, device.ErrGone
	}
	n := len(answer) - 2
	return answer[:n], uint16(answer[n])<<8 | uint16(answer[n+1]), nil
}

func (emulated) Close() error { return nil }

func TestEmulatedCards(t *testing.T) {
	for _, text := range []string{"4.3.5", "5.2.7", "5.4.3", "5.7.1"} {
		firmware, err := device.ParseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		card := smartcard.New(smartcard.Options{Serial: 7654321, Firmware: firmware, FormFactor: smartcard.USBCNano})
		want := Info{Serial: 7654321, Firmware: firmware, FormFactor: "USB-C Nano", PIV: true}
		if info, err := Read(t.Context(), emulated{card}); err != nil || info != want {
			t.Errorf("%+v, %v", info, err)
		}
		for n := 1; n <= 2; n++ {
			if err := card.SetFault(smartcard.FaultPullBefore, n); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(t.Context(), emulated{card}); !errors.Is(err, device.ErrGone) {
				t.Errorf("pulled at command %d: %v", n, err)
			}
			card.PowerUp()
		}
	}
}

// card answers the commands that it knows, by "application:instruction".
type card struct {
	answers  map[string]string
	selected string
	asked    int
}

func (c *card) Transmit(command []byte) ([]byte, uint16, error) {
	c.asked++
	if command[1] == 0xA4 {
		c.selected = map[string]string{string(apdu.Management): "management", string(apdu.PIV): "piv", string(apdu.OTP): "otp"}[string(command[5:])]
	}
	answer, ok := c.answers[fmt.Sprintf("%s:%02x", c.selected, command[1])]
	if !ok {
		return nil, 0x6A82, nil
	}
	return []byte(answer), 0x9000, nil
}

func (c *card) Close() error { return nil }

const (
	hello  = "Virtual mgr - FW version 5.4.3"
	config = "\x16\x01\x02\x02\x3b\x02\x04\x00\xbc\x61\x4e\x03\x02\x02\x3b\x04\x01\x83\x05\x03\x05\x04\x03"
)

func version(major, minor, build uint8) device.Version {
	return device.Version{Major: major, Minor: minor, Build: build}
}

func TestRead(t *testing.T) {
	for name, test := range map[string]struct {
		answers map[string]string
		want    Info
	}{
		"all of it":        {map[string]string{"management:a4": hello, "management:1d": config}, Info{12345678, version(5, 4, 3), "USB-C Keychain FIPS", true}},
		"PIV switched off": {map[string]string{"management:a4": hello, "management:1d": "\x0e\x01\x01\x3b\x02\x04\x00\xbc\x61\x4e\x03\x01\x2b\x09\x00"}, Info{12345678, version(5, 4, 3), "", false}},
		"serial hidden, but PIV tells": {map[string]string{"management:a4": hello, "management:1d": "\x03\x01\x01\x10", "piv:a4": "", "piv:fd": "\x05\x04\x03", "piv:f8": "\x00\x00\x00\x07"},
			Info{7, version(5, 4, 3), "", true}},
		"a YubiKey 4, whose OTP application tells": {map[string]string{"piv:a4": "", "piv:fd": "\x04\x00\x05", "otp:a4": "\x04\x00\x05\x01\x00\x00", "otp:01": "\x00\x00\x00\x09"}, Info{9, version(4, 0, 5), "", true}},
		"a NEO without PIV":                        {map[string]string{"management:a4": "FW 3.4.9", "otp:a4": "\x03\x04\x09\x01\x00\x00", "otp:01": "\x00\x00\x00\x09"}, Info{9, version(3, 4, 9), "", false}},
		"no serial anywhere":                       {map[string]string{"piv:a4": "", "piv:fd": "\x04\x00\x05"}, Info{0, version(4, 0, 5), "", true}},
	} {
		if info, err := Read(t.Context(), &card{answers: test.answers}); err != nil || info != test.want {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

func TestOtherCards(t *testing.T) {
	for name, answers := range map[string]map[string]string{
		"nothing":              nil,
		"another vendor's PIV": {"piv:a4": "abc", "piv:fd": "\x01"},
		"another OTP":          {"otp:a4": "\x01"},
		"another management":   {"management:a4": "OpenPGP"},
	} {
		_, err := Read(t.Context(), &card{answers: answers})
		if _, cure := device.Cure(err); !errors.Is(err, ErrNotYubiKey) || !strings.HasPrefix(cure, "insert a YubiKey") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Read(t.Context(), &card{answers: map[string]string{"management:a4": hello, "management:1d": "\x17\x01\x02\x02"}})
	if !errors.Is(err, device.ErrCorrupt) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := &card{}
	if _, err := Read(ctx, c); !errors.Is(err, context.Canceled) || c.asked > 0 {
		t.Errorf("%v after %d commands", err, c.asked)
	}
}

func TestDamagedConfigurations(t *testing.T) {
	for _, text := range []string{"", "\x01", "\x02\x01", "\x01\x01\x01", "\x02\x01\x05", "\x03\x01\x02\x00"} {
		if err := new(Info).read([]byte(text)); !errors.Is(err, device.ErrCorrupt) {
			t.Errorf("%x: %v", text, err)
		}
	}
	var info Info
	if err := info.read([]byte("\x0b\x02\x01\x07\x04\x00\x05\x02\x01\x02\x20\x00")); err != nil || info != (Info{}) {
		t.Errorf("values of other sizes: %+v, %v", info, err)
	}
}

// Whatever a card says of its configuration is refused, or understood to the end.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(config))
	f.Add([]byte("\x00"))
	f.Add([]byte("\x06\x01\x04\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := Info{Serial: 1, Firmware: version(1, 2, 3), FormFactor: "known"}
		info := before
		err := info.read(b)
		if err == nil && (len(b) == 0 || int(b[0]) != len(b)-1) {
			t.Fatal("it has another length than it says")
		}
		if err != nil && !errors.Is(err, device.ErrCorrupt) {
			t.Fatal(err)
		}
		if v, ok := parseVersion(string(b)); !ok && v != (device.Version{}) {
			t.Fatalf("%v of nothing", v)
		}
	})
}
