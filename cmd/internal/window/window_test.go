package window

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func events(t *testing.T, list ...inputEvent) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	for _, e := range list {
		if err := binary.Write(&b, binary.NativeEndian, e); err != nil {
			t.Fatal(err)
		}
	}
	return &b
}

// The codes are those of linux/input-event-codes.h: KEY_C 46, KEY_5 6, KEY_0 11, KEY_ENTER 28, KEY_KP0 82.
func TestRead(t *testing.T) {
	press, release := int32(1), int32(0)
	stream := events(t,
		inputEvent{Type: 4, Code: 4, Value: 7}, // MSC_SCAN
		inputEvent{Type: 1, Code: 46, Value: press}, inputEvent{Type: 0},
		inputEvent{Type: 1, Code: 46, Value: 2}, // repeated
		inputEvent{Type: 1, Code: 46, Value: release},
		inputEvent{Type: 1, Code: 42, Value: press}, inputEvent{Type: 1, Code: 46, Value: press},
		inputEvent{Type: 1, Code: 42, Value: release},
		inputEvent{Type: 1, Code: 6, Value: press}, inputEvent{Type: 1, Code: 11, Value: press}, inputEvent{Type: 1, Code: 82, Value: press},
		inputEvent{Type: 1, Code: 1, Value: press}, inputEvent{Type: 1, Code: 28, Value: press},
	)
	stream.Write([]byte{1, 2, 3}) // cut off by a pulled key
	var got []byte
	read(stream, func(c byte) { got = append(got, c) })
	if string(got) != "cC500?\n" {
		t.Fatalf("%q", got)
	}
}
