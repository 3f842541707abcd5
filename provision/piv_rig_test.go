package provision_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/pivcard"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

var (
	pivID     = device.PIVToken(device.YubiKeyID(serial))
	firmware4 = device.Version{Major: 4, Minor: 3, Build: 5} // tells nothing of its secrets
	firmware5 = device.Version{Major: 5, Minor: 4, Build: 3}
	firmware7 = device.Version{Major: 5, Minor: 7, Build: 1}
)

// card is an emulated smart card on a wire without a reader: what pcscd would add is tried in piv_reader_test.go.
type card struct {
	*smartcard.Card
	mu      sync.Mutex
	pulled  bool
	apdus   int
	foreign bool // opened as what it is not: a card that is not emulated
}

func newCard(serial device.Serial, firmware device.Version) *card {
	c := &card{}
	c.Card = smartcard.New(smartcard.Options{Serial: serial, Firmware: firmware, Pulled: func() { c.pull(true) }})
	return c
}

func (c *card) pull(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = yes
}

func (c *card) isPulled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pulled
}

// Transmit implements device.Card.
func (c *card) Transmit(apdu []byte) (data []byte, status uint16, err error) {
	for {
		c.mu.Lock()
		c.apdus++
		c.mu.Unlock()
		answer := c.Card.Transmit(apdu)
		if len(answer) < 2 {
			return nil, 0, device.ErrGone
		}
		n := len(answer) - 2
		data, status = append(data, answer[:n]...), uint16(answer[n])<<8|uint16(answer[n+1])
		if status>>8 != 0x61 {
			return data, status, nil
		}
		apdu = []byte{0, 0xC0, 0, 0, 0}
	}
}

// Close implements device.Card.
func (c *card) Close() error { return nil }

// use opens the PIV application as the daemon does.
func (c *card) use(ctx context.Context, fn func(p device.PIV) error) error {
	if c.isPulled() {
		return fmt.Errorf("the card: %w", device.ErrGone)
	}
	c.PowerUp()
	p, err := pivcard.New(ctx, c, !c.foreign)
	if err != nil {
		return err
	}
	defer p.Close()
	return fn(p)
}

func (b *bench) openPIV(ctx context.Context, id device.ID, fn func(device.PIV, bool) error) error {
	if id != device.YubiKeyID(b.key.Serial()) || b.card == nil {
		return fmt.Errorf("%s: %w", id, provision.ErrNoCard)
	}
	return b.card.use(ctx, func(p device.PIV) error { return fn(p, true) })
}

// newCardBench is a bench whose key has a smart card.
func newCardBench(t testing.TB, firmware device.Version) *bench {
	t.Helper()
	b := newBench(t)
	b.card = newCard(serial, firmware)
	b.OpenPIV = b.openPIV
	return b
}

func (b *bench) provision(o provision.PIVProvision) ([]provision.PIVRequest, error) {
	if o.Token == "" {
		o.Token = pivID
	}
	requests, changes, err := b.ProvisionPIV(b.t.Context(), officer, o, b.tell)
	if len(changes) > 0 {
		b.t.Errorf("the central service is told of %+v", changes)
	}
	return requests, err
}

// provisioned gives alice a card, which has to succeed, and returns its only request.
func (b *bench) provisioned() provision.PIVRequest {
	b.t.Helper()
	requests, err := b.provision(provision.PIVProvision{User: "alice"})
	if err != nil || len(requests) != 1 {
		b.t.Fatalf("%v, %v", requests, err)
	}
	return requests[0]
}

func (b *bench) onCard(fn func(p device.PIV) error) {
	b.t.Helper()
	if err := b.card.use(b.t.Context(), fn); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) onIt() (s device.PIVState) {
	b.t.Helper()
	b.onCard(func(p device.PIV) (err error) { s, err = p.Describe(b.t.Context()); return err })
	return s
}

// wantFresh checks that the card is as it left the factory, and can be used.
func (b *bench) wantFresh() {
	b.t.Helper()
	b.onCard(func(p device.PIV) error {
		s, err := p.Describe(b.t.Context())
		if !s.Fresh() {
			b.t.Errorf("the card is not fresh: %+v", s)
		}
		return errors.Join(err, p.CheckManagementKey(b.t.Context(), secret.Secret{}), p.VerifyPIN(b.t.Context(), secret.Secret{}))
	})
}

