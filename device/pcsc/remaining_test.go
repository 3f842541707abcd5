package pcsc

import "testing"

// The rest of an answer is asked for as the selected application wants it.
func TestRemaining(t *testing.T) {
	for name, c := range map[string]struct {
		command, answer string
		selects, own    bool
	}{
		"YubiKey":                      {"00 a4 04 00 07 a0000005272101", "79 03 050403 71 02 aabb", true, true},
		"YubiKey, with Le":             {"00 a4 04 00 07 a0000005272101 00", "79 03 050403 71 02 aabb", true, true},
		"Nitrokey 3":                   {"00 a4 04 00 07 a0000005272101", "79 03 040d00 82 01 08 8f 04 00005d19", true, false},
		"damaged":                      {"00 a4 04 00 07 a0000005272101", "79 09 05", true, true},
		"another application":          {"00 a4 04 00 05 a000000308", "", true, false},
		"CALCULATE ALL is no SELECT":   {"00 a4 00 01 02 7400", "", false, false},
		"what is no command":           {"00 a4", "", false, false},
		"a command with the same data": {"00 a5 04 00 07 a0000005272101", "", false, true},
	} {
		command := bin(t, c.command)
		if selects, own := isSelect(command), hasRemaining(command, bin(t, c.answer)); selects != c.selects || own != c.own {
			t.Errorf("%s: %v, %v", name, selects, own)
		}
	}
	steps := script(t, `
		00a1000000 > 72*255 61ff
		00a5000000 > 73*2 6103
		00a5000000 > 74*3 9000`)
	data, status, err := converse(bin(t, "00 a1 00 00 00"), oathExchange(steps))
	if err != nil || status != 0x9000 || len(data) != 260 {
		t.Errorf("%x, %04x, %v", data, status, err)
	}
}
