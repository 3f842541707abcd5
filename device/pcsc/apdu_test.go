package pcsc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"tokendesk/device"
)

// script plays a card: lines "command > answer" in hexadecimal, with runs of a byte as "ab*200".
func script(t *testing.T, lines string) func([]byte) ([]byte, error) {
	steps := strings.Split(strings.TrimSpace(lines), "\n")
	t.Cleanup(func() {
		if len(steps) > 0 {
			t.Errorf("not sent: %s", steps)
		}
	})
	return func(apdu []byte) ([]byte, error) {
		if len(steps) == 0 {
			t.Fatalf("%x was sent after the end", apdu)
		}
		want, answer, _ := strings.Cut(steps[0], " > ")
		steps = steps[1:]
		if !bytes.Equal(apdu, bin(t, want)) {
			t.Fatalf("%x was sent, not %s", apdu, want)
		}
		return bin(t, answer), nil
	}
}

func bin(t *testing.T, text string) []byte {
	t.Helper()
	var all []byte
	for word := range strings.FieldsSeq(text) {
		digits, times, repeated := strings.Cut(word, "*")
		b, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		n := 1
		if repeated {
			n = 0
			for _, c := range times {
				n = n*10 + int(c-'0')
			}
		}
		all = append(all, bytes.Repeat(b, n)...)
	}
	return all
}

func TestConverse(t *testing.T) {
	for name, c := range map[string]struct{ command, steps, data, status string }{
		"case 1":                     {"00 a4 01 02", "00a40102 > 9000", "", "9000"},
		"case 2":                     {"00 a4 01 02 00", "00a4010200 > 0102 9000", "0102", "9000"},
		"case 2, extended":           {"00 a4 01 02 000000", "00a4010200 > 9000", "", "9000"},
		"case 3":                     {"00 a4 01 02 02 aabb", "00a4010202aabb > 6a82", "", "6a82"},
		"case 4":                     {"00 a4 01 02 02 aabb 10", "00a4010202aabb00 > 01 9000", "01", "9000"},
		"case 3, extended":           {"00 a4 01 02 000002 aabb", "00a4010202aabb > 9000", "", "9000"},
		"case 4, extended":           {"00 a4 01 02 000002 aabb 0000", "00a4010202aabb00 > 9000", "", "9000"},
		"as long as goes":            {"00 a4 01 02 ff aa*255", "00a40102ff aa*255 > 9000", "", "9000"},
		"a long command":             {"00 db 3f ff 000300 aa*768", "10db3fffff aa*255 > 9000\n10db3fffff aa*255 > 9000\n10db3fffff aa*255 > 9000\n00db3fff03 aa*3 > 9000", "", "9000"},
		"refused in the middle":      {"00 db 3f ff 000300 aa*768", "10db3fffff aa*255 > 9000\n10db3fffff aa*255 > 6982", "", "6982"},
		"a long answer":              {"00 cb 00 00 00", "00cb000000 > 01*256 6100\n00c0000000 > 02*256 6103\n00c0000003 > 030303 9000", "01*256 02*256 03*3", "9000"},
		"the channel is kept":        {"01 cb 00 00 00", "01cb000000 > 6102\n01c0000002 > 0102 9000", "0102", "9000"},
		"another length":             {"00 cb 00 00 00", "00cb000000 > 6c05\n00cb000005 > 0102030405 9000", "0102030405", "9000"},
		"another length, again":      {"00 cb 00 00 00", "00cb000000 > 6c05\n00cb000005 > 6c05", "", "6c05"},
		"another length, no Le":      {"00 cb 00 00 01 aa", "00cb000001aa > 6c05\n00cb000001aa05 > 9000", "", "9000"},
		"another length of the rest": {"00 cb 00 00 00", "00cb000000 > 01 6110\n00c0000010 > 6c02\n00c0000002 > 0203 9000", "010203", "9000"},
		"an error at the end":        {"00 cb 00 00 00", "00cb000000 > 01 6110\n00c0000010 > 02 6f00", "0102", "6f00"},
	} {
		t.Run(name, func(t *testing.T) {
			data, status, err := converse(bin(t, c.command), script(t, c.steps))
			if want := bin(t, c.status); err != nil || !bytes.Equal(data, bin(t, c.data)) || status != uint16(want[0])<<8|uint16(want[1]) {
				t.Errorf("%x, %04x, %v", data, status, err)
			}
		})
	}
}

