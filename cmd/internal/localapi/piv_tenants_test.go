package localapi

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// The slot of a key may be one tenant's, and its smart card another's: of the latter's certificates nothing is said, and nothing is
// done to them.
func TestCertificatesOfAnotherTenant(t *testing.T) {
	a := newArchive(t)
	a.Runner = &provision.Runner{Vault: a.Vault}
	key := device.YubiKeyID(10000001)
	slot, card := device.SlotToken(key, 2), device.PIVToken(key)
	c := vault.Certificate{Token: card, Tenant: "theirs", Owner: "boss", Slot: "9a", DER: []byte("c"), Subject: "CN=boss", NotAfter: time.Now().Add(time.Hour), RevokeDue: time.Now()}
	planted := vault.Certificate{Token: device.PIVToken(device.YubiKeyID(10000002)), Tenant: "ours", Slot: "82", DER: c.DER, Subject: c.Subject, NotAfter: c.NotAfter, RevokeDue: c.RevokeDue}
	a.update(func(tx *vault.Tx) error { return errors.Join(tx.PutCertificate(&c), tx.PutCertificate(&planted)) })
	due := func(ctx context.Context) int {
		found, err := a.dueSince(ctx, nil, slot)
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	theirs := context.WithValue(a.ctx, rolesKey, reach{tenants: map[string][]string{"theirs": officers.roles}})
	ours := context.WithValue(a.ctx, rolesKey, reach{tenants: map[string][]string{"ours": officers.roles}})
	if all, there, here := due(a.ctx), due(theirs), due(ours); all != 1 || there != 1 || here != 0 {
		t.Errorf("due for the desk %d, there %d, here %d", all, there, here)
	}
	if may := mayOrder(ours); !may("ours") || may("theirs") || may("") {
		t.Error("an officer of one tenant is one elsewhere, too")
	}
	// A copy of a certificate on one's own card is marked, and no other.
	if done, err := a.markRevoked(ours, &certificatePath{c.SHA256()}); err != nil || done.Token != string(planted.Token) {
		t.Errorf("%+v, %v", done, err)
	}
	a.update(func(tx *vault.Tx) error {
		left, err := tx.CertificatesDue()
		if !slices.ContainsFunc(left, func(one vault.Certificate) bool { return one.ID == c.ID }) || len(left) != 1 {
			t.Errorf("%+v", left)
		}
		return err
	})
}
