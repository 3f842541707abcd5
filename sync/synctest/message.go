package synctest

import (
	"errors"
	"io"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// maxMessage bounds what a proxy keeps in memory of one message.
const maxMessage = 64 << 20

var errNoMessage = errors.New("not an LDAP message (RFC 4511 section 4.1.1)")

// message is one LDAP message as it came over the wire.
type message struct {
	raw []byte
	id  int64
	op  uint8 // the application tag, such as ldap.ApplicationModifyRequest
}

// readMessage reads one message and not a byte more.
func readMessage(r io.Reader) (message, error) {
	raw, size, err := readHeader(r)
	if err != nil {
		return message{}, err
	}
	header := len(raw)
	raw = append(raw, make([]byte, size)...)
	if _, err := io.ReadFull(r, raw[header:]); err != nil {
		return message{}, err
	}
	m := message{raw: raw}
	body := raw[header:]
	if len(body) < 2 || body[0] != 2 || body[1] < 1 || body[1] > 4 || len(body) < 2+int(body[1])+1 {
		return message{}, errNoMessage
	}
	for _, b := range body[2 : 2+body[1]] {
		m.id = m.id<<8 | int64(b)
	}
	tag := body[2+body[1]]
	if tag&0xc0 != 0x40 { // class application
		return message{}, errNoMessage
	}
	m.op = tag & 0x1f
	return m, nil
}

// readHeader reads the tag and the length of a sequence (definite form, X.690 section 8.1.3).
func readHeader(r io.Reader) (raw []byte, size int, err error) {
	raw = make([]byte, 2, 6)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, 0, err
	}
	if raw[0] != 0x30 || raw[1] == 0x80 || raw[1] > 0x84 {
		return nil, 0, errNoMessage
	}
	if raw[1] < 0x80 {
		return raw, int(raw[1]), nil
	}
	raw = raw[:2+raw[1]&0x7f]
	if _, err := io.ReadFull(r, raw[2:]); err != nil {
		return nil, 0, err
	}
	for _, b := range raw[2:] {
		size = size<<8 | int(b)
	}
	if size > maxMessage {
		return nil, 0, errNoMessage
	}
	return raw, size, nil
}

// isWrite tells requests that change the directory.
func isWrite(op uint8) bool {
	switch op {
	case ldap.ApplicationModifyRequest, ldap.ApplicationAddRequest, ldap.ApplicationDelRequest, ldap.ApplicationModifyDNRequest:
		return true
	}
	return false
}

// isFinal tells the response that ends an answer from those before it: a search has many.
func isFinal(op uint8) bool {
	switch op {
	case ldap.ApplicationSearchResultEntry, ldap.ApplicationSearchResultReference, 25: // IntermediateResponse (section 4.13)
		return false
	}
	return true
}

// answer is the LDAPResult to request m. Every response tag is the request's plus one, except that
// a search ends with SearchResultDone (5).
func answer(m message, code uint16, text string) []byte {
	tag := m.op + 1
	if m.op == ldap.ApplicationSearchRequest {
		tag = ldap.ApplicationSearchResultDone
	}
	r := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	r.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, m.id, ""))
	result := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ber.Tag(tag), nil, "")
	result.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, uint64(code), ""))
	for _, s := range []string{"", text} {
		result.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, ""))
	}
	r.AppendChild(result)
	return r.Bytes()
}
