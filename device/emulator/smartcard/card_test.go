package smartcard

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"tokendesk/device"
)

// host is what tests send commands with.
type host struct {
	*testing.T
	card *Card
}

func newHost(t *testing.T, firmware string) host {
	t.Helper()
	v, err := device.ParseVersion(firmware)
	if err != nil {
		t.Fatal(err)
	}
	return host{t, New(Options{Serial: 12345678, Firmware: v})}
}

// withPIV is a host that has selected PIV.
func withPIV(t *testing.T, firmware string) host {
	t.Helper()
	h := newHost(t, firmware)
	h.selectPIV()
	return h
}

func (h host) selectPIV() {
	h.Helper()
	h.want("00a4040005a000000308", "61114f0600001000010079074f05a000000308 9000")
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// send sends an APDU as it stands.
func (h host) send(apdu string) string {
	h.Helper()
	return hex.EncodeToString(h.card.Transmit(unhex(h.T, apdu)))
}

// want sends an APDU as it stands, and compares the answer.
func (h host) want(apdu, answer string) {
	h.Helper()
	if got, want := h.send(apdu), strings.ReplaceAll(answer, " ", ""); got != want {
		h.Fatalf("%s was answered with %q, not %q", apdu, got, want)
	}
}

// run sends an extended APDU with an Le, and returns data and status word.
func (h host) run(head string, data []byte) ([]byte, status) {
	h.Helper()
	apdu := append(unhex(h.T, head), 0, byte(len(data)>>8), byte(len(data)))
	if apdu = append(apdu, data...); len(data) > 0 {
		apdu = append(apdu, 0, 0)
	}
	answer := h.card.Transmit(apdu)
	if len(answer) < 2 {
		h.Fatalf("%s was not answered", head)
	}
	n := len(answer) - 2
	return answer[:n], status(answer[n])<<8 | status(answer[n+1])
}

// must is run with success.
func (h host) must(head string, data []byte) []byte {
	h.Helper()
	got, sw := h.run(head, data)
	if sw != swOK {
		h.Fatalf("%s with %x was refused: %04x", head, data, sw)
	}
	return got
}

// refused is run with a status word that is not success.
func (h host) refused(head string, data []byte, want status) {
	h.Helper()
	if got, sw := h.run(head, data); sw != want {
		h.Fatalf("%s with %x was answered with %x %04x, not %04x", head, data, got, sw, want)
	}
}

// verify shows the PIN of the factory.
func (h host) verify() {
	h.Helper()
	h.want("0020008008313233343536ffff", "9000")
}

// manage shows the management key of the factory.
func (h host) manage() {
	h.Helper()
	h.manageWith(h.card.piv.management)
}

func (h host) manageWith(k managementKey) {
	h.Helper()
	head := fmt.Sprintf("0087%02x9b", k.algorithm)
	t, ok := inner(h.must(head, []byte{tagTemplate, 2, tagChallenge, 0}), tagTemplate)
	challenge, _ := t.get(tagChallenge)
	if !ok || len(challenge) != k.block.BlockSize() {
		h.Fatalf("the challenge is %x", challenge)
	}
	h.must(head, template(tagResponse, k.encrypt(challenge)))
}

func TestSelection(t *testing.T) {
	h := newHost(t, "5.4.3")
	h.want("00fd000000", "6d00") // nothing is selected yet
	h.selectPIV()
	h.want("00a404000ba000000308000010000100", "61114f0600001000010079074f05a000000308 9000")
	h.want("00fd000000", "050403 9000")
	h.want("00f8000000", "00bc614e 9000")
	h.want("00a4040006d27600012401", "6a82") // OpenPGP
	h.want("00fd000000", "050403 9000")      // the other one is still selected
	h.want("00a4040004a0000003", "6a82")
	h.want("00a4000005a000000308", "6a86")
	h.want("00a4040008a000000527471117", hex.EncodeToString([]byte("Virtual mgr - FW version 5.4.3"))+"9000")
	h.want("00a4040007a0000005272001", "050403000000 9000")
	h.want("0001100000", "00bc614e 9000")
	h.want("0001200000", "6985")
	h.want("0001150000", "6a86")
	h.want("00010100"+"41"+strings.Repeat("00", 65), "6700")
	h.want("0003000000", "050403000000 9000")
	h.card.PowerUp()
	h.want("00fd000000", "6d00")
}

func TestFirmware(t *testing.T) {
	for _, c := range []struct{ firmware, apdu, answer string }{
		{"4.3.5", "00f8000000", "6d00"},
		{"4.3.5", "00f7008000", "6d00"},
		{"5.2.7", "00f7008000", "6d00"},
		{"5.2.7", "00f8000000", "00bc614e9000"},
		{"5.4.3", "00f7008000", "0101ff0501010602 03039000"},
		{"5.4.3", "00f7009b00", "0101030202 00010501019000"},
		{"5.7.1", "00f7009b00", "01010a0202 00010501019000"},
		{"5.7.1", "00f7009600", "6a88"},
		{"5.7.1", "00f7009a00", "6a88"},
		{"4.2.0", "00f99a0000", "6d00"},
		{"4.3.5", "00f99a0000", "6a80"},
		{"5.4.3", "00f6829a00", "6d00"},
		{"5.7.1", "00f6829a00", "6982"},
	} {
		t.Run(c.firmware+" "+c.apdu, func(t *testing.T) { withPIV(t, c.firmware).want(c.apdu, c.answer) })
	}
}

func TestConfiguration(t *testing.T) {
	for firmware, want := range map[string]string{
		"4.3.5": "12 010131 020400bc614e 030131 040101 0a0100",
		"5.4.3": "23 01020031 020400bc614e 03020031 040101 0503050403 06020000 07010f 080100 0a0100",
	} {
		h := newHost(t, firmware)
		h.card.Transmit(unhex(t, "00a4040008a000000527471117"))
		got := strings.ReplaceAll(want, " ", "")
		if n := len(got)/2 - 1; fmt.Sprintf("%02x", n) != got[:2] {
			t.Fatalf("the test's own length is wrong: %02x", n)
		}
		h.want("001d000000", got+"9000")
		h.want("001d010000", "6a86")
		h.want("001c000000", "6d00")
	}
}

func TestForms(t *testing.T) {
	h := withPIV(t, "5.4.3")
	for apdu, answer := range map[string]string{
		"":                         "6700",
		"00fd00":                   "6700",
		"00fd0000":                 "0504039000", // no Le: clients count on an answer
		"00fd000003":               "0504039000",
		"00fd000002":               "6c03",
		"00fd0000000000":           "0504039000",
		"00fd000000000003":         "6700", // extended, without data, with some more
		"00fd0000000002":           "05046101",
		"00fd00000001":             "6700",
		"00cb3fff055c0101":         "6700",
		"00cb3fff035c017e":         hex.EncodeToString(discovery) + "9000",
		"00cb3fff035c017e00":       hex.EncodeToString(discovery) + "9000",
		"00cb3fff035c017e04":       hex.EncodeToString(discovery[:4]) + "6110",
		"00cb3fff0000035c017e":     hex.EncodeToString(discovery) + "9000",
		"00cb3fff0000035c017e0004": hex.EncodeToString(discovery[:4]) + "6110",
		"80fd000000":               "6e00",
		"00aa000000":               "6d00",
		"00c0000000":               "6985",
	} {
		h.want(apdu, answer)
		h.card.rest = nil
	}
}

func TestChaining(t *testing.T) {
	h := withPIV(t, "5.4.3")
	h.want("10cb3fff025c03", "9000")
	h.want("00cb3fff035fc105", "6a82")
	h.want("10cb3fff025c03", "9000")
	h.want("00fd000000", "0504039000") // another command ends the chain
	h.want("00cb3fff035fc105", "6a80")
	h.want("10cb3fff025c03", "9000")
	h.card.PowerUp()
	h.selectPIV()
	h.want("00cb3fff035fc105", "6a80")
	chunk := "10db3fffff" + strings.Repeat("00", 255)
	for range maxCommand / 255 {
		h.want(chunk, "9000")
	}
	h.want(chunk, "6700")
}

func TestLongAnswer(t *testing.T) {
	h := withPIV(t, "5.4.3")
	h.manage()
	value := bytes.Repeat([]byte{0xAB}, 700)
	object := appendTLV(nil, tagObjectData, value...)
	h.must("00db3fff", append([]byte{0x5C, 3, 0x5F, 0xC1, 5}, object...))

	whole := h.must("00cb3fff", []byte{0x5C, 3, 0x5F, 0xC1, 5})
	if !bytes.Equal(whole, object) {
		t.Errorf("in one piece: %x", whole)
	}
	get := "00cb3fff055c035fc10500"
	h.want(get, hex.EncodeToString(object[:256])+"6100")
	h.want("00c0000000", hex.EncodeToString(object[256:512])+"61c0")
	h.want("00c0000010", hex.EncodeToString(object[512:528])+"61b0")
	h.want("00c0000000", hex.EncodeToString(object[528:])+"9000")
	h.want("00c0000000", "6985")
	h.want(get, hex.EncodeToString(object[:256])+"6100")
	h.want("00fd000000", "0504039000") // another command drops the rest
	h.want("00c0000000", "6985")
}

func TestATR(t *testing.T) {
	const want = "3bfd1300008131fe158073c021c057597562694b657940"
	atr := newHost(t, "5.4.3").card.ATR()
	if got := hex.EncodeToString(atr); got != want {
		t.Errorf("the ATR is %s", got)
	}
	check := byte(0)
	for _, b := range atr[1:] {
		check ^= b
	}
	if check != 0 {
		t.Errorf("its check byte is wrong: %x", check)
	}
}
