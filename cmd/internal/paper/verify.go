package paper

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"io"

	"tokendesk/vault/audit"
)

// MaxDocument is more than any receipt has, in bytes.
const MaxDocument = 256 << 10

const (
	// statementMeta is where a page holds its statement.
	statementMeta    = `<meta name="statement" content="`
	statementMetaEnd = `">`

	seal = "<!-- " + string(audit.ReceiptPage) + " key=%s signature=%s -->\n"
)

// Proven is a receipt that verified.
type Proven struct {
	Statement
	Page bool // it was the whole page, and not only its QR code
}

// sealed signs a page, which ends with a line break, and returns it with the line that holds the signature.
func sealed(page []byte, key audit.Key, sign Signer) ([]byte, error) {
	signature, err := sign(audit.ReceiptPage, page)
	if err != nil {
		return nil, fmt.Errorf("cannot sign a receipt: %w", err)
	}
	return fmt.Appendf(page, seal, key, signature), nil
}

// Verify reads a receipt, as a page or as the text of its QR code, and says why it is not what the vault with that key signed, or
// returns what it says. With a nil key it takes the one that the receipt names: that proves only that the receipt agrees with
// itself.
//
// Of a page every byte counts. The text of a QR code may be followed by one line break, as scanners add it.
func Verify(r io.Reader, key *audit.Key) (Proven, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	switch {
	case err != nil:
		return Proven{}, fmt.Errorf("cannot read the receipt: %w", err)
	case len(text) > MaxDocument:
		return Proven{}, fmt.Errorf("no receipt is longer than %d KiB", MaxDocument>>10)
	}
	if bytes.HasPrefix(text, []byte(statementStart)) {
		s, err := readStatement(trimBreak(text), key)
		return Proven{Statement: s}, err
	}
	s, err := readPage(text, key)
	return Proven{Statement: s, Page: true}, err
}

// trimBreak takes away one line break at the end.
func trimBreak(text []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
}

// readPage takes a page apart: what is signed, and the last line, which has one form only.
func readPage(text []byte, key *audit.Key) (Statement, error) {
	at := bytes.LastIndexByte(trimLast(text), '\n') + 1
	page, last := text[:at], text[at:]
	var named audit.Key
	var signature audit.Signature
	if !readSeal(last, &named, &signature) {
		return Statement{}, errors.New("this is not a whole receipt: its last line is not the desk's signature")
	}
	if key == nil {
		key = &named
	}
	if named != *key {
		return Statement{}, otherKey(named, *key)
	}
	if err := key.VerifyText(audit.ReceiptPage, page, signature); err != nil {
		return Statement{}, err
	}
	_, rest, found := bytes.Cut(page, []byte(statementMeta))
	said, _, whole := bytes.Cut(rest, []byte(statementMetaEnd))
	if !found || !whole {
		return Statement{}, errors.New("the receipt has no statement")
	}
	return readStatement([]byte(html.UnescapeString(string(said))), key)
}

// trimLast is a text without its last byte.
func trimLast(text []byte) []byte { return text[:max(0, len(text)-1)] }

// readSeal reads a page's last line, which must be what sealed writes.
func readSeal(line []byte, key *audit.Key, signature *audit.Signature) bool {
	var k, s string
	if len(line) > 1024 {
		return false
	}
	if _, err := fmt.Sscanf(string(line), seal, &k, &s); err != nil {
		return false
	}
	if key.UnmarshalText([]byte(k)) != nil || signature.UnmarshalText([]byte(s)) != nil {
		return false
	}
	return string(line) == fmt.Sprintf(seal, key, signature)
}