func TestWhatIsNoCommand(t *testing.T) {
	for _, text := range []string{"", "00a401", "00a4010202aa", "00a4010202aabb0000", "00a40102000002aa", "00a40102000000aa", "00a4010200000000", "00a401020000"} {
		if _, _, err := converse(bin(t, text), func([]byte) ([]byte, error) { panic("sent") }); err != errAPDU {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAnswersHaveAnEnd(t *testing.T) {
	for name, answer := range map[string][]byte{"nothing": {}, "one byte": {0x90}, "no end": {0x61, 0x00}, "no end, large": append(make([]byte, 40000), 0x61, 0x00)} {
		n := 0
		_, _, err := converse([]byte{0, 0xCB, 0, 0, 0}, func([]byte) ([]byte, error) { n++; return answer, nil })
		if !errors.Is(err, device.ErrCorrupt) || n > maxResponses+1 {
			t.Errorf("%s: %v after %d commands", name, err, n)
		}
	}
	broken := errors.New("broken")
	data, status, err := converse([]byte{0, 0xCB, 0, 0, 0}, func(apdu []byte) ([]byte, error) {
		if apdu[1] == getResponse {
			return nil, broken
		}
		return []byte{1, 0x61, 0x00}, nil
	})
	if data != nil || status != 0 || err != broken {
		t.Errorf("%x, %04x, %v", data, status, err)
	}
}

// A command is never sent further than the card allows, whatever it answers, and all of it is sent if it does.
func FuzzConverse(f *testing.F) {
	f.Add([]byte("\x00\xa4\x04\x00\x02ab"), []byte("\x02\x90\x00"))
	f.Add([]byte("\x00\xdb\x3f\xff\x00\x01\x10"+strings.Repeat("a", 0x110)), []byte("\x02\x90\x00\x02\x61\x02\x04ab\x90\x00"))
	f.Add([]byte("\x00\xcb\x00\x00\x00"), []byte("\x02\x6c\x02\x04ab\x61\x05"))
	f.Fuzz(func(t *testing.T, command, answers []byte) {
		sent, total := 0, 0
		var body []byte
		data, status, err := converse(command, func(apdu []byte) ([]byte, error) {
			sent++
			if len(apdu) < 4 || len(apdu) > 4+1+chunk+1 {
				t.Fatalf("an APDU of %d bytes", len(apdu))
			}
			if len(apdu) > 5 && apdu[1] == command[1] && len(apdu) >= 5+int(apdu[4]) {
				body = append(body, apdu[5:5+int(apdu[4])]...)
			}
			if len(answers) == 0 {
				return []byte{0x90, 0x00}, nil
			}
			n := min(int(answers[0]), len(answers)-1)
			answer := answers[1 : 1+n]
			answers = answers[1+n:]
			total += n
			return answer, nil
		})
		switch {
		case errors.Is(err, errAPDU):
			if sent > 0 {
				t.Error("it was sent")
			}
		case err != nil:
			if !errors.Is(err, device.ErrCorrupt) || data != nil {
				t.Errorf("%x, %v", data, err)
			}
		case len(data) > total || status == 0 && sent == 0:
			t.Errorf("%d bytes of %d that came", len(data), total)
		case status == statusOK && sent > len(body)/chunk+3+maxResponses:
			t.Errorf("%d commands", sent)
		}
	})
}
