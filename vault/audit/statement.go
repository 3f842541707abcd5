package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"

	"tokendesk/vault/secret"
)

// Kind is what a vault signs beside heads: one kind of text, with a name that stands in what is signed. So nothing that was
// signed as one kind verifies as another, or as a head.
type Kind string

// Kinds.
const (
	ReceiptPage      Kind = "tokendesk receipt v1"           // a receipt's page, without the line that holds its signature
	ReceiptStatement Kind = "tokendesk receipt statement v1" // what a receipt says, as it stands in its QR code
)

// Signature is an Ed25519 signature (RFC 8032). In text it is 86 letters and digits of unpadded base64url.
type Signature [ed25519.SignatureSize]byte

func (s Signature) String() string { return base64.RawURLEncoding.EncodeToString(s[:]) }

// MarshalText implements encoding.TextMarshaler.
func (s Signature) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes the one form that String writes.
func (s *Signature) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil || len(b) != len(s) || Signature(b).String() != string(text) {
		return fmt.Errorf("a signature has %d letters and digits", base64.RawURLEncoding.EncodedLen(len(s)))
	}
	*s = Signature(b)
	return nil
}

// SignText signs a text of a kind with a vault's audit key.
func SignText(kind Kind, text []byte, seed secret.Secret) (s Signature, err error) {
	if kind != ReceiptPage && kind != ReceiptStatement {
		return s, fmt.Errorf("cannot sign a %q: there is no such kind of text", string(kind))
	}
	err = withPrivate(seed, func(priv ed25519.PrivateKey) {
		s = Signature(ed25519.Sign(priv, statement(kind, Key(priv[SeedSize:]), text)))
	})
	return s, err
}

// VerifyText says why a text of a kind is not signed with k, or returns nil.
func (k Key) VerifyText(kind Kind, text []byte, s Signature) error {
	switch {
	case k == (Key{}):
		return errors.New("there is no audit key to verify with")
	case !ed25519.Verify(k[:], statement(kind, k, text), s[:]):
		return errors.New("the signature is wrong: the text was changed, or is not the desk's")
	}
	return nil
}

// statement is what is signed of a text. It must never change.
func statement(kind Kind, k Key, text []byte) frame {
	f := make(frame, 0, len(kind)+len(k)+len(text)+3*8)
	return f.text(string(kind)).text(string(k[:])).text(string(text))
}

// Plain is a text as an entry would hold it: without what could act on a terminal or change how the rest of a line reads, and cut
// to limit bytes.
func Plain(s string, limit int) string { return clean(s, limit) }
