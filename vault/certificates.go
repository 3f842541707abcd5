package vault

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
)

// Certificate is a key that was made on a card and, once that was imported, the certificate of it; or a certificate that was
// found on a card. It outlives its token: a certificate has to be revoked at its issuer whatever became of the card.
type Certificate struct {
	ID         uint64         `json:"id"`
	Token      device.TokenID `json:"token"`
	Tenant     string         `json:"tenant,omitempty"` // of the token
	Owner      string         `json:"owner,omitempty"`  // who has, or had, the token
	Emulated   bool           `json:"emulated,omitempty"`
	Generation int            `json:"generation,omitempty"` // of the token; 0: it was found on the card, and is none of the desk's
	Slot       string         `json:"slot"`                 // "9a"
	Created    time.Time      `json:"created"`

	// Of the key. All but the last is empty of what was found.
	Algorithm   device.PIVAlgorithm `json:"algorithm,omitempty"`
	PINPolicy   device.PINPolicy    `json:"pin_policy,omitempty"`
	TouchPolicy device.TouchPolicy  `json:"touch_policy,omitempty"`
	Attested    bool                `json:"attested,omitempty"`   // the card has proven that it was made there
	Request     []byte              `json:"request,omitempty"`    // the last one (PKCS #10, DER)
	PublicKey   []byte              `json:"public_key,omitempty"` // SubjectPublicKeyInfo (RFC 5280), DER

	// Of the certificate. DER is empty until there is one.
	DER      []byte    `json:"der,omitempty"`
	Subject  string    `json:"subject,omitempty"` // RFC 4514
	Issuer   string    `json:"issuer,omitempty"`
	Serial   string    `json:"serial,omitempty"` // in hexadecimal
	NotAfter time.Time `json:"not_after,omitzero"`
	Imported time.Time `json:"imported,omitzero"` // when the card had it; zero of what was found, or did not arrive there

	// RevokeDue is since when it should be revoked at its issuer; zero: it need not.
	RevokeDue time.Time `json:"revoke_due,omitzero"`
	DueWhy    string    `json:"due_why,omitempty"`
	Revoked   time.Time `json:"revoked,omitzero"` // when an officer said that it was
	RevokedBy string    `json:"revoked_by,omitempty"`
}

// SHA256 is the fingerprint of the certificate in hexadecimal; empty if there is none.
func (c Certificate) SHA256() string {
	if len(c.DER) == 0 {
		return ""
	}
	sum := sha256.Sum256(c.DER)
	return hex.EncodeToString(sum[:])
}

// Due tells whether it waits for being revoked.
func (c Certificate) Due() bool { return !c.RevokeDue.IsZero() && c.Revoked.IsZero() }

// Revocation is a certificate that has to be revoked, as a record of work names it.
type Revocation struct {
	Token   device.TokenID `json:"token"`
	Slot    string         `json:"slot"`
	Subject string         `json:"subject"`
	Issuer  string         `json:"issuer"`
	Serial  string         `json:"serial"`
	SHA256  string         `json:"sha256"`
}

// Revocation names the certificate.
func (c Certificate) Revocation() Revocation {
	return Revocation{c.Token, c.Slot, c.Subject, c.Issuer, c.Serial, c.SHA256()}
}

// Bounds of a certificate, in bytes: no card holds more than 3 kB, and of a key of 4096 bits a request has less than 2.
const (
	maxCertificate = 16 << 10
	maxName        = 4 << 10 // subject and issuer
)

func (c *Certificate) indexKeys() [][]byte {
	if c == nil {
		return nil
	}
	keys := [][]byte{numberedKey(kindCard, string(c.Token), c.ID)}
	if sum := c.SHA256(); sum != "" {
		keys = append(keys, numberedKey(kindPrint, sum, c.ID))
	}
	if c.Due() {
		keys = append(keys, numberedKey(kindDue, "", c.ID))
	}
	return keys
}

func (c *Certificate) tally(count func(string)) {
	if c != nil && c.Due() {
		count(countRevocations)
	}
}

