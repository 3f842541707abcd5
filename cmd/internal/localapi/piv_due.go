package localapi

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault"
)

// renewal is how long before its end a certificate is to be replaced.
const renewal = 30 * 24 * time.Hour

// certificatesFor are the certificates for the keys that a PIV application has now.
func certificatesFor(tx *vault.Tx, t vault.Token) (all []api.Certificate, err error) {
	known, err := tx.CertificatesOf(t.ID)
	for _, c := range current(known, t.Generation) {
		if len(c.DER) > 0 {
			all = append(all, certificateOf(c))
		}
	}
	return all, err
}

// current are the keys of a generation, one record for each slot: of several certificates of a key, that which the card got
// last. One that never arrived there takes no other's place. Known are in the order in which they were recorded.
func current(known []vault.Certificate, generation int) (now []vault.Certificate) {
	for _, c := range known {
		at := slices.IndexFunc(now, func(other vault.Certificate) bool { return other.Slot == c.Slot })
		switch {
		case c.Generation != generation:
		case at < 0:
			now = append(now, c)
		case !c.Imported.Before(now[at].Imported):
			now[at] = c
		}
	}
	slices.SortFunc(now, func(a, b vault.Certificate) int { return cmp.Compare(a.Slot, b.Slot) })
	return now
}

// dueOnCard says what is to be done next about the PIV application of somebody.
func (d *Desk) dueOnCard(tx *vault.Tx, t vault.Token) (string, error) {
	if t.Owner == "" {
		return "", nil
	}
	on := t.ID.Device()
	waits, err := tx.HasPIVSecret(t.ID, t.Generation, vault.PIN)
	if err != nil {
		return "", err
	}
	if waits {
		return fmt.Sprintf("has a PIN that nobody was told: tokendesk piv pin %s", on), nil
	}
	known, err := tx.CertificatesOf(t.ID)
	if err != nil {
		return "", err
	}
	for _, c := range current(known, t.Generation) {
		switch end := c.NotAfter.Local().Format(time.DateOnly); {
		case len(c.DER) == 0 && len(c.Request) > 0:
			return fmt.Sprintf("waits for the certificate of slot %s: tokendesk piv import-cert %s FILE", c.Slot, on), nil
		case len(c.DER) > 0 && time.Now().After(c.NotAfter):
			return fmt.Sprintf("has a certificate in slot %s that ended on %s: tokendesk piv csr %s --slot %s", c.Slot, end, on, c.Slot), nil
		case len(c.DER) > 0 && time.Until(c.NotAfter) < renewal:
			return fmt.Sprintf("has a certificate in slot %s that ends on %s: tokendesk piv csr %s --slot %s", c.Slot, end, on, c.Slot), nil
		}
	}
	return "", nil
}
