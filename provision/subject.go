package provision

import (
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf8"
)

// A subject is written as RFC 4514 has it: "CN=Alice,O=Example\, Inc.,C=DE", the most specific part first. Parts of several values
// (joined by a plus sign) and values in hexadecimal are not taken.

// maxSubject is how long a subject can be, in bytes, and maxParts of how many parts it can be.
const (
	maxSubject = 500
	maxParts   = 20
)

// ASN.1 types of values: UTF-8 where RFC 5280 section 4.1.2.4 allows it, PrintableString and IA5String where it asks for them.
const (
	tagUTF8      = asn1.TagUTF8String
	tagPrintable = asn1.TagPrintableString
	tagIA5       = asn1.TagIA5String
)

// attributes are those that subjects may have, by their names in upper case.
var attributes = map[string]struct {
	id  asn1.ObjectIdentifier
	tag int
}{
	"CN": {asn1.ObjectIdentifier{2, 5, 4, 3}, tagUTF8}, "SN": {asn1.ObjectIdentifier{2, 5, 4, 4}, tagUTF8},
	"SERIALNUMBER": {asn1.ObjectIdentifier{2, 5, 4, 5}, tagPrintable}, "C": {asn1.ObjectIdentifier{2, 5, 4, 6}, tagPrintable},
	"L": {asn1.ObjectIdentifier{2, 5, 4, 7}, tagUTF8}, "ST": {asn1.ObjectIdentifier{2, 5, 4, 8}, tagUTF8},
	"STREET": {asn1.ObjectIdentifier{2, 5, 4, 9}, tagUTF8}, "O": {asn1.ObjectIdentifier{2, 5, 4, 10}, tagUTF8},
	"OU": {asn1.ObjectIdentifier{2, 5, 4, 11}, tagUTF8}, "TITLE": {asn1.ObjectIdentifier{2, 5, 4, 12}, tagUTF8},
	"GIVENNAME": {asn1.ObjectIdentifier{2, 5, 4, 42}, tagUTF8}, "UID": {asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, tagUTF8},
	"DC":           {asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, tagIA5},
	"EMAILADDRESS": {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, tagIA5},
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type relativeSET []attribute // encoding/asn1 makes a SET of a type with that end

// parseSubject returns the DER of a subject.
func parseSubject(s string) ([]byte, error) {
	bad := func(why string) ([]byte, error) {
		return nil, refuse(`write it as "CN=Alice Example,O=Example"`, "the subject %s", why)
	}
	if len(s) > maxSubject || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return bad("has more than 500 bytes, control characters or no UTF-8")
	}
	var sequence []relativeSET
	for s != "" || len(sequence) == 0 {
		name, rest, found := strings.Cut(s, "=")
		known, ok := attributes[strings.ToUpper(strings.TrimSpace(name))]
		if !found || !ok {
			return bad("has a part that does not begin with CN=, O=, OU=, C=, UID= or the like")
		}
		value, rest, more, err := cutValue(rest)
		switch {
		case err != "":
			return bad(err)
		case !utf8.ValidString(value):
			return bad("is not UTF-8")
		case value == "":
			return bad("has a part without a value")
		case more && rest == "":
			return bad("ends in a comma")
		case len(sequence) == maxParts:
			return bad("has more than 20 parts")
		case known.tag != tagUTF8 && !fits(value, known.tag):
			return bad("has a character in " + strings.ToUpper(strings.TrimSpace(name)) + " that does not belong there")
		}
		sequence = append(sequence, relativeSET{{known.id, asn1.RawValue{Tag: known.tag, Bytes: []byte(value)}}})
		s = rest
	}
	slices.Reverse(sequence) // in the certificate, the most specific part comes last
	return asn1.Marshal(sequence)
}

// cutValue reads up to the next comma that is not escaped; more tells that there was one.
func cutValue(s string) (value, rest string, more bool, bad string) {
	s = strings.TrimLeft(s, " ")
	var out []byte
	kept := 0 // blanks behind this are not the value's
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ',':
			return string(out[:max(kept, len(strings.TrimRight(string(out), " ")))]), s[i+1:], true, ""
		case c == '\\' && i+1 < len(s) && strings.IndexByte(` "#+,;<=>\`, s[i+1]) >= 0:
			i++
			out = append(out, s[i])
			kept = len(out)
		case c == '\\':
			b, err := hex.DecodeString(s[i+1 : min(i+3, len(s))])
			if err != nil || len(b) != 1 || b[0] < ' ' || b[0] == 0x7F {
				return "", "", false, "has a backslash before what need not be escaped"
			}
			out = append(out, b[0])
			i += 2
			kept = len(out)
		case strings.IndexByte(`"+;<>`, c) >= 0, c == '#' && len(out) == 0:
			return "", "", false, "has one of the characters \" + ; < > # without a backslash before it"
		default:
			out = append(out, c)
		}
	}
	return string(out[:max(kept, len(strings.TrimRight(string(out), " ")))]), "", false, ""
}

// fits tells whether a value has only characters of its ASN.1 type.
func fits(value string, tag int) bool {
	for _, c := range []byte(value) {
		alnum := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if c > '~' || tag == tagPrintable && !alnum && strings.IndexByte(" '()+,-./:=?", c) < 0 {
			return false
		}
	}
	return true
}

// escapeName writes a value so that parseSubject reads it.
func escapeName(s string) string {
	var out strings.Builder
	for i := range len(s) {
		if c := s[i]; strings.IndexByte(`"#+,;<=>\`, c) >= 0 || c == ' ' && (i == 0 || i == len(s)-1) {
			out.WriteByte('\\')
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