// PutCertificate writes a certificate. One whose ID is zero is new and gets its ID and, if it has none, Created.
func (tx *Tx) PutCertificate(c *Certificate) error {
	put := *c
	if err := put.check(); err != nil {
		return fmt.Errorf("cannot put a certificate: %w", err)
	}
	var was indexed
	if put.ID == 0 {
		id, err := tx.number(bucketCertificates, &tx.ledger.Certificate)
		if err != nil {
			return err
		}
		if put.ID = id; put.Created.IsZero() {
			put.Created = time.Now()
		}
	} else {
		old, err := tx.Certificate(put.ID)
		switch {
		case err != nil:
			return fmt.Errorf("cannot put a certificate: %w", err)
		case old.Token != put.Token || len(old.DER) > 0 && string(old.DER) != string(put.DER):
			return fmt.Errorf("cannot put certificate %d: it is another one, of %s", put.ID, old.Token)
		}
		was = &old
	}
	for _, t := range []*time.Time{&put.Created, &put.NotAfter, &put.Imported, &put.RevokeDue, &put.Revoked} {
		*t = moment(*t)
	}
	tx.weigh(heavy)
	if err := errors.Join(tx.reindex(was, &put), tx.store(bucketCertificates, numberKey(put.ID), put)); err != nil {
		return err
	}
	*c = put
	return nil
}

func (c *Certificate) check() error {
	slot, err := device.ParsePIVSlot(c.Slot)
	switch {
	case !c.Token.PIV():
		return fmt.Errorf("%q is no PIV application", c.Token)
	case err != nil:
		return err
	case slot.String() != c.Slot:
		return fmt.Errorf("a slot is written as %s", slot)
	case c.Generation != 0 && !validGeneration(c.Generation):
		return fmt.Errorf("there is no generation %d", c.Generation)
	case len(c.DER) == 0 && len(c.PublicKey) == 0:
		return errors.New("there is neither a key nor a certificate")
	case len(c.DER) == 0 && !c.RevokeDue.IsZero():
		return errors.New("without one, there is nothing to revoke")
	case len(c.DER) > maxCertificate || len(c.Request) > maxCertificate || len(c.PublicKey) > maxCertificate:
		return fmt.Errorf("it has more than %d bytes", maxCertificate)
	case len(c.Subject) > maxName || len(c.Issuer) > maxName:
		return fmt.Errorf("its names have more than %d bytes", maxName)
	case len(c.Owner) > maxOwner || len(c.Tenant) > maxLabel:
		return fmt.Errorf("a user has at most %d bytes, and a tenant %d", maxOwner, maxLabel)
	}
	_, err = device.ParseTokenID(string(c.Token))
	return err
}

// Certificate returns one certificate, or ErrNotFound.
func (tx *Tx) Certificate(id uint64) (c Certificate, err error) {
	ok, err := tx.load(bucketCertificates, numberKey(id), &c)
	if err == nil && !ok {
		err = fmt.Errorf("certificate %d: %w", id, ErrNotFound)
	}
	return c, err
}

// CertificatesOf returns the keys and certificates of a token, and of those that had its name, the oldest first.
func (tx *Tx) CertificatesOf(id device.TokenID) ([]Certificate, error) {
	return tx.certificates(kindCard, string(id), func(c Certificate) bool { return c.Token == id })
}

// CertificatesDue returns those that wait for being revoked at their issuers, the oldest first.
func (tx *Tx) CertificatesDue() ([]Certificate, error) {
	return tx.certificates(kindDue, "", Certificate.Due)
}

// CertificatesBySHA256 returns those with a fingerprint (hexadecimal, in lower case): more than one if it was on several cards.
func (tx *Tx) CertificatesBySHA256(sum string) ([]Certificate, error) {
	return tx.certificates(kindPrint, sum, func(c Certificate) bool { return c.SHA256() == sum })
}

func (tx *Tx) certificates(kind byte, value string, so func(Certificate) bool) (out []Certificate, err error) {
	ids, err := tx.numbered(kind, value, 0, 0)
	for _, id := range ids {
		c, err := tx.Certificate(id)
		if errors.Is(err, ErrNotFound) || err == nil && !so(c) {
			err = tx.astray(kind, value, id)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, err
}

// DeleteKey removes the record of a key of which there is no certificate, or returns ErrNotFound.
func (tx *Tx) DeleteKey(id uint64) error {
	c, err := tx.Certificate(id)
	if err != nil {
		return err
	}
	if len(c.DER) > 0 {
		return fmt.Errorf("cannot delete certificate %d of %s: what was certified is kept", id, c.Token)
	}
	tx.weigh(heavy)
	return errors.Join(tx.reindex(&c, nil), tx.delete(bucketCertificates, numberKey(id)))
}

// checkCertificates checks that certificates stand under their own numbers, and that those were given out.
func (c *contents) checkCertificates() error {
	return c.scan(bucketCertificates, nil, nil, func(p pair) (bool, error) {
		var x Certificate
		if err := c.open(bucketCertificates, p.key, p.val, &x); err != nil {
			return false, err
		}
		if err := x.check(); err != nil {
			return false, c.refuse(bucketCertificates, p.key, err)
		}
		return true, errors.Join(c.given(bucketCertificates, p.key, x.ID, c.ledger.Certificate), c.expect(&x))
	})
}
