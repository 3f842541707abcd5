package vault

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// searched is what a search needs of a token's record. The names are those of Token.
type searched struct {
	Owner      string `json:"owner"`
	Tenant     string `json:"tenant"`
	Digits     int    `json:"digits"`
	Counter    uint64 `json:"counter"`
	Generation int    `json:"generation"`
}

// readSearched reads the record of a token, which has authenticated and is thus what json.Marshal has written. encoding/json takes five
// times as long for it as everything else that EachSeed does for a seed; it is asked only where the record is not as plain as most.
func readSearched(record []byte) (t searched, err error) {
	if t, ok := plainSearched(record); ok {
		return t, nil
	}
	err = json.Unmarshal(record, &t)
	return t, err
}

// plainSearched reads an object without spaces, of members whose names have no escapes; false if it is not one.
func plainSearched(b []byte) (t searched, ok bool) {
	if len(b) == 0 || b[0] != '{' {
		return t, false
	}
	for b = b[1:]; ; b = b[1:] {
		name, rest := plainString(b)
		if name == nil || len(rest) == 0 || rest[0] != ':' {
			return t, false
		}
		b = rest[1:]
		ok := true
		switch string(name) {
		case "owner":
			t.Owner, b, ok = plainText(b)
		case "tenant":
			t.Tenant, b, ok = plainText(b)
		case "digits":
			t.Digits, b, ok = plainInt(b)
		case "generation":
			t.Generation, b, ok = plainInt(b)
		case "counter":
			t.Counter, b, ok = plainNumber(b)
		default:
			b = skipValue(b)
		}
		switch {
		case !ok || len(b) == 0:
			return t, false
		case b[0] == '}':
			return t, len(b) == 1
		case b[0] != ',':
			return t, false
		}
	}
}

// plainString returns what is in quotes at the beginning of b, and what follows; nil if there is no such thing, or an escape in it.
func plainString(b []byte) (s, rest []byte) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil
	}
	n := bytes.IndexByte(b[1:], '"')
	if n < 0 || bytes.IndexByte(b[1:1+n], '\\') >= 0 {
		return nil, nil
	}
	return b[1 : 1+n], b[n+2:]
}

func plainText(b []byte) (s string, rest []byte, ok bool) {
	text, rest := plainString(b)
	return string(text), rest, text != nil && utf8.Valid(text)
}

func plainNumber(b []byte) (n uint64, rest []byte, ok bool) {
	end := 0
	for end < len(b) && '0' <= b[end] && b[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(string(b[:end]), 10, 64)
	return n, b[end:], err == nil
}

func plainInt(b []byte) (n int, rest []byte, ok bool) {
	u, rest, ok := plainNumber(b)
	return int(u), rest, ok && u <= 1<<31
}

// skipValue returns what follows the value at the beginning of b, nil if it does not end.
func skipValue(b []byte) []byte {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; ; i++ {
				n := bytes.IndexByte(b[min(i, len(b)):], '"')
				if n < 0 {
					return nil
				}
				if i += n; !escaped(b[:i]) {
					break
				}
			}
		case '{', '[':
			depth++
		case '}', ']', ',':
			if depth == 0 {
				return b[i:]
			}
			if b[i] != ',' {
				depth--
			}
		}
	}
	return nil
}

// escaped tells whether what follows b has a backslash before it that counts.
func escaped(b []byte) bool {
	n := 0
	for len(b) > n && b[len(b)-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}
