package localapi

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

type appletPath struct {
	Device string `path:"device" pattern:"^[a-z]{2,8}-[0-9a-z]{1,20}$" patternDescription:"the name of a device" doc:"Device name" example:"yk-12345678"`
}

// listOATH tells what the OATH applet of an inserted device holds. One that is locked is opened with the password in the vault.
func (d *Desk) listOATH(ctx context.Context, in *appletPath) (out api.OATH, err error) {
	id := device.ID(in.Device)
	keeper := device.AppToken(id, "oath")
	if !keeper.IsKeeper() {
		return out, api.Errorf(api.Invalid, "no such device has an OATH applet: devices are named like yk-12345678; tokendesk devices shows them")
	}
	ctx, cancel := context.WithTimeout(ctx, cardPatience)
	defer cancel()
	var password secret.Secret
	defer func() { password.Wipe() }()
	err = d.Vault.View(func(tx *vault.Tx) (err error) { password, err = tx.Password(keeper); return err })
	if err != nil && !errors.Is(err, vault.ErrNotFound) {
		return out, err
	}
	out = api.OATH{Device: in.Device, Credentials: []api.Credential{}}
	var found []device.Credential
	err = d.Keys.UseLister(ctx, id, func(ctx context.Context, l device.Lister, k keys.Key) (err error) {
		out.Firmware, out.Emulated = k.Firmware.String(), k.Info.Emulated
		for _, h := range k.Holds {
			if h.Name == "oath" {
				out.Capacity = h.Capacity
			}
		}
		found, err = l.Credentials(ctx, password)
		return err
	})
	if wrong := (*device.PINError)(nil); errors.Is(err, device.ErrLocked) || errors.As(err, &wrong) {
		out.Locked, out.Cure = true, "give its password to the desk: tokendesk password "+in.Device+"/oath:NAME"
		return out, nil
	}
	if err != nil {
		return out, err
	}
	err = d.Vault.View(func(tx *vault.Tx) error {
		for _, c := range found {
			shown, err := enrolledAs(ctx, tx, id, c)
			if err != nil {
				return err
			}
			out.Credentials = append(out.Credentials, shown)
		}
		return nil
	})
	slices.SortFunc(out.Credentials, func(a, b api.Credential) int { return cmp.Compare(a.Name, b.Name) })
	return out, err
}

// enrolledAs is a credential with what the inventory says of it to somebody who may see that.
func enrolledAs(ctx context.Context, tx *vault.Tx, id device.ID, c device.Credential) (api.Credential, error) {
	out := api.Credential{Name: c.Name, Type: c.Type, Algorithm: c.Algorithm}
	name, ours := strings.CutPrefix(c.Name, "tokendesk:")
	token, err := device.ParseTokenID(string(device.AppToken(id, "oath:"+name)))
	if !ours || err != nil {
		return out, nil
	}
	t, err := tx.Token(token)
	if errors.Is(err, vault.ErrNotFound) || err == nil && !sees(ctx, t.Tenant) {
		return out, nil
	}
	out.Token, out.Status, out.Owner = string(token), string(t.Status), t.Owner
	return out, err
}
