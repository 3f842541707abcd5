package emulator

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/vhci"
)

// FuzzFeatureReports feeds any sequence of feature reports, 8 bytes each, and checks after each that the
// key stays in a state that a key can be in.
func FuzzFeatureReports(f *testing.F) {
	seed := func(reports ...string) {
		b, err := hex.DecodeString(strings.Join(reports, ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(5), true)
		f.Add(b, byte(2), false)
	}
	seed(golden...)
	seed("0000000000000080", "00106b5b00000089")
	seed(append(append([]string{"ffffffffffffffff"}, golden[:4]...), "000000000000008f")...)
	for _, c := range []struct {
		command byte
		payload []byte
	}{
		{cmdConfig1, hotpConfig().payload()},
		{cmdUpdate1, hotpConfig().payload()},
		{cmdSwap, nil},
		{cmdScanMap, defaultScanMap[:]},
		{cmdConfig2, config{fixed: make([]byte, 16), tkt: 0xBF, cfg: 0xFF, ext: 0xBF}.payload()},
		{cmdDeviceInfo, nil},
		{cmdConfig1, hmacConfig(cfgChallengeLess64 | cfgChallengeTouch).payload()},
		{cmdChallengeHMAC1, []byte("challenge")},
		{cmdChallengeOTP2, []byte("challenge")},
	} {
		var b []byte
		for _, r := range chunksOf(c.command, c.payload) {
			b = append(b, r...)
		}
		f.Add(b, byte(3), true)
	}
	var asked []byte
	for _, r := range slices.Concat(chunksOf(cmdConfig1, hmacConfig(cfgChallengeTouch).payload()), chunksOf(cmdChallengeHMAC1, []byte("challenge"))) {
		asked = append(asked, r...)
	}
	f.Add(asked, byte(5), true)
	f.Fuzz(func(t *testing.T, reports []byte, major byte, long bool) {
		k := New(Options{Serial: 1, Firmware: device.Version{Major: major, Minor: 4, Build: 3}, Timing: &Timing{}})
		h, err := k.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		p := make([]byte, device.ReportSize)
		for len(reports) >= reportSize {
			before := k.app.sequence
			copy(p[1:], reports)
			reports = reports[reportSize:]
			if err := h.SetFeature(p); err != nil {
				t.Fatal(err)
			}
			a := &k.app
			empty := !a.slots[0].configured && !a.slots[1].configured
			switch {
			case a.sequence != before && a.sequence != before+1 && a.sequence != 0:
				t.Fatalf("pgmSeq went from %d to %d", before, a.sequence)
			case empty && a.sequence != 0:
				t.Fatalf("pgmSeq is %d with both slots empty", a.sequence)
			case a.slots[0].fixedSize > fixedMax, a.slots[1].fixedSize > fixedMax:
				t.Fatal("a public part of more than 16 bytes")
			}
			if err := h.GetFeature(p); err != nil {
				t.Fatal(err)
			}
			switch flags := p[8]; {
			case flags == 0 && (p[1] != 0 || p[2] != major || p[5] != a.sequence):
				t.Fatalf("status %x", p)
			case flags&^maskSequence == flagTouchWait && flags&maskSequence > 15:
				t.Fatalf("flags %02x: more than 15 seconds left", flags)
			case flags&^maskSequence != flagResponsePending && flags&^maskSequence != flagTouchWait && flags != 0:
				t.Fatalf("flags %02x", flags)
			}
			if _, _, err := k.Touch(long); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzUSB sends any control request to the USB face of a key: it must answer with no more than the host can
// have asked for, or stall.
func FuzzUSB(f *testing.F) {
	for _, request := range []uint16{
		getDescriptor, getHIDDescriptor, getReport, setReport, getStatusDevice, setConfiguration, setIdle, setInterface, clearEndpoint,
	} {
		for _, value := range []uint16{0x0100, 0x0200, 0x0300, 0x0302, 0x2200, 0x0000} {
			f.Add(uint8(request>>8), uint8(request), value, uint16(0), []byte("8 bytes!"))
		}
	}
	f.Fuzz(func(t *testing.T, requestType, request uint8, value, index uint16, data []byte) {
		k := New(Options{Serial: 1, Firmware: fw5, Product: 0x0401, Timing: &Timing{}, Absent: true})
		face := k.newFace()
		out, err := face.Control(vhci.Setup{RequestType: requestType, Request: request, Value: value, Index: index, Length: uint16(len(data))}, data)
		if err != nil && err != vhci.ErrStall {
			t.Fatal(err)
		}
		if len(out) > 255 || len(out) > 0 && requestType&0x80 == 0 {
			t.Fatalf("%02x %02x answered %x", requestType, request, out)
		}
		if r := k.getFeature(); r[1] != fw5.Major && r[chunkSize] == 0 {
			t.Fatalf("the status became %x", r)
		}
	})
}
