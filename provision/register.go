package provision

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/mail"
	"regexp"
	"slices"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Registration is a token whose codes are sent.
type Registration struct {
	Type        string // TypeMail or TypePhone
	User        string // empty: stock
	Address     string
	Description string
	Tenant      string // whose it is; empty: the desk's
}

// Register takes a token whose codes are sent to an address into the inventory, and gives it to a user.
func (r *Runner) Register(ctx context.Context, by audit.Officer, g Registration) (t vault.Token, err error) {
	i := slices.IndexFunc(types, func(t Type) bool { return t.Code == g.Type && t.Sent })
	if i < 0 {
		return t, refuse("enroll it, or import it", "%q is not a type whose codes are sent", g.Type)
	}
	if err := errors.Join(checkAddress(g.Type, g.Address), legible("description", g.Description, vault.MaxDescription)); err != nil {
		return t, err
	}
	if g.User, err = r.findUser(ctx, g.User); err != nil {
		return t, err
	}
	err = r.Vault.Update(func(tx *vault.Tx) error {
		t = vault.Token{Status: vault.Active, Owner: g.User, Address: g.Address, Description: g.Description, Tenant: g.Tenant}
		if t.ID, err = freeName(tx, types[i].Family); err != nil {
			return err
		}
		if err := tx.PutToken(t); err != nil {
			return err
		}
		err = errors.Join(r.notify(tx, NoticeInvitation, t.ID, g.User, "", ""), tx.Audit(vault.Done(by, "register", t.ID, g.User)))
		if err != nil || g.User == "" {
			return err
		}
		return hand(tx, vault.Handover{Kind: vault.Issued, To: g.User}, t, by)
	})
	if err != nil {
		return vault.Token{}, fmt.Errorf("cannot register it: %w", err)
	}
	return t, nil
}

// findUser is FindUser, if there is anybody to be found, and to ask.
func (r *Runner) findUser(ctx context.Context, user string) (string, error) {
	if user == "" || r.FindUser == nil {
		return user, nil
	}
	return r.FindUser(ctx, user)
}

// freeName is a name that no token has or had. Numbers are drawn: in order, they would tell how many there are.
func freeName(tx *vault.Tx, family device.Family) (device.TokenID, error) {
	for {
		id := device.TokenID(fmt.Sprintf("%s-%d", family, 1+rand.IntN(99_999_999)))
		_, err := tx.Token(id)
		if err == nil {
			continue
		}
		if !errors.Is(err, vault.ErrNotFound) {
			return "", err
		}
		if _, buried, err := tx.Tombstone(id); err != nil || !buried {
			return id, err
		}
	}
}

// phoneNumber is one in the international form of ITU-T E.164.
var phoneNumber = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)

// checkAddress refuses an address to which codes of a type cannot be sent; all that have none go without.
func checkAddress(kind, address string) error {
	switch kind {
	case TypeMail:
		if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address || parsed.Name != "" {
			return refuse("write it as name@example.org", "that is not an address of mail (RFC 5322)")
		}
	case TypePhone:
		if !phoneNumber.MatchString(address) {
			return refuse("write it as +4915112345678", "that is not a telephone number in the international form (ITU-T E.164)")
		}
	default:
		if address != "" {
			return refuse("leave the address out", "no codes are sent to an address of such a token")
		}
	}
	return legible("address", address, vault.MaxAddress)
}
