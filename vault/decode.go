package vault

import (
	"encoding/json"
	"time"

	"tokendesk/device"
)

// readTokenRecord decodes the record of a token, which has authenticated. encoding/json is asked only where the record is not as
// plain as most: it takes five times as long.
func readTokenRecord(record []byte) (t Token, err error) {
	if t, ok := plainToken(record); ok {
		return t, nil
	}
	err = json.Unmarshal(record, &t)
	return t, err
}

// plainToken reads an object without spaces, of members whose names and values have no escapes; false if it is not one, or has a
// member that a Token has not, or only few of them have.
func plainToken(b []byte) (t Token, ok bool) {
	if len(b) == 0 || b[0] != '{' {
		return t, false
	}
	for b = b[1:]; ; b = b[1:] {
		name, rest := plainString(b)
		if name == nil || len(rest) == 0 || rest[0] != ':' {
			return t, false
		}
		if b, ok = t.plainMember(string(name), rest[1:]); !ok || len(b) == 0 {
			return t, false
		}
		if b[0] == '}' {
			return t, len(b) == 1
		}
		if b[0] != ',' {
			return t, false
		}
	}
}

func (t *Token) plainMember(name string, b []byte) (rest []byte, ok bool) {
	var s string
	var n uint64
	switch name {
	case "id":
		s, rest, ok = plainText(b)
		t.ID = device.TokenID(s)
	case "serial":
		n, rest, ok = plainNumber(b)
		t.Serial = device.Serial(n)
		ok = ok && uint64(t.Serial) == n
	case "firmware":
		return t.plainFirmware(b)
	case "status":
		s, rest, ok = plainText(b)
		t.Status = Status(s)
	case "owner":
		t.Owner, rest, ok = plainText(b)
	case "digits":
		t.Digits, rest, ok = plainInt(b)
	case "identifier":
		t.Identifier, rest, ok = plainBool(b)
	case "enter":
		t.Enter, rest, ok = plainBool(b)
	case "counter":
		t.Counter, rest, ok = plainNumber(b)
	case "generation":
		t.Generation, rest, ok = plainInt(b)
	case "emulated":
		t.Emulated, rest, ok = plainBool(b)
	case "created":
		t.Created, rest, ok = plainTime(b)
	case "updated":
		t.Updated, rest, ok = plainTime(b)
	case "last_used":
		t.LastUsed, rest, ok = plainTime(b)
	case "seen":
		t.Seen, rest, ok = plainText(b)
	case "batch":
		t.Batch, rest, ok = plainText(b)
	case "tenant":
		t.Tenant, rest, ok = plainText(b)
	case "description":
		t.Description, rest, ok = plainText(b)
	}
	return rest, ok
}

func (t *Token) plainFirmware(b []byte) (rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '{' {
		return nil, false
	}
	for i, part := range []*uint8{&t.Firmware.Major, &t.Firmware.Minor, &t.Firmware.Build} {
		name, after := plainString(b[1:])
		if string(name) != [...]string{"major", "minor", "build"}[i] || len(after) == 0 || after[0] != ':' {
			return nil, false
		}
		var n uint64
		if n, b, ok = plainNumber(after[1:]); !ok || n > 255 || len(b) == 0 || (b[0] == '}') != (i == 2) || b[0] != ',' && i < 2 {
			return nil, false
		}
		*part = uint8(n)
	}
	return b[1:], true
}

func plainBool(b []byte) (is bool, rest []byte, ok bool) {
	switch {
	case len(b) >= 4 && string(b[:4]) == "true":
		return true, b[4:], true
	case len(b) >= 5 && string(b[:5]) == "false":
		return false, b[5:], true
	}
	return false, nil, false
}

func plainTime(b []byte) (at time.Time, rest []byte, ok bool) {
	text, rest := plainString(b)
	return at, rest, text != nil && at.UnmarshalText(text) == nil
}
