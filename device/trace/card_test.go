package trace_test

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/trace"
)

// plainCard is an emulated card without reader.
type plainCard struct {
	*smartcard.Card
	more byte // instruction by which the rest of an answer is asked for
}

// Transmit implements device.Card, with short APDUs.
func (c plainCard) Transmit(apdu []byte) (data []byte, status uint16, err error) {
	more := c.more
	if apdu[1] == 0xA4 {
		more = 0xC0
	}
	for {
		answer := c.Card.Transmit(apdu)
		n := len(answer) - 2
		if n < 0 {
			return nil, 0, device.ErrGone
		}
		data = append(data, answer[:n]...)
		if answer[n] != 0x61 {
			return data, uint16(answer[n])<<8 | uint16(answer[n+1]), nil
		}
		apdu = []byte{0, more, 0, 0, 0}
	}
}

func (plainCard) Close() error { return nil }

// inserted opens a card. The hand has it go wrong.
func inserted(t *testing.T, r *trace.Recorder, token device.TokenID, c plainCard) (rig, error) {
	t.Helper()
	hand := func(what string) error {
		fault, n := faultOf(what)
		return c.SetFault(smartcard.Fault(fault), n)
	}
	s, err := ours.OverCard(t.Context(), r.Card(c))
	if err != nil {
		return rig{hand: hand}, err
	}
	of, err := s.Token(t.Context(), token)
	return rig{of, hand}, err
}

func yubiKeyCard() plainCard {
	k := emulator.New(emulator.Options{Serial: serial, Firmware: fw5, VPCD: "127.0.0.1:1"})
	k.Card().PowerUp()
	return plainCard{k.Card(), 0xA5}
}

func overCCID(t *testing.T, r *trace.Recorder, token device.TokenID) (rig, error) {
	return inserted(t, r, token, yubiKeyCard())
}

// withPassword is a card whose OATH applet has the password that traces call admin-pin.
func withPassword(t *testing.T, r *trace.Recorder, token device.TokenID) (rig, error) {
	c := yubiKeyCard()
	say := func(apdu ...byte) []byte {
		data, status, err := c.Transmit(apdu)
		if err != nil || status != 0x9000 {
			t.Fatalf("%x: %04x, %v", apdu, status, err)
		}
		return data
	}
	about := say(0, 0xA4, 4, 0, 7, 0xA0, 0, 0, 5, 0x27, 0x21, 1)
	salt := about[2+int(about[1])+2:][:8] // after the version
	key, err := pbkdf2.Key(sha1.New, "12345678", salt, 1000, 16)
	if err != nil {
		t.Fatal(err)
	}
	challenge := []byte("8 bytes.")
	mac := hmac.New(sha1.New, key)
	mac.Write(challenge)
	set := append([]byte{0x73, 17, 1}, key...)
	set = append(append(set, 0x74, 8), challenge...)
	set = mac.Sum(append(set, 0x75, 20))
	say(append([]byte{0, 3, 0, 0, byte(len(set))}, set...)...)
	return inserted(t, r, token, c)
}

func nitrokey3(t *testing.T, r *trace.Recorder, token device.TokenID) (rig, error) {
	c := smartcard.New(smartcard.Options{Serial: 0x5D19, Firmware: device.Version{Major: 4, Minor: 14}, Nitrokey3: true})
	return inserted(t, r, token, plainCard{c, 0xC0})
}

// torn is a card that is pulled while it is looked what it is.
func torn(t *testing.T, r *trace.Recorder, token device.TokenID) (rig, error) {
	c := yubiKeyCard()
	if err := c.SetFault(smartcard.FaultPullBefore, 2); err != nil {
		t.Fatal(err)
	}
	return inserted(t, r, token, c)
}

var unlock = trace.Operation{Verb: trace.Unlock}

