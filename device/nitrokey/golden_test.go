package nitrokey_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/emulator/nitrokeypro"
)

// What libnitrokey 3.7 sent when it was told to do the same, to a Pro and to a Storage with firmware 0.53. Zeros at the end, but
// for the checksum, are left out.
const (
	proStatus     = "00 dfb76eef"
	proTries      = "09 92c23abc"
	authenticate  = "0731323334353637380000000000000000000000000000000000" + "74656d706f72617279 53eda970"
	slotName2     = "0211 0a48f7db"
	code1         = "0410 c67f0275"
	sendSeed      = "1774656d706f7261727900000000000000000000000000000000" + "53003132333435363738393031323334353637383930 7d09061e"
	writeSlot1    = "0174656d706f7261727900000000000000000000000000000000" + "1001 4a8dd782"
	eraseSlot2    = "061174656d706f72617279 9c81a7df"
	storageStatus = "2e efc49b84"
	oldWriteSlot1 = "0110" + "726663000000000000000000000000" + "3132333435363738393031323334353637383930" +
		"0000000000000000000000000000" + "31 6d8d3a56"
	oldEraseSlot2 = "0611 cf55f59b"
	oldAuthorize2 = "08cf55f59b74656d706f72617279 c099947c"
)

// sent is a report of libnitrokey's, without a report number.
func sent(t *testing.T, text string) (p [64]byte) {
	t.Helper()
	payload, crc, _ := strings.Cut(text, " ")
	for at, part := range map[int]string{0: payload, 60: crc} {
		b, err := hex.DecodeString(part)
		if err != nil {
			t.Fatal(err)
		}
		copy(p[at:], b)
	}
	if sum(p[:]) != binary.LittleEndian.Uint32(p[60:]) {
		t.Fatalf("the checksum of %s is not that of the test", text)
	}
	return p
}

// scribe writes down the commands that are sent, without the mark that libnitrokey does not have.
type scribe struct {
	device.Report
	said [][64]byte
}

func (r *scribe) Draw(p []byte) { copy(p, "temporary") }

func (r *scribe) SetFeature(p []byte) error {
	said := [64]byte(p[1:])
	said[59] = 0
	binary.LittleEndian.PutUint32(said[60:], sum(said[:]))
	r.said = append(r.said, said)
	return r.Report.SetFeature(p)
}

// TestLikeLibnitrokey compares what is sent with what libnitrokey sends.
func TestLikeLibnitrokey(t *testing.T) {
	named := sent(t, oldWriteSlot1)
	copy(named[2:], "tokendesk")
	binary.LittleEndian.PutUint32(named[60:], sum(named[:]))
	for kind, want := range map[string][][64]byte{
		"pro": {
			sent(t, proStatus), sent(t, proTries), sent(t, authenticate), sent(t, sendSeed), sent(t, writeSlot1), sent(t, code1),
			sent(t, slotName2), sent(t, eraseSlot2),
		},
		"storage": {
			sent(t, storageStatus), sent(t, authenticate), sent(t, sendSeed), sent(t, writeSlot1), sent(t, code1),
			sent(t, eraseSlot2),
		},
		"pro-0.7":    {sent(t, proStatus), sent(t, authenticate), sent(t, code1), sent(t, slotName2), sent(t, oldEraseSlot2)},
		"storage-53": {sent(t, storageStatus), sent(t, authenticate), named, sent(t, code1), sent(t, oldEraseSlot2)},
	} {
		o := kinds(t)[kind]
		bubble(t, kind, func(t *testing.T) {
			k := newToken(o)
			r := &scribe{Report: k.Open()}
			s, one := over(t, k, r)
			two, err := s.Token(t.Context(), "nk-00005d19/hotp2")
			if err != nil {
				t.Fatal(err)
			}
			c := config()
			c.StartCounter = 1
			program(t, one, c)
			program(t, two, c)
			expectCodes(t, one, codes[1])
			if err := two.Delete(t.Context(), adminPIN); err != nil {
				t.Fatal(err)
			}
			for i, p := range want {
				if !slices.Contains(r.said, p) {
					t.Errorf("it never said what is number %d of libnitrokey's: %x", i, p)
				}
			}
		})
	}
}

// TestOldAuthority shows that old firmware is told the checksum of what was sent after it, mark included.
func TestOldAuthority(t *testing.T) {
	k := newToken(nitrokeypro.Options{Firmware: device.Version{Minor: 7}, Timing: &nitrokeypro.Timing{}})
	var said [][]byte
	_, one := over(t, k, &setTap{Report: k.Open(), before: func(p []byte) { said = append(said, bytes.Clone(p[1:])) }})
	program(t, one, config())
	n := len(said)
	if n < 2 || said[n-2][0] != 0x08 || !bytes.Equal(said[n-2][1:5], said[n-1][60:]) {
		t.Fatalf("it said %x", said)
	}
	theirs, erase := sent(t, oldAuthorize2), sent(t, oldEraseSlot2)
	if !bytes.Equal(theirs[1:5], erase[60:]) {
		t.Error("libnitrokey does otherwise")
	}
}
