package otpslot

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

func chunksHex(reports [][device.ReportSize]byte) []string {
	var s []string
	for _, r := range reports {
		if r[0] != 0 {
			return append(s, "report number is not 0")
		}
		s = append(s, hex.EncodeToString(r[1:]))
	}
	return s
}

func expectChunks(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d chunks %v, want %d", len(got), got, len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("chunk %d is %s, want %s", i, got[i], want[i])
		}
	}
}

func TestSerialRequestVector(t *testing.T) {
	expectChunks(t, chunksHex(frame(commandSerial, nil)), []string{"0000000000000080", "00106b5b00000089"})
}

// The bytes that ykpersonalize sends for slot 2, 8 digits, start counter 16, the RFC 4226 key, token
// identifier 12345678 and a new access code.
func TestConfigureVector(t *testing.T) {
	config := hotpConfig(device.HOTPConfig{
		Seed:            secret.New([]byte("12345678901234567890")),
		Digits:          8,
		StartCounter:    16,
		TokenIdentifier: true,
		Enter:           true,
		NewAccessCode:   secret.New([]byte{1, 2, 3, 4, 5, 6}),
	}, 12345678)
	expectChunks(t, chunksHex(frame(commandConfigure2, config)), []string{
		"e163123456780080", "0000373839300082", "0131323334353683", "3738393031323384",
		"3435360102030485", "0506062460420086", "006cb30000000087", "0003955600000089",
	})
}

func TestCheckResponse(t *testing.T) {
	data := []byte{0, 0xbc, 0x61, 0x4e}
	crc := ^crc16(data)
	whole := append(bytes.Clone(data), byte(crc), byte(crc>>8), 0)
	if got, err := checkResponse(whole, 4); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got % x, %v", got, err)
	}
	for i := range 6 {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		if _, err := checkResponse(damaged, 4); !errors.Is(err, device.ErrCorrupt) {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
	}
	if _, err := checkResponse(whole[:5], 4); !errors.Is(err, device.ErrCorrupt) {
		t.Error("a short answer went unnoticed")
	}
}

func FuzzCheckResponse(f *testing.F) {
	f.Add([]byte{0, 0xbc, 0x61, 0x4e, 1, 2, 0}, 4)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		n = int(uint(n) % payloadSize)
		got, err := checkResponse(data, n)
		if err == nil && len(got) != n {
			t.Fatalf("%d bytes instead of %d", len(got), n)
		}
	})
}

func TestTypedLine(t *testing.T) {
	for line, want := range map[string]string{
		"22186581":              "22186581",
		"ubhe1234567822186581":  "22186581",
		"ubhe12345678755224":    "755224",
		"\tubhe12345678\t75522": "",
		"755224\t":              "755224",
		"cccccbdefghi":          "",
		"7552240":               "",
		"":                      "",
		"75522\uFFFD":           "",
	} {
		m := typedLine.FindStringSubmatch(line)
		if got := len(m) > 0; got != (want != "") || got && m[2] != want {
			t.Errorf("%q: %v, want code %q", line, m, want)
		}
	}
}