var cards = []scenario{
	{
		name: "ccid-otp2", note: "a slot is programmed over the smart card, replaced and erased",
		token: "yk-12345678/otp2", begin: overCCID,
		do: []act{
			{"", describe},
			{"", program(func(o *trace.Operation) { o.Digits, o.Counter, o.Identifier, o.New = 8, 16, true, "code-a" })},
			{"", program(nil)},
			{"", code},
			{"", with(remove, "code-a")},
			{"", describe},
		},
		want: []string{
			"ok", "state serial=12345678 firmware=5.4.3", "ok", "fails rejected", "fails other", "ok",
			"state serial=12345678 firmware=5.4.3",
		},
	},
	{
		name: "ccid-otp1-pulled", note: "it is pulled when it has written", token: "yk-12345678/otp1", begin: overCCID,
		do:   []act{{"", describe}, {"pull-after=2", program(nil)}, {"", describe}},
		want: []string{"ok", "state serial=12345678 firmware=5.4.3", "fails gone", "fails gone"},
	},
	{
		name: "ccid-pulled", note: "it is pulled while it is looked what it is", token: "yk-12345678/otp1", begin: torn,
		want: []string{"fails gone"},
	},
	{
		name: "oath", note: "a credential is written, gives codes, is replaced and deleted",
		token: "yk-12345678/oath:alice", begin: overCCID,
		do: []act{
			{"", describe}, {"", unlock},
			{"", program(func(o *trace.Operation) { o.Counter = 1<<32 - 3 })},
			{"", code}, {"", code}, {"", describe},
			{"", program(func(o *trace.Operation) { o.Seed, o.Digits = "rfc2202-2", 8 })},
			{"", code}, {"", remove}, {"", code}, {"", remove}, {"", describe},
		},
		want: []string{
			"ok", "state serial=12345678 firmware=5.4.3", "ok", "ok", "code 074070", "code 138629", "state serial=12345678 firmware=5.4.3 configured",
			"ok", "code 19641395", "ok", "fails other", "ok", "state serial=12345678 firmware=5.4.3",
		},
	},
	{
		name: "oath-password", note: "the applet has a password", token: "yk-12345678/oath:alice", begin: withPassword,
		do: []act{
			{"", describe}, {"", unlock}, {"", with(unlock, "wrong-pin")}, {"", with(unlock, "admin-pin")}, {"", describe},
			{"", with(program(nil), "admin-pin")}, {"", code}, {"", with(remove, "admin-pin")},
		},
		want: []string{
			"ok", "fails locked", "fails locked", "fails pin -1 password", "ok", "state serial=12345678 firmware=5.4.3", "ok", "code 755224", "ok",
		},
	},
	{
		name: "oath-pulled", note: "it is pulled before a credential is written",
		token: "yk-12345678/oath:alice", begin: overCCID,
		do:   []act{{"", describe}, {"pull-before=1", program(nil)}, {"", code}, {"", remove}},
		want: []string{"ok", "state serial=12345678 firmware=5.4.3", "fails gone", "fails gone", "fails gone"},
	},
	{
		name: "oath-full", note: "there is no room for another credential", token: "yk-12345678/oath:alice", begin: overCCID,
		do:   []act{{"status=27268", program(nil)}, {"", program(nil)}, {"", remove}}, // 6A84
		want: []string{"ok", "fails full", "ok", "ok"},
	},
	{
		name: "oath-lies", note: "an answer says that it is longer than it is", token: "yk-12345678/oath:alice", begin: overCCID,
		do:   []act{{"", program(nil)}, {"lying-length", describe}, {"", code}},
		want: []string{"ok", "ok", "fails corrupt", "fails corrupt"},
	},
	{
		name: "nitrokey3", note: "a credential is written, which exists, gives codes, and is deleted",
		token: "nk-00005d19/oath:alice", begin: nitrokey3,
		do: []act{
			{"", describe}, {"", program(func(o *trace.Operation) { o.Counter = 2 })}, {"", code}, {"", describe},
			{"", program(func(o *trace.Operation) { o.Digits, o.Seed = 8, "rfc2202-5" })}, {"", code}, {"", remove}, {"", remove}, {"", describe},
		},
		want: []string{
			"ok", "state serial=23833 firmware=4.14.0", "ok", "code 359152",
			"state serial=23833 firmware=4.14.0 configured", "ok", "code 11198472", "ok", "ok",
			"state serial=23833 firmware=4.14.0",
		},
	},
}
