package paper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tokendesk/vault/audit"
)

// Kind is how a token came to its holder, as the vault's handovers name it.
type Kind string

// Kinds.
const (
	Issued    Kind = "issued"
	Assigned  Kind = "assigned"
	Reissued  Kind = "reissued"
	Replaced  Kind = "replaced"
	Unchanged Kind = "seed unchanged"
)

// Statement is what a receipt says, in the form of its QR code: one line of JSON that ends in a signature over everything before.
type Statement struct {
	Format     string    `json:"tokendesk"` // Sign sets it
	Version    int       `json:"v"`         // Sign sets it
	Vault      string    `json:"vault"`     // as the audit trail names it
	Number     uint64    `json:"no"`        // of the handover
	Kind       Kind      `json:"kind"`
	Token      string    `json:"token"`
	Serial     string    `json:"serial,omitempty"`
	Generation int       `json:"generation,omitempty"` // of the seed
	Old        string    `json:"old,omitempty"`        // the token in whose place it came
	OldSerial  string    `json:"old_serial,omitempty"`
	OldStatus  string    `json:"old_status,omitempty"` // what became of it
	From       string    `json:"from,omitempty"`       // who had it before; empty: it was stock
	To         string    `json:"to"`
	Officer    string    `json:"officer"`
	UID        int64     `json:"uid"`
	Time       time.Time `json:"time"` // of the handover
	Reason     string    `json:"reason,omitempty"`
	Offline    bool      `json:"offline,omitempty"` // it went on before the central service had confirmed the cut-off
	Emulated   bool      `json:"emulated,omitempty"`
	Proof      Proof     `json:"proof,omitzero"`
	audit.Point
	Key audit.Key `json:"key"`
}

// Proof is what codes of the token have shown at the handover.
type Proof struct {
	Codes         int    `json:"codes"`                    // so many in a row ...
	Generation    int    `json:"generation"`               // ... are of this generation's seed ...
	Counter       uint64 `json:"counter"`                  // ... from this moving factor on (RFC 4226)
	OldGeneration int    `json:"old_generation,omitempty"` // 0: there was no seed before
	OldFrom       uint64 `json:"old_from,omitempty"`       // none of them is of that one, from this moving factor on, ...
	OldWindow     int    `json:"old_window,omitempty"`     // ... among so many
	Typed         bool   `json:"typed,omitempty"`          // entered by hand, and not captured from the device
}

const (
	statementFormat  = "receipt"
	statementVersion = 1
	statementStart   = `{"tokendesk":"` + statementFormat + `"`
	signatureStart   = `,"signature":"`
	signatureEnd     = `"}`

	// maxStatement is what a QR code with medium error correction holds, in bytes (ISO/IEC 18004, version 40-M).
	maxStatement = 2331

	maxName   = 64  // bytes of a user
	maxReason = 200 // bytes of an officer's words
)

// plain makes every text safe to print, and short enough for a QR code.
func (s Statement) plain() Statement {
	for _, t := range []*string{&s.Vault, &s.Token, &s.Serial, &s.Old, &s.OldSerial, &s.OldStatus, &s.From, &s.To, &s.Officer} {
		*t = audit.Plain(*t, maxName)
	}
	s.Kind, s.Reason = Kind(audit.Plain(string(s.Kind), maxName)), audit.Plain(s.Reason, maxReason)
	s.Time = s.Time.UTC()
	return s
}

// Sign returns the statement as text.
func (s Statement) Sign(sign Signer) (string, error) {
	s = s.plain()
	s.Format, s.Version = statementFormat, statementVersion
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return "", fmt.Errorf("cannot write a receipt's statement: %w", err)
	}
	said := bytes.TrimSuffix(b.Bytes(), []byte("}\n"))
	signature, err := sign(audit.ReceiptStatement, said)
	if err != nil {
		return "", fmt.Errorf("cannot sign a receipt's statement: %w", err)
	}
	text := string(said) + signatureStart + signature.String() + signatureEnd
	if len(text) > maxStatement {
		return "", fmt.Errorf("cannot print a receipt: its statement has %d bytes, and a QR code holds %d", len(text), maxStatement)
	}
	return text, nil
}

// readStatement says why a text is not a statement that was signed with the key, or returns it. A nil key is the statement's own.
func readStatement(text []byte, key *audit.Key) (s Statement, err error) {
	at := bytes.LastIndex(text, []byte(signatureStart))
	if len(text) > maxStatement || at < 0 || !bytes.HasSuffix(text, []byte(signatureEnd)) || len(text) < at+len(signatureStart)+len(signatureEnd) {
		return s, errors.New("the statement is not whole")
	}
	said := text[:at]
	var signature audit.Signature
	if err := signature.UnmarshalText(text[at+len(signatureStart) : len(text)-len(signatureEnd)]); err != nil {
		return s, errors.New("the statement's signature is damaged")
	}
	if err := json.Unmarshal(append(bytes.Clone(said), '}'), &s); err != nil {
		return Statement{}, errors.New("the statement is damaged")
	}
	if key == nil {
		key = &s.Key
	}
	if err := key.VerifyText(audit.ReceiptStatement, said, signature); err != nil {
		if s.Key != *key {
			err = otherKey(s.Key, *key)
		}
		return Statement{}, fmt.Errorf("the statement does not verify: %w", err)
	}
	switch {
	case s.Format != statementFormat || s.Key != *key:
		return Statement{}, errors.New("the statement is not that of a receipt")
	case s.Version != statementVersion:
		return Statement{}, fmt.Errorf("the statement has version %d, and this program knows version %d: verify it with a newer one", s.Version, statementVersion)
	}
	return s, nil
}

func otherKey(have, want audit.Key) error {
	return fmt.Errorf("it says that it was signed with another key, %s, and not with %s", have.Fingerprint(), want.Fingerprint())
}
