package pivcard_test

import (
	"errors"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/pivcard"
)

// oddity is a card that answers some commands in a way of its own.
type oddity struct {
	inProcess
	answer func(ins, p1, p2 byte, data []byte) (answer []byte, status uint16, odd bool, err error)
}

func (o *oddity) Transmit(apdu []byte) ([]byte, uint16, error) {
	if o.answer != nil && len(apdu) > 4 {
		if answer, status, odd, err := o.answer(apdu[1], apdu[2], apdu[3], apdu[5:]); odd {
			return answer, status, err
		}
	}
	return o.inProcess.Transmit(apdu)
}

// oddCard has a key and a certificate in slot 9a.
func oddCard(t *testing.T) (*oddity, *pivcard.Card) {
	t.Helper()
	card, _ := provisioned(t, firmwares[2])
	o := &oddity{inProcess: inProcess{card}}
	c, err := pivcard.New(t.Context(), o, true)
	must(t, err)
	return o, c
}

const (
	metadata = 0xF7
	getData  = 0xCB
)

// What one slot says, and is not understood, must not keep a card from being erased.
func TestAStrangeSlotIsDescribedAndErased(t *testing.T) {
	for name, c := range map[string]struct {
		ins    byte
		answer string
		status uint16
	}{
		"an algorithm of the future":   {metadata, "\x01\x01\xee\x02\x02\x02\x01\x03\x01\x01\x04\x02\x86\x00", 0x9000},
		"an odd status":                {metadata, "", 0x6F42},
		"damaged metadata":             {metadata, "\x01\x05\x11", 0x9000},
		"a damaged public key":         {metadata, "\x01\x01\x11\x02\x02\x02\x01\x03\x01\x01\x04\x02\x86\x00", 0x9000},
		"an object of another kind":    {getData, "\x54\x00", 0x9000},
		"an object with an odd status": {getData, "", 0x6F42},
	} {
		o, card := oddCard(t)
		o.answer = func(ins, _, p2 byte, data []byte) ([]byte, uint16, bool, error) {
			slot := ins == metadata && p2 == 0x9A || ins == getData && string(data[:5]) == "\x5c\x03\x5f\xc1\x05"
			return []byte(c.answer), c.status, slot && ins == c.ins, nil
		}
		s, err := card.Describe(t.Context())
		if err != nil || len(s.Keys) != 1 || s.Keys[0].Slot != 0x9A || s.Fresh() {
			t.Errorf("%s: %+v, %v", name, s.Keys, err)
			continue
		}
		if k := s.Keys[0]; (k.Algorithm == "" && k.Public == nil) != (c.ins == metadata) || (k.Certificate == nil) != (c.ins == getData) {
			t.Errorf("%s: %+v", name, k)
		}
		must(t, card.Reset(t.Context()))
		o.answer = nil
		if s := describe(t, card); !s.Fresh() {
			t.Errorf("%s: after the reset: %+v", name, s)
		}
	}
}

// A card that is gone, or answers nothing that makes sense any more, is not one of strange slots.
func TestACardThatEndsIsNotStrange(t *testing.T) {
	for _, want := range []error{device.ErrGone, device.ErrMute, device.ErrCorrupt} {
		o, card := oddCard(t)
		ended := false
		o.answer = func(ins, _, p2 byte, _ []byte) ([]byte, uint16, bool, error) {
			ended = ended || ins == metadata && p2 == 0x9A
			return nil, 0, ended, want
		}
		if _, err := card.Describe(t.Context()); !errors.Is(err, want) {
			t.Errorf("%v, not %v", err, want)
		}
	}
}

// A certificate that cannot be read is there, and costs nothing but itself.
func TestUnreadableCertificate(t *testing.T) {
	for _, firmware := range firmwares {
		o := &oddity{inProcess: inProcess{smartcard.New(smartcard.Options{Serial: serial, Firmware: firmware})}}
		card, err := pivcard.New(t.Context(), o, true)
		must(t, err)
		o.answer = func(ins, _, _ byte, data []byte) ([]byte, uint16, bool, error) {
			odd := ins == getData && string(data[:5]) == "\x5c\x03\x5f\xc1\x05"
			return []byte("\x53\x08\x70\x03abc\x71\x01\x01"), 0x9000, odd, nil
		}
		if s := describe(t, card); len(s.Keys) != 1 || s.Keys[0].Certificate != nil || s.Fresh() {
			t.Errorf("%s: %+v", firmware, s.Keys)
		}
	}
}
