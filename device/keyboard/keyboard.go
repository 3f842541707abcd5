// Package keyboard turns USB boot-keyboard reports into the text that a token types.
//
// It knows the US layout, which is the one tokens type their scan codes for, and of it what tokens
// use: letters, digits, the keypad's digits, Tab and Enter. Everything else is reported as Unknown, so
// that a foreign key press spoils a line visibly instead of vanishing from it.
package keyboard

// Unknown stands for a key that no token types.
const Unknown = '\uFFFD'

// ReportSize is the size of a boot-keyboard input report (HID 1.11, appendix B.1).
const ReportSize = 8

const (
	shiftLeft  = 0x02
	shiftRight = 0x20
	rollOver   = 0x01 // ErrorRollOver: too many keys, no information
)

// Decoder follows the reports of one keyboard. Its zero value is ready.
type Decoder struct{ down [6]byte }

// Feed takes one input report and returns what was newly pressed. Reports that are too short are ignored.
func (d *Decoder) Feed(report []byte) string {
	if len(report) < ReportSize || report[2] == rollOver {
		return ""
	}
	shift := report[0]&(shiftLeft|shiftRight) != 0
	var text []rune
	for _, usage := range report[2:ReportSize] {
		if usage != 0 && !d.isDown(usage) {
			text = append(text, character(usage, shift))
		}
	}
	copy(d.down[:], report[2:ReportSize])
	return string(text)
}

func (d *Decoder) isDown(usage byte) bool {
	for _, u := range d.down {
		if u == usage {
			return true
		}
	}
	return false
}

// character maps a usage of the keyboard page (HID usage tables 1.12, section 10) and the shift state.
func character(usage byte, shift bool) rune {
	switch {
	case usage >= 0x04 && usage <= 0x1D: // a to z
		if shift {
			return 'A' + rune(usage-0x04)
		}
		return 'a' + rune(usage-0x04)
	case usage >= 0x1E && usage <= 0x26 && !shift: // 1 to 9
		return '1' + rune(usage-0x1E)
	case usage == 0x27 && !shift, usage == 0x62: // 0, keypad 0
		return '0'
	case usage >= 0x59 && usage <= 0x61: // keypad 1 to 9
		return '1' + rune(usage-0x59)
	case usage == 0x28, usage == 0x58: // Enter, keypad Enter
		return '\n'
	case usage == 0x2B:
		return '\t'
	}
	return Unknown
}
