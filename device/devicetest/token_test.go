package devicetest_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"fmt"
	"slices"
	"testing"

	"tokendesk/device"
	"tokendesk/device/devicetest"
	"tokendesk/device/emulator"
	"tokendesk/device/emulator/nitrokeypro"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/vault/secret"
)

const serial device.Serial = 12345678

func version(t *testing.T, s string) device.Version {
	t.Helper()
	v, err := device.ParseVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestSlotsOverReports has the slots of a YubiKey behind the emulator's socket.
func TestSlotsOverReports(t *testing.T) {
	for slot, firmware := range map[int]string{1: "2.4.3", 2: "5.4.3"} {
		t.Run(fmt.Sprintf("slot %d of %s", slot, firmware), func(t *testing.T) {
			devicetest.RunToken(t, func(t *testing.T) devicetest.TokenRig {
				key := emulator.New(emulator.Options{Serial: serial, Firmware: version(t, firmware), Timing: &emulator.Timing{}})
				rig := onSocket(t, key)
				rig.ID, rig.Firmware = device.SlotToken(key.ID(), slot), key.Firmware()
				rig.Samples = 12 // of about a hundred calls
				rig.Touch = func(context.Context) (string, error) {
					text, _, err := key.Touch(slot == 2)
					return text, err
				}
				return rig
			})
		})
	}
}

// TestNitrokeySlotsOverSocket has those of a Nitrokey Pro there, which takes the time that its driver waits.
func TestNitrokeySlotsOverSocket(t *testing.T) {
	devicetest.RunToken(t, func(t *testing.T) devicetest.TokenRig {
		key := emulator.NewNitrokeyPro(emulator.Options{Serial: serial, Timing: &emulator.Timing{}})
		rig := onSocket(t, key)
		rig.ID, rig.Firmware = device.AppToken(key.ID(), "hotp2"), key.Firmware()
		rig.Password, rig.Samples = secret.New([]byte(nitrokeypro.FactoryAdminPIN)), 3
		return rig
	})
}

// TestNitrokeySlots has the slots of each model, and of the firmware that is written to in another way.
func TestNitrokeySlots(t *testing.T) {
	for _, kind := range []struct {
		vendor, product uint16
		firmware        string
	}{
		{device.NitrokeyVendor, 0x4108, "0.15.0"}, {device.PurismVendor, 0x4C4B, "0.10.0"}, {device.NitrokeyVendor, 0x4109, "0.57.0"},
		{device.NitrokeyVendor, 0x4108, "0.8.0"},
	} {
		t.Run(fmt.Sprintf("%04x:%04x %s", kind.vendor, kind.product, kind.firmware), func(t *testing.T) {
			devicetest.RunTokenInBubble(t, func(t *testing.T) devicetest.TokenRig {
				model, _ := device.FindModel(kind.vendor, kind.product)
				key := nitrokeypro.New(nitrokeypro.Options{Model: model, Serial: serial, Firmware: version(t, kind.firmware)})
				return devicetest.TokenRig{
					ID: device.AppToken(device.NitrokeyID(serial), "hotp3"), Firmware: key.Firmware(),
					Password: secret.New([]byte(nitrokeypro.FactoryAdminPIN)),
					OpenReport: func(context.Context) (device.Info, device.Report, error) {
						return device.Info{Vendor: kind.vendor, Product: kind.product}, key.Open(), nil
					},
					Insert: func(context.Context) error { key.PowerUp(); return nil },
					Remove: func(context.Context) error { key.PowerDown(); return nil },
				}
			})
		})
	}
}

// TestSlotsOverCards has the slots of a YubiKey behind its smart card. Firmware 4.0 to 5.4.2 is left out: over USB it has none
// there, or does not tell what became of a write until it is inserted again (see otpslot.PrefersCard).
func TestSlotsOverCards(t *testing.T) {
	for slot, firmware := range map[int]string{1: "5.4.3", 2: "5.7.1"} {
		t.Run(fmt.Sprintf("slot %d of %s", slot, firmware), func(t *testing.T) {
			devicetest.RunTokenInBubble(t, func(t *testing.T) devicetest.TokenRig {
				key := emulator.New(emulator.Options{Serial: serial, Firmware: version(t, firmware), Timing: &emulator.Timing{}, VPCD: "127.0.0.1:1"})
				key.Card().PowerUp()
				rig := withoutReader(key.Card(), key.Insert, key.Remove)
				rig.ID, rig.Firmware = device.SlotToken(key.ID(), slot), key.Firmware()
				rig.Touch = func(context.Context) (string, error) {
					text, _, err := key.Touch(slot == 2)
					return text, err
				}
				return rig
			})
		})
	}
}

// TestCredentials has the OATH applications of YubiKeys and of a Nitrokey 3, with and without a password or PIN.
func TestCredentials(t *testing.T) {
	for _, kind := range []struct {
		firmware string
		nitrokey bool
	}{{"4.3.5", false}, {"5.4.3", false}, {"5.7.1", false}, {"4.14.0", true}} {
		for _, password := range []string{"", "12345678"} {
			t.Run(fmt.Sprintf("%s, Nitrokey: %v, password: %v", kind.firmware, kind.nitrokey, password != ""), func(t *testing.T) {
				devicetest.RunTokenInBubble(t, func(t *testing.T) devicetest.TokenRig {
					away := false
					card := smartcard.New(smartcard.Options{
						Serial: serial, Firmware: version(t, kind.firmware), Nitrokey3: kind.nitrokey, Touch: func(context.Context) bool { return !away },
					})
					rig := withoutReader(card, func() {}, func() {})
					rig.Leave = func() { away = true }
					rig.Firmware, rig.Password = version(t, kind.firmware), secret.New([]byte(password))
					id, protect := device.YubiKeyID(serial), setPassword
					if kind.nitrokey {
						id, protect = device.NitrokeyID(serial), setPIN
					}
					if rig.ID = device.AppToken(id, "oath:alice"); password != "" {
						protect(t, rig, password)
					}
					return rig
				})
			})
		}
	}
}

// onSocket serves a device at the emulator's socket.
func onSocket(t *testing.T, key emulator.Token) devicetest.TokenRig {
	t.Helper()
	bus, hand := served(t, key)
	return devicetest.TokenRig{
		OpenReport: func(ctx context.Context) (info device.Info, r device.Report, err error) {
			watch, found := context.WithCancel(ctx)
			_ = bus.Watch(watch, func(e device.Event) { info = e.Info; found() })
			r, err = bus.Open(ctx, info.Path)
			return info, r, err
		},
		Insert: func(ctx context.Context) error { return hand.Insert(ctx, "emu1") },
		Remove: func(ctx context.Context) error { return hand.Remove(ctx, "emu1") },
	}
}

// withoutReader is the card of a device, which is opened until it loses its power. insert and remove are what else happens to the
// device.
func withoutReader(card *smartcard.Card, insert, remove func()) devicetest.TokenRig {
	losses := new(int) // of power
	return devicetest.TokenRig{
		OpenCard: func(context.Context) (device.Card, error) {
			return &contacts{card: card, losses: losses, before: *losses}, nil
		},
		Insert: func(context.Context) error { insert(); card.PowerUp(); return nil },
		Remove: func(context.Context) error { *losses++; remove(); card.PowerDown(); return nil },
	}
}

// contacts is a card that was opened. It collects long answers, as the selected application gives them.
type contacts struct {
	card           *smartcard.Card
	losses         *int
	before         int  // those before it was opened
	sendsRemaining bool // the application is a YubiKey's for OATH (YKOATH protocol)
}

// Transmit implements device.Card.
func (c *contacts) Transmit(apdu []byte) (data []byte, status uint16, err error) {
	selects := bytes.HasPrefix(apdu, []byte{0, 0xA4, 4})
	for more := apdu; ; {
		answer := c.card.Transmit(more)
		if *c.losses != c.before || len(answer) < 2 {
			return nil, 0, device.ErrGone
		}
		n := len(answer) - 2
		data, status = append(data, answer[:n]...), uint16(answer[n])<<8|uint16(answer[n+1])
		if status>>8 != 0x61 {
			break
		}
		if more = []byte{0, 0xC0, 0, 0, 0}; c.sendsRemaining && !selects {
			more[1] = 0xA5
		}
	}
	if selects && status == 0x9000 {
		c.sendsRemaining = bytes.HasPrefix(apdu[5:], []byte{0xA0, 0, 0, 5, 0x27, 0x21, 1}) && bytes.HasPrefix(data, []byte{0x79}) && !bytes.Contains(data, []byte{0x8F, 4})
	}
	return data, status, nil
}

// Close implements device.Card.
func (c *contacts) Close() error { return nil }

// raw sends what the desk never does, after selecting the OATH application, and returns the answer to that.
func raw(t *testing.T, rig devicetest.TokenRig, ins byte, data func(selected []byte) []byte) {
	t.Helper()
	card, err := rig.OpenCard(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	selected, status, err := card.Transmit([]byte{0, 0xA4, 4, 0, 7, 0xA0, 0, 0, 5, 0x27, 0x21, 1})
	if err != nil || status != 0x9000 {
		t.Fatalf("SELECT: %04x, %v", status, err)
	}
	b := data(selected)
	if _, status, err = card.Transmit(append([]byte{0, ins, 0, 0, byte(len(b))}, b...)); err != nil || status != 0x9000 {
		t.Fatalf("instruction %02x: %04x, %v", ins, status, err)
	}
}

// setPassword is SET CODE of a YubiKey (YKOATH protocol).
func setPassword(t *testing.T, rig devicetest.TokenRig, password string) {
	raw(t, rig, 0x03, func(selected []byte) []byte {
		salt, challenge := selected[7:15], []byte("12345678") // after the version
		key, err := pbkdf2.Key(sha1.New, password, salt, 1000, 16)
		if err != nil {
			t.Fatal(err)
		}
		m := hmac.New(sha1.New, key)
		m.Write(challenge)
		return slices.Concat([]byte{0x73, 17, 0x21}, key, []byte{0x74, 8}, challenge, []byte{0x75, 20}, m.Sum(nil))
	})
}

// setPIN gives a Nitrokey 3 one (trussed-secrets-app).
func setPIN(t *testing.T, rig devicetest.TokenRig, pin string) {
	raw(t, rig, 0xB4, func([]byte) []byte { return append([]byte{0x80, byte(len(pin))}, pin...) })
}