func (b *bench) pivSecret(id device.TokenID, generation int, kind vault.PIVSecret) (s secret.Secret, err error) {
	err = b.Vault.View(func(tx *vault.Tx) (err error) { s, err = tx.PIVSecret(id, generation, kind); return err })
	return s, err
}

// wantOurs checks that the card has the secrets of the vault, and the keys on record.
func (b *bench) wantOurs(id device.TokenID) {
	b.t.Helper()
	t := b.token(id)
	ctx := b.t.Context()
	key, err1 := b.pivSecret(id, t.Generation, vault.ManagementKey)
	puk, err2 := b.pivSecret(id, t.Generation, vault.PUK)
	pin, err3 := b.pivSecret(id, t.Generation, vault.PIN)
	if errors.Is(err3, vault.ErrNotFound) { // it was taken
		err3 = nil
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		b.t.Fatal(err)
	}
	b.onCard(func(p device.PIV) error {
		err := errors.Join(p.CheckManagementKey(ctx, key), p.ChangePUK(ctx, puk, puk))
		if !pin.IsZero() {
			err = errors.Join(err, p.VerifyPIN(ctx, pin))
		}
		for _, c := range b.certificates(id) {
			if c.Generation != t.Generation || c.Due() {
				continue
			}
			slot, perr := device.ParsePIVSlot(c.Slot)
			k, aerr := p.Attest(ctx, slot)
			err = errors.Join(err, perr, aerr)
			if der, merr := x509.MarshalPKIXPublicKey(k.Public); merr != nil || string(der) != string(c.PublicKey) || !k.Attested || !c.Attested {
				b.t.Errorf("slot %v has another key than is on record: %+v", slot, k)
			}
		}
		return err
	})
}

func (b *bench) certificates(id device.TokenID) (all []vault.Certificate) {
	b.t.Helper()
	b.view(func(tx *vault.Tx) (err error) { all, err = tx.CertificatesOf(id); return err })
	return all
}

// revocations names the certificates that wait for being revoked: "9a CN=alice".
func (b *bench) revocations() string {
	b.t.Helper()
	var names []string
	b.view(func(tx *vault.Tx) error {
		all, err := tx.CertificatesDue()
		for _, c := range all {
			names = append(names, c.Slot+" "+c.Subject)
		}
		return err
	})
	return strings.Join(names, ", ")
}

func (b *bench) wantDue(want string) {
	b.t.Helper()
	if got := b.revocations(); got != want {
		b.t.Errorf("to be revoked: %q, want %q", got, want)
	}
}

// wantNoPIV checks that nothing of a card is left in the vault but certificates and, if it was buried, its tombstone.
func (b *bench) wantNoPIV(id device.TokenID) {
	b.t.Helper()
	if b.exists(id) {
		b.t.Errorf("%s is in the vault", id)
	}
	b.view(func(tx *vault.Tx) error {
		generations, err := tx.PIVGenerations(id)
		if len(generations) > 0 {
			b.t.Errorf("%s has secrets of %v", id, generations)
		}
		return err
	})
	for _, c := range b.certificates(id) {
		if len(c.DER) == 0 {
			b.t.Errorf("a key is on record: %+v", c)
		}
	}
}

// issuer is a certificate authority.
type issuer struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	n    int64
}

func newIssuer(t testing.TB) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{t: t, key: key}
	i.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true}
	i.cert = i.sign(i.cert, key.Public())
	return i
}

func (i *issuer) sign(template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	i.n++
	template.SerialNumber = big.NewInt(i.n)
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, i.cert, public, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		i.t.Fatal(err)
	}
	return c
}

// issue answers a request.
func (i *issuer) issue(r provision.PIVRequest, change ...func(*x509.Certificate)) []byte {
	i.t.Helper()
	request, err := x509.ParseCertificateRequest(r.DER)
	if err != nil {
		i.t.Fatal(err)
	}
	template := &x509.Certificate{Subject: request.Subject}
	for _, c := range change {
		c(template)
	}
	return i.sign(template, request.PublicKey).Raw
}

// imported gives alice a card with a certificate.
func (b *bench) imported() vault.Certificate {
	b.t.Helper()
	c, err := b.ImportCertificate(b.t.Context(), officer, pivID, device.PIVAuthentication, newIssuer(b.t).issue(b.provisioned()))
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// told tells whether an officer has read a text.
func (b *bench) told(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.seen, func(p provision.Progress) bool { return strings.Contains(p.Text, text) })
}
