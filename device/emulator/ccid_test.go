package emulator

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

// ccidHost is a host that speaks with the reader of a key.
type ccidHost struct {
	usbHost
	key      *YubiKey
	sequence byte
}

func newCCIDHost(t *testing.T, o Options) *ccidHost {
	t.Helper()
	o.Product = 0x0405
	k, h := pluggedIn(t, o)
	return &ccidHost{usbHost: h, key: k}
}

// message renders a command.
func (h *ccidHost) message(kind byte, specific [3]byte, data []byte) []byte {
	h.sequence++
	b := binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(data)))
	b = append(b, 0, h.sequence, specific[0], specific[1], specific[2])
	return append(b, data...)
}

// ask sends a command and returns its answer: kind, status, error, parameter, data.
func (h *ccidHost) ask(kind byte, specific [3]byte, data []byte) (answer [4]byte, response []byte) {
	h.t.Helper()
	if err := h.d.Out(cardEndpoint, h.message(kind, specific, data)); err != nil {
		h.t.Fatal(err)
	}
	return h.answer(h.t.Context())
}

func (h *ccidHost) answer(ctx context.Context) (answer [4]byte, response []byte) {
	h.t.Helper()
	b, err := h.d.In(ctx, cardEndpoint)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(b) < ccidHeader || int(binary.LittleEndian.Uint32(b[1:])) != len(b)-ccidHeader || b[5] != 0 || b[6] != h.sequence || len(b) > ccidMaxMessage {
		h.t.Fatalf("to command %d the reader answers %x", h.sequence, b)
	}
	return [4]byte{b[0], b[7], b[8], b[9]}, b[ccidHeader:]
}

// expect checks the header of an answer and returns its data.
func (h *ccidHost) expect(want [4]byte, kind byte, specific [3]byte, data ...byte) []byte {
	h.t.Helper()
	got, response := h.ask(kind, specific, data)
	if got != want {
		h.t.Fatalf("command %#x is answered %x, not %x", kind, got, want)
	}
	return response
}

// said sends an APDU in hexadecimal and returns the response so.
func (h *ccidHost) said(apdu string) string {
	h.t.Helper()
	b, err := hex.DecodeString(apdu)
	if err != nil {
		h.t.Fatal(err)
	}
	return hex.EncodeToString(h.expect([4]byte{ccidDataBlock}, ccidTransfer, [3]byte{}, b...))
}

