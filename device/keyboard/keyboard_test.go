package keyboard_test

import (
	"testing"
	"unicode/utf8"

	"tokendesk/device/keyboard"
)

func press(usage, modifiers byte) []byte { return []byte{modifiers, 0, usage, 0, 0, 0, 0, 0} }

func decode(reports ...[]byte) string {
	var d keyboard.Decoder
	var text string
	for _, r := range reports {
		text += d.Feed(r)
	}
	return text
}

func TestFeed(t *testing.T) {
	release := press(0, 0)
	for _, c := range []struct {
		name    string
		reports [][]byte
		want    string
	}{
		{"modhex and digits", [][]byte{press(0x18, 0), release, press(0x05, 0), release, press(0x1e, 0), release, press(0x27, 0), release}, "ub10"},
		{"same key twice", [][]byte{press(0x1e, 0), release, press(0x1e, 0), release}, "11"},
		{"held key counts once", [][]byte{press(0x1e, 0), press(0x1e, 0), release}, "1"},
		{"shift", [][]byte{press(0x04, 0x02), release, press(0x04, 0x20), release}, "AA"},
		{"keypad", [][]byte{press(0x59, 0), release, press(0x61, 0), release, press(0x62, 0), release, press(0x58, 0)}, "190\n"},
		{"tab and enter", [][]byte{press(0x2b, 0), release, press(0x28, 0)}, "\t\n"},
		{"rollover without release", [][]byte{press(0x1e, 0), {0, 0, 0x1e, 0x1f, 0, 0, 0, 0}, release}, "12"},
		{"error rollover", [][]byte{press(0x1e, 0), {0, 0, 1, 1, 1, 1, 1, 1}, press(0x1e, 0)}, "1"},
		{"foreign key shows", [][]byte{press(0x3a, 0)}, string(keyboard.Unknown)},
		{"shifted digit is no digit", [][]byte{press(0x1e, 0x02)}, string(keyboard.Unknown)},
		{"short report", [][]byte{{0, 0, 0x1e}}, ""},
	} {
		if got := decode(c.reports...); got != c.want {
			t.Errorf("%s: typed %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzFeed(f *testing.F) {
	f.Add([]byte{0, 0, 0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{2, 0, 4, 5, 6, 7, 8, 9})
	f.Fuzz(func(t *testing.T, stream []byte) {
		var d keyboard.Decoder
		for len(stream) > 0 {
			n := min(keyboard.ReportSize, len(stream))
			text := d.Feed(stream[:n])
			if utf8.RuneCountInString(text) > 6 || !utf8.ValidString(text) {
				t.Fatalf("one report of six keys typed %q", text)
			}
			stream = stream[n:]
		}
	})
}
