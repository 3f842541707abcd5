package localapi

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/paper"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// papers is who may print what leaves the desk.
var papers = anyOf(provision.RoleOfficer, provision.RoleAuditor)

// HandoverPath (exported, or the router would not fill it when embedded) is in the path of every operation on one handover.
type HandoverPath struct {
	ID uint64 `path:"id" doc:"Number of the handover" minimum:"1"`
}

// receipt prints the latest handover of a token.
func (d *Desk) receipt(_ context.Context, in *TokenPath) (out api.Document, err error) {
	id, err := in.id()
	if err != nil {
		return out, err
	}
	err = d.Vault.View(func(tx *vault.Tx) error {
		h, found, err := lastHandover(tx, id)
		switch {
		case err != nil:
			return err
		case found:
			out, err = d.receiptOf(tx, h)
			return err
		}
		if _, err := tx.Token(id); err != nil {
			return err
		}
		return api.Errorf(api.NotFound, "no handover of %s is recorded: nobody was given it yet", id)
	})
	if errors.Is(err, vault.ErrNotFound) {
		err = d.missing(id, err)
	}
	return out, err
}

// lastHandover is the latest one by which a token was given to somebody.
func lastHandover(tx *vault.Tx, id device.TokenID) (h vault.Handover, found bool, err error) {
	for before := uint64(0); ; {
		page, err := tx.HandoversOf(id, before, 10)
		if err != nil || len(page) == 0 {
			return h, false, err
		}
		for _, h := range page {
			if h.Token == id { // else it was what another came for
				return h, true, nil
			}
		}
		before = page[len(page)-1].ID
	}
}

// handoverReceipt prints a handover by its number.
func (d *Desk) handoverReceipt(ctx context.Context, in *HandoverPath) (out api.Document, err error) {
	err = d.Vault.View(func(tx *vault.Tx) error {
		h, err := tx.Handover(in.ID)
		tenant, _, tenantErr := tenantOf(tx, h.Token)
		switch err := errors.Join(err, tenantErr); {
		case errors.Is(err, vault.ErrNotFound), err == nil && !papers.admits(reachOf(ctx).in(tenant)):
			return api.Errorf(api.NotFound, "there is no handover %d", in.ID)
		case err != nil:
			return err
		}
		out, err = d.receiptOf(tx, h)
		return err
	})
	return out, err
}

// receiptOf prints a handover, signed, as the vault knows it.
func (d *Desk) receiptOf(tx *vault.Tx, h vault.Handover) (api.Document, error) {
	out := api.Document{Kind: "receipt", Name: fileName(fmt.Sprintf("receipt-%d-%s", h.ID, h.Token)), Token: string(h.Token), Handover: h.ID}
	head, err := tx.Head()
	if err != nil {
		return out, err
	}
	act, err := actAt(tx, h.Act)
	if err != nil {
		return out, err
	}
	r := paper.Receipt{
		Statement: paper.Statement{
			Vault: head.Vault, Number: h.ID, Kind: paper.Kind(h.Kind), Token: string(h.Token), Serial: serialOf(h.Token), Generation: h.Generation,
			Old: string(h.Old), OldSerial: serialOf(h.Old), OldStatus: string(h.OldStatus), From: h.From, To: h.To,
			Officer: h.Officer.Name, UID: h.Officer.UID, Time: h.Time, Reason: h.Reason, Offline: h.Offline, Emulated: h.Emulated,
			Proof: paper.Proof(h.Proof), Point: act.Point(), Key: head.Key,
		},
		Desk: d.Imprint, Type: d.naming(provision.TypeOf(h.Token).Code).Name, Central: h.Token.Central(), CutOff: d.cutOff(h), Head: head, Printed: time.Now(),
	}
	for _, c := range h.Revoke {
		r.Revoke = append(r.Revoke, paper.Certificate{Serial: c.Serial, Subject: c.Subject, Issuer: c.Issuer})
	}
	switch t, err := tx.Token(h.Token); {
	case err == nil && t.Firmware != (device.Version{}):
		r.Firmware = t.Firmware.String()
	case err != nil && !errors.Is(err, vault.ErrNotFound): // it may be deleted by now
		return out, err
	}
	text, err := r.Render(tx.Sign)
	out.Text = string(text)
	return out, err
}

// cutOff says what is known of the end of the access of whoever had it before.
func (d *Desk) cutOff(h vault.Handover) paper.CutOff {
	switch {
	case h.From == "":
		return paper.NotDue
	case d.Connector == nil:
		return paper.NoCentral
	}
	return paper.Confirmed // unless Offline says otherwise
}

// actAt is one entry of the audit trail.
func actAt(tx *vault.Tx, seq uint64) (found audit.Entry, err error) {
	err = tx.Acts(seq, func(e audit.Entry) (bool, error) { found = e; return false, nil })
	if err == nil && found.Seq != seq {
		err = fmt.Errorf("entry %d of the audit trail is missing", seq)
	}
	return found, err
}

// serialOf is the number that is printed on a token's device; empty if nothing has one.
func serialOf(id device.TokenID) string {
	family, number, _ := strings.Cut(string(id.Device()), "-")
	if f := device.Family(family); f == device.Mail || f == device.Phone {
		return ""
	}
	return number
}

// fileName is a name without slashes.
func fileName(s string) string { return strings.ReplaceAll(s, "/", "-") + ".html" }

// label prints what sticks to a token.
func (d *Desk) label(_ context.Context, in *TokenPath) (out api.Document, err error) {
	id, err := in.id()
	if err != nil {
		return out, err
	}
	var t vault.Token
	err = d.Vault.View(func(tx *vault.Tx) (err error) { t, err = tx.Token(id); return err })
	if errors.Is(err, vault.ErrNotFound) {
		err = d.missing(id, err)
	}
	if err != nil {
		return out, err
	}
	if provision.TypeOf(id).Sent {
		return out, api.Errorf(api.Refused, "codes of %s are sent: there is nothing that a label would stick to", id)
	}
	text, err := paper.Label{Desk: d.Imprint, Token: string(id), Serial: serialOf(id), Emulated: t.Emulated}.Render()
	return api.Document{Kind: "label", Name: fileName("label-" + string(id)), Token: string(id), Text: string(text)}, err
}
