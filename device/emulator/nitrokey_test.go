package emulator

import (
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

func newPro(t *testing.T, o Options) *NitrokeyPro {
	t.Helper()
	if o.Serial == 0 {
		o.Serial = 0x5d19
	}
	o.Timing = &Timing{}
	return NewNitrokeyPro(o)
}

// getStatusReport is the command that a Nitrokey answers with its firmware and its serial number: 60 zero bytes and their
// checksum.
var getStatusReport = strings.Repeat("00", 60) + getStatusCRC

const getStatusCRC = "dfb76eef"

// A bench has tokens of several kinds. Those that are a smart card only are no interface.
func TestMixedBench(t *testing.T) {
	pro := newPro(t, Options{})
	socket, _ := serve[Token](t, newKey(t, Options{Serial: 7}), NewNitrokey3(Options{Serial: 0xABCDEF01, VPCD: "127.0.0.1:1"}), pro)
	w := connect(t, socket)
	const ok, seven = `{"ok":true}`, `{"path":"emu1:1.0","port":"emu1","vendor":4176,"product":1031`
	const slots = `{"path":"emu3:1.0","port":"emu3","vendor":8352,"product":16648`
	const rest = `"faults":[],"typed_to_window":0,"typed_to_holder":0,"required_wait_us":0}`
	w.expect(`{"op":"list"}`, `{"ok":true,"interfaces":[`+seven+"},"+slots+`}]}`)
	w.expect(`{"op":"list-all"}`, `{"ok":true,"keys":[`+
		seven+`,"device":"yk-7","serial":7,"firmware":"5.4.3","present":true,"held":false,"holds":[],"program_sequence":0,`+rest+`,`+
		`{"path":"emu2","port":"emu2","vendor":8352,"product":17074,"device":"nk-abcdef01","serial":2882400001,"firmware":"4.14.0","present":true,"held":false,"holds":[],"program_sequence":0,"card":"no reader at 127.0.0.1:1",`+rest+`,`+
		slots+`,"device":"nk-00005d19","serial":23833,"firmware":"0.15.0","present":true,"held":false,"holds":[],"program_sequence":0,`+rest+`]}`)
	w.expect(`{"op":"open","path":"emu2"}`, `{"error":{"code":"gone",…`)
	w.expect(`{"op":"open","path":"emu2:1.0"}`, `{"error":{"code":"gone",…`)

	for _, name := range []string{"emu3", "nk-00005d19", "00005d19", "00005D19"} {
		w.expect(fmt.Sprintf(`{"op":"touch","key":%q}`, name), `{"ok":true,"touches":[{"to":"nobody"}]}`)
	}
	w.expect(`{"op":"remove","key":"yk-7"}`, ok)
	w.expect(`{"op":"remove","key":"abcdef01"}`, ok)
	w.expect(`{"op":"touch","key":"abcdef01"}`, `{"error":{"code":"gone",…`)
	w.expect(`{"op":"remove","key":"23833"}`, `{"error":{"code":"unknown-key",…`) // that is not how its number is told
	w.expect(`{"op":"list"}`, `{"ok":true,"interfaces":[`+slots+`}]}`)
	w.expect(`{"op":"fault","key":"00005d19","kind":"serial-hidden"}`, `{"error":{"code":"bad-request","text":"there is no fault…`)
	w.expect(`{"op":"fault","key":"abcdef01","kind":"stuck-flag"}`, `{"error":{"code":"bad-request","text":"fault \"stuck-flag\" is none of…`)
}

func TestNitrokeyReportsOverTheSocket(t *testing.T) {
	pro := newPro(t, Options{})
	socket, _ := serve(t, pro)
	h, w := connect(t, socket), connect(t, socket)
	h.expect(`{"op":"open","path":"emu1:1.0"}`, `{"ok":true,"interface":{"path":"emu1:1.0","port":"emu1","vendor":8352,"product":16648}}`)
	h.expect(`{"op":"set-feature","data":"000000000000000000"}`, `{"error":{"code":"failed","text":"a feature report is 65 bytes, the first of them 0"}}`)
	h.expect(`{"op":"set-feature","data":"00`+getStatusReport+`"}`, `{"ok":true}`)
	h.say(`{"op":"get-feature"}`)
	// No status of the device, the command, its checksum, no error; then firmware 0.15 and the serial number.
	if got := h.hear(); !strings.HasPrefix(got, `{"ok":true,"data":"00`+"0000"+getStatusCRC+"00"+"0f00"+"195d0000") {
		t.Fatal(got)
	}
	h.expect(`{"op":"read-input","timeout_ms":1}`, `{"ok":true}`)
	w.expect(`{"op":"fault","key":"emu1","kind":"pull-before","n":1}`, `{"ok":true}`)
	w.expect(`{"op":"fault","key":"emu1","kind":"slow-open","n":1}`, `{"ok":true}`)
	if got := pro.faults.list(); len(got) != 1 {
		t.Fatal(got)
	}
	w.say(`{"op":"list-all"}`)
	if got := w.hear(); !strings.Contains(got, `"faults":["slow-open=1","pull-before=1"]`) {
		t.Fatal(got)
	}
	h.expect(`{"op":"set-feature","data":"00`+getStatusReport+`"}`, `{"error":{"code":"gone",…`)
	w.expect(`{"op":"list"}`, `{"ok":true}`) // it is pulled, as all see
	w.expect(`{"op":"fault","key":"emu1","kind":"clear"}`, `{"ok":true}`)
	w.expect(`{"op":"insert","key":"emu1"}`, `{"ok":true}`)
	h.expect(`{"op":"get-feature"}`, `{"error":{"code":"gone",…`) // that was another opening
	if len(pro.faults.list())+len(pro.slots.Faults()) != 0 {
		t.Fatal("faults are left")
	}
}

// The descriptors are those in the firmware of the Pro (CCIDHID_usb_desc.c), but for the figures of its reader.
func TestNitrokeyDescriptors(t *testing.T) {
	pro := newPro(t, Options{Absent: true})
	h := usbHost{t, pro.newFace()}
	h.expect("12 01 1001 00 00 00 40 a020 0841 0101 01 02 03 01", "80 06 0001 0000 1200")
	h.expect("09 02 7600 02 01 00 80 32"+
		"09 04 00 00 01 03 00 00 00"+"09 21 1001 00 01 22 2a00"+"07 05 84 03 0800 0a"+
		"09 04 01 00 03 0b 00 00 00"+hex.EncodeToString(ccidDescriptor())+
		"07 05 02 02 4000 00"+"07 05 82 02 4000 00"+"07 05 81 03 0800 20", "80 06 0002 0000 ff00")
	h.expect("12 03"+utf16Hex("Nitrokey"), "80 06 0103 0904 ff00")
	h.expect("1a 03"+utf16Hex("Nitrokey Pro"), "80 06 0203 0904 ff00")
	h.expect("32 03"+utf16Hex("000000000000000000005D19"), "80 06 0303 0904 ff00")
	h.expect("06 00ff 09 01 a1 01"+"09 01 15 00 26 ff00 75 08 95 40 81 02"+"09 02 15 00 26 ff00 75 08 95 40 91 02"+"09 02 75 08 95 40 b1 02"+"c0", "81 06 0022 0000 2a00")
	for name, setup := range map[string]string{
		"an input report": "a1 01 0001 0000 4000",
		"LEDs":            "21 09 0002 0000 0100",
	} {
		if got, err := h.request(setup, make([]byte, 1)...); err != vhci.ErrStall {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	b, err := hex.DecodeString(getStatusReport)
	if err != nil {
		t.Fatal(err)
	}
	h.expect("", "21 09 0003 0000 4000", b...)
	if got, err := h.request("a1 01 0003 0000 4000"); err != nil || !strings.HasPrefix(got, "0000"+getStatusCRC+"00"+"0f00"+"195d0000") || len(got) != 128 {
		t.Fatal(got, err)
	}
	librem := newPro(t, Options{Vendor: device.PurismVendor, Product: 0x4C4B, Absent: true})
	h = usbHost{t, librem.newFace()}
	h.expect("12 01 1001 00 00 00 40 6d31 4b4c 0101 01 02 03 01", "80 06 0001 0000 1200")
	h.expect("16 03"+utf16Hex("Librem Key"), "80 06 0203 0904 ff00")
}

// A Nitrokey has no card in its reader, but the reader answers.
func TestEmptyReader(t *testing.T) {
	h := &ccidHost{usbHost: usbHost{t, newPro(t, Options{Absent: true}).newFace()}}
	h.expect([4]byte{ccidStatus, ccidNoCard}, ccidSlotStatus, [3]byte{})
	h.expect([4]byte{ccidDataBlock, ccidFailed | ccidNoCard, ccidMute}, ccidPowerOn, [3]byte{})
	h.expect([4]byte{ccidDataBlock, ccidFailed | ccidNoCard, ccidMute}, ccidTransfer, [3]byte{}, 0, 0xA4, 4, 0)
	h.expect([4]byte{ccidStatus, ccidNoCard}, ccidPowerOff, [3]byte{})
}

func TestWhichNitrokeysFitUSB(t *testing.T) {
	for _, c := range []struct {
		token Token
		fits  bool
	}{
		{newPro(t, Options{}), true},
		{newPro(t, Options{Vendor: device.PurismVendor, Product: 0x4C4B}), true},
		{newPro(t, Options{Product: 0x4109}), false},
		{NewNitrokey3(Options{}), false},
	} {
		if err := c.token.fitsUSB(); (err == nil) != c.fits {
			t.Errorf("%04x: %v", c.token.base().product, err)
		}
	}
}

func TestNitrokeyOnUSB(t *testing.T) {
	f := &fakeKernel{}
	pro := newPro(t, Options{})
	socket, stop := serveAttached(t, f, pro, attachable(t, Options{Serial: 7}))
	if got := f.happened(); got != "attach 1-1, attach 1-2" {
		t.Fatal(got)
	}
	w := connect(t, socket)
	w.expect(`{"op":"fault","key":"emu1","kind":"slow-open","n":1}`, `{"error":{"code":"bad-request","text":"fault slow-open strikes…`)
	w.expect(`{"op":"fault","key":"emu1","kind":"pull-after","n":1}`, `{"ok":true}`)
	b, _ := hex.DecodeString(getStatusReport)
	host := usbHost{t, f.ports[0].device}
	if _, err := host.request("21 09 0003 0000 4000", b...); err == nil {
		t.Fatal("it is still there")
	}
	w.expect(`{"op":"insert","key":"emu1"}`, `{"ok":true}`) // which waits until the kernel has let go
	if got := f.happened(); got != "detach 1-1, attach 1-3" {
		t.Fatal(got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// The card of a Nitrokey 3 is in its reader for as long as the Nitrokey is plugged in, and keeps what it holds.
func TestNitrokey3OfVPCD(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	socket, _ := serve(t, NewNitrokey3(Options{Serial: 0x5d19, VPCD: l.Addr().String(), Timing: &Timing{}}))
	w := connect(t, socket)
	d := awaitVPCD(t, l)
	if atr := d.ask(vpcdATR); !strings.Contains(string(atr), "Nitrokey") { // by now it is in
		t.Fatalf("ATR %x", atr)
	}
	w.say(`{"op":"list-all"}`)
	if got := w.hear(); !strings.Contains(got, `"card":"in the reader at `) {
		t.Fatal(got)
	}
	secrets := []byte("\x00\xa4\x04\x00\x07\xa0\x00\x00\x05\x27\x21\x01\x00")
	put := append([]byte("\x00\x01\x00\x00\x12\x71\x05alice\x73\x09\x11\x06"), "1234567"...)
	d.send(vpcdOn)
	if got := d.ask(secrets...); !strings.HasSuffix(string(got), "\x8f\x04\x00\x00\x5d\x19\x90\x00") {
		t.Fatalf("SELECT: %x", got)
	}
	if got := d.ask(put...); string(got) != "\x90\x00" {
		t.Fatalf("PUT: %x", got)
	}
	w.expect(`{"op":"touch","key":"emu1"}`, `{"ok":true,"touches":[{"to":"nobody"}]}`)
	w.expect(`{"op":"remove","key":"emu1"}`, `{"ok":true}`)
	d.awaitEnd()
	w.expect(`{"op":"insert","key":"emu1"}`, `{"ok":true}`)
	d = awaitVPCD(t, l)
	d.send(vpcdOn)
	d.ask(secrets...)
	if got := d.ask([]byte("\x00\xa1\x00\x00\x00")...); !strings.Contains(string(got), "alice") {
		t.Fatalf("LIST: %x", got)
	}
	w.expect(`{"op":"fault","key":"emu1","kind":"card-pull-before","n":1}`, `{"ok":true}`)
	d.send(secrets...)
	d.awaitEnd()
	w.say(`{"op":"list-all"}`)
	if got := w.hear(); !strings.Contains(got, `"present":false`) {
		t.Fatal(got)
	}
}

// FuzzNitrokeyUSB sends any control request, and any feature report, to the USB face of a Nitrokey: it must answer with no more
// than the host can have asked for, or stall, and still say who it is.
func FuzzNitrokeyUSB(f *testing.F) {
	status, err := hex.DecodeString(getStatusReport)
	if err != nil {
		f.Fatal(err)
	}
	for _, request := range []uint16{getDescriptor, getHIDDescriptor, getReport, setReport} {
		for _, value := range []uint16{0x0100, 0x0200, 0x0300, 0x2200} {
			f.Add(uint8(request>>8), uint8(request), value, uint16(0), status)
		}
	}
	f.Fuzz(func(t *testing.T, requestType, request uint8, value, index uint16, data []byte) {
		h := usbHost{t, newPro(t, Options{Absent: true}).newFace()}
		out, err := h.d.Control(vhci.Setup{RequestType: requestType, Request: request, Value: value, Index: index, Length: uint16(len(data))}, data)
		if err != nil && err != vhci.ErrStall {
			t.Fatal(err)
		}
		if len(out) > 255 || len(out) > 0 && requestType&0x80 == 0 {
			t.Fatalf("%02x %02x answered %x", requestType, request, out)
		}
		h.expect("", "21 09 0003 0000 4000", status...)
		if got, err := h.request("a1 01 0003 0000 4000"); err != nil || !strings.HasPrefix(got, "0000"+getStatusCRC+"00"+"0f00"+"195d0000") {
			t.Fatal(got, err)
		}
	})
}