// The descriptors are those that lsusb shows of a YubiKey 5 with OTP and CCID.
func TestCardDescriptors(t *testing.T) {
	h := newCCIDHost(t, Options{})
	h.usbHost.expect("09 02 7600 02 01 00 80 0f"+
		"09 04 00 00 01 03 01 01 00"+"09 21 1001 00 01 22 4700"+"07 05 81 03 0800 0a"+
		"09 04 01 00 03 0b 00 00 00"+
		"36 21 1001 00 07 02000000 a00f0000 a00f0000 00 00b00400 00b00400 00 f60b0000 00000000 00000000 fe000400 000c0000 ff ff 0000 00 01"+
		"07 05 02 02 4000 00"+"07 05 82 02 4000 00"+"07 05 83 03 0800 20", "80 06 0002 0000 ff00")
	h.usbHost.expect("22 03"+utf16Hex("YubiKey OTP+CCID"), "80 06 0203 0904 ff00")
	h.usbHost.expect("a00f0000", "a1 02 0000 0100 0400")
	h.usbHost.expect("00b00400", "a1 03 0000 0100 0400")
	h.usbHost.expect("", "21 01 0000 0100 0000")
	h.usbHost.expect("", "01 0b 0000 0100 0000")
	for name, setup := range map[string]string{
		"a report of the reader":    "a1 01 0003 0100 0800",
		"the reader's HID report":   "81 06 0022 0100 4700",
		"a third interface":         "01 0b 0000 0200 0000",
		"a reader's other requests": "a1 04 0000 0100 0400",
	} {
		if got, err := h.request(setup); err != vhci.ErrStall {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	_, alone := pluggedIn(t, Options{})
	if err := alone.d.Out(cardEndpoint, nil); err != vhci.ErrStall {
		t.Errorf("a key without a card takes a message for its reader: %v", err)
	}
}

func utf16Hex(s string) string {
	return hex.EncodeToString(stringDescriptor(s)[2:])
}

func TestCCID(t *testing.T) {
	h := newCCIDHost(t, Options{})
	h.expect([4]byte{ccidStatus, ccidInactive}, ccidSlotStatus, [3]byte{})
	h.expect([4]byte{ccidDataBlock, ccidFailed | ccidInactive, ccidMute}, ccidTransfer, [3]byte{}, 0, 0xFD, 0, 0)
	if atr := h.expect([4]byte{ccidDataBlock}, ccidPowerOn, [3]byte{}); !bytes.Equal(atr, h.key.Card().ATR()) {
		t.Fatalf("ATR %x", atr)
	}
	h.expect([4]byte{ccidStatus}, ccidSlotStatus, [3]byte{})
	for _, kind := range []byte{ccidGetParameters, ccidResetParameters} {
		if got := h.expect([4]byte{ccidParameters, 0, 0, ccidProtocolT1}, kind, [3]byte{}); !bytes.Equal(got, ccidT1) {
			t.Errorf("parameters %x", got)
		}
	}
	h.expect([4]byte{ccidParameters, 0, 0, ccidProtocolT1}, ccidSetParameters, [3]byte{ccidProtocolT1}, ccidT1...)
	h.expect([4]byte{ccidParameters, ccidFailed, 7}, ccidSetParameters, [3]byte{0}, 1, 2, 3, 4, 5)
	if got := h.said(selectPIV); got != propertiesOf {
		t.Errorf("SELECT answers %s", got)
	}
	if got := h.said(askSerial); got != "00bc614e9000" {
		t.Errorf("GET SERIAL answers %s", got)
	}
	h.expect([4]byte{ccidEscaped, ccidFailed}, ccidEscape, [3]byte{}, 1, 2)
	h.expect([4]byte{ccidDataBlock, ccidFailed}, ccidSecure, [3]byte{})
	h.expect([4]byte{ccidRate, ccidFailed}, ccidSetRate, [3]byte{})
	h.expect([4]byte{ccidStatus, ccidFailed}, 0x71, [3]byte{})
	h.expect([4]byte{ccidStatus, ccidInactive}, ccidPowerOff, [3]byte{})
	h.expect([4]byte{ccidDataBlock}, ccidPowerOn, [3]byte{})
	if got := h.said(askSerial); got != "6d00" {
		t.Errorf("after its power was away, GET SERIAL answers %s", got)
	}
	if err := h.key.SetFault(FaultCardMute, 0); err != nil {
		t.Fatal(err)
	}
	h.expect([4]byte{ccidDataBlock, ccidFailed | ccidInactive, ccidMute}, ccidTransfer, [3]byte{}, 0, 0xFD, 0, 0)
	h.expect([4]byte{ccidDataBlock, ccidFailed | ccidInactive, ccidMute}, ccidPowerOn, [3]byte{})
}

// A message may come in several transfers, a command in several messages, and so does the response.
func TestLongCCID(t *testing.T) {
	h := newCCIDHost(t, Options{})
	h.expect([4]byte{ccidDataBlock}, ccidPowerOn, [3]byte{})
	m := h.message(ccidTransfer, [3]byte{}, []byte{0, 0xA4, 4, 0, 5, 0xA0, 0, 0, 3, 8})
	for _, part := range [][]byte{m[:3], m[3:12], m[12:]} {
		if err := h.d.Out(cardEndpoint, part); err != nil {
			t.Fatal(err)
		}
	}
	if got, response := h.answer(t.Context()); got != [4]byte{ccidDataBlock} || hex.EncodeToString(response) != propertiesOf {
		t.Fatalf("in parts, SELECT answers %x %x", got, response)
	}
	long := append([]byte{0, 0xDB, 0x3F, 0xFF, 0, 0x0C, 0x1C}, make([]byte, 3100)...)
	h.expect([4]byte{ccidDataBlock, 0, 0, ccidAskForMore}, ccidTransfer, [3]byte{0, ccidBegins}, long[:2000]...)
	h.expect([4]byte{ccidDataBlock, 0, 0, ccidAskForMore}, ccidTransfer, [3]byte{0, ccidContinues}, long[2000:2600]...)
	if got := h.expect([4]byte{ccidDataBlock}, ccidTransfer, [3]byte{0, ccidEnds}, long[2600:]...); hex.EncodeToString(got) != "6982" {
		t.Errorf("a long command is answered %x", got)
	}
	h.expect([4]byte{ccidDataBlock, ccidFailed, ccidBadLevel}, ccidTransfer, [3]byte{0, ccidEnds}, 1)
	h.expect([4]byte{ccidDataBlock, ccidFailed, ccidBadLevel}, ccidTransfer, [3]byte{0, ccidAskForMore})
	h.expect([4]byte{ccidDataBlock, ccidFailed, ccidBadLength}, ccidTransfer, [3]byte{})

	face := h.d.(*usbFace).ccid
	face.rest = bytes.Repeat([]byte("response"), 1000)
	want := slices.Clone(face.rest)
	got := face.part(ccidMessage{kind: ccidTransfer})[ccidHeader:]
	for level := byte(ccidContinues); level != ccidEnds; {
		answer, more := h.ask(ccidTransfer, [3]byte{0, ccidAskForMore}, nil)
		got, level = append(slices.Clone(got), more...), answer[3]
	}
	if !bytes.Equal(got, want) {
		t.Errorf("a response of %d bytes came as %d", len(want), len(got))
	}

	for name, message := range map[string][]byte{
		"too long":            binary.LittleEndian.AppendUint32([]byte{ccidTransfer}, ccidMaxMessage),
		"longer than it says": append(h.message(ccidSlotStatus, [3]byte{}, nil), 1),
	} {
		message = append(message, make([]byte, ccidHeader)...)
		if err := h.d.Out(cardEndpoint, message); err != vhci.ErrStall {
			t.Errorf("a message that is %s: %v", name, err)
		}
	}
	h.expect([4]byte{ccidStatus}, ccidSlotStatus, [3]byte{}) // and it goes on
	h.expect([4]byte{ccidStatus}, ccidSlotStatus, [3]byte{})
	b := h.message(ccidSlotStatus, [3]byte{}, nil)
	b[5] = 1
	if err := h.d.Out(cardEndpoint, b); err != nil {
		t.Fatal(err)
	}
	if answer, err := h.d.In(t.Context(), cardEndpoint); err != nil || answer[7] != ccidFailed|ccidNoCard || answer[8] != ccidBadSlot {
		t.Errorf("the second slot answers %x, %v", answer, err)
	}
}

// A card that waits for a touch asks the host for time, and a key that is pulled meanwhile is gone at once.
func TestCCIDWaitsForATouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newCCIDHost(t, Options{})
		h.expect([4]byte{ccidDataBlock}, ccidPowerOn, [3]byte{})
		face := h.d.(*usbFace).ccid
		wait := func() {
			h.sequence++
			running := &ccidRunning{ccidMessage{kind: ccidTransfer, sequence: h.sequence}, make(chan []byte, 1)}
			face.running = running
			go func() {
				if h.key.finger.await(t.Context()) {
					running.answer <- []byte{0x90, 0}
				}
			}()
			synctest.Wait()
		}
		wait()
		start := time.Now()
		if got, _ := h.answer(t.Context()); got != [4]byte{ccidDataBlock, ccidMoreTime, 1} || time.Since(start) != ccidExtension {
			t.Fatalf("after %v the reader answers %x", time.Since(start), got)
		}
		touch, err := h.key.touch(true)
		if got, response := h.answer(t.Context()); err != nil || touch.To != "challenge" || got != [4]byte{ccidDataBlock} || hex.EncodeToString(response) != "9000" {
			t.Fatalf("a touch went to %q, %v; then the reader answers %x %x", touch.To, err, got, response)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := h.d.In(ctx, cardEndpoint); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := h.d.In(ctx, 3); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

// A key that is pulled by a fault of its card is out of the kernel, too.
func TestAttachedCard(t *testing.T) {
	f := &fakeKernel{}
	k := newKey(t, Options{Product: 0x0405})
	_, stop := serveAttached(t, f, k)
	f.mu.Lock()
	d := f.ports[0].device
	f.mu.Unlock()
	if err := k.SetFault(FaultCardPullBefore, 1); err != nil {
		t.Fatal(err)
	}
	h := &ccidHost{usbHost: usbHost{t, d}, key: k}
	h.expect([4]byte{ccidDataBlock}, ccidPowerOn, [3]byte{})
	h.ask(ccidTransfer, [3]byte{}, []byte{0, 0xFD, 0, 0})
	if _, err := k.Open(t.Context()); !errors.Is(err, device.ErrGone) {
		t.Errorf("the OTP interface opens: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := f.happened(); got != "attach 1-1, detach 1-1" {
		t.Errorf("the kernel was asked to %s", got)
	}
	for _, o := range []Options{{Product: 0x0405, VPCD: "127.0.0.1:1"}, {Product: 0x0407}} {
		if err := newKey(t, o).fitsUSB(); err == nil || !strings.Contains(err.Error(), "smart card") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// FuzzCCID sends the reader anything that a host may: each command has one answer, and nothing grows.
func FuzzCCID(f *testing.F) {
	head := func(kind byte, size uint32, rest ...byte) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte{kind}, size), rest...)
	}
	f.Add(head(ccidPowerOn, 0, 0, 1, 0, 0, 0), head(ccidTransfer, 4, 0, 2, 0, 0, 0, 0, 0xFD, 0, 0))
	f.Add(head(ccidTransfer, 1, 0, 1, 0, ccidBegins, 0, 0), head(ccidTransfer, 0, 0, 2, 0, ccidAskForMore, 0))
	f.Add(head(ccidSetParameters, 7, 0, 1, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7), head(ccidTransfer, 0xFFFFFFFF, 0, 1, 0, 0, 0))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		k := New(Options{Serial: 1, Firmware: fw5, Product: 0x0405, Timing: &Timing{}, Absent: true})
		k.moveToUSB()
		face := k.newFace()
		for _, b := range [][]byte{{ccidPowerOn, 0, 0, 0, 0, 0, 0, 0, 0, 0}, first, second} {
			if err := face.Out(cardEndpoint, b); err != nil && err != vhci.ErrStall {
				t.Fatal(err)
			}
			for len(face.ccid.commands) > 0 {
				answer, err := face.In(t.Context(), cardEndpoint)
				if err != nil || len(answer) < ccidHeader || len(answer) > ccidMaxMessage || int(binary.LittleEndian.Uint32(answer[1:])) != len(answer)-ccidHeader {
					t.Fatalf("the reader answers %x, %v", answer, err)
				}
			}
			if len(face.ccid.partial) > ccidMaxMessage || len(face.ccid.command) > ccidMaxAPDU {
				t.Fatalf("the reader keeps %d and %d bytes", len(face.ccid.partial), len(face.ccid.command))
			}
		}
	})
}
