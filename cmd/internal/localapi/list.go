package localapi

import (
	"context"
	"errors"
	"slices"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

type listQuery struct {
	Device string `query:"device" doc:"Only tokens of this device" pattern:"^([a-z]{2,8}-[0-9a-z]{1,20})?$" patternDescription:"the name of a device"`
	Serial uint32 `query:"serial" doc:"Only tokens with this serial number"`
	Owner  string `query:"owner" doc:"Only tokens of this user" maxLength:"64"`
	Status string `query:"status" doc:"Only tokens with this status" enum:"pending,active,disabled,limbo,expired,compromised"`
	Batch  string `query:"batch" doc:"Only tokens of this batch" maxLength:"64"`
	Tenant string `query:"tenant" doc:"Only tokens of this tenant" maxLength:"64"`
	Stale  bool   `query:"stale" doc:"Only tokens to be resynced before use"`
	Text   string `query:"text" doc:"Only tokens whose name, serial number, owner or a word of whose description begins with this" maxLength:"64"`
	Type   string `query:"type" doc:"Only tokens of the type with this code" maxLength:"64"`
	Before string `query:"expiring_before" doc:"Only tokens whose time is over before this" format:"date-time"`
	Sort   string `query:"sort" doc:"Order of the page; by expires, only tokens whose time ends are listed" enum:"name,expires,updated,last_used" default:"name"`
	After  string `query:"after" doc:"Start after this token" maxLength:"64"`
	Limit  int    `query:"limit" doc:"At most so many" minimum:"1" maximum:"1000" default:"100"`
}

// list pages the inventory by name, which is its order; by expiry, for tokens whose time ends.
func (d *Desk) list(ctx context.Context, q *listQuery) (api.Tokens, error) {
	out := api.Tokens{Tokens: []api.Token{}}
	expiring := q.Sort == "expires" || q.Before != ""
	until := time.Unix(1<<40, 0)
	switch {
	case q.Sort == "updated" || q.Sort == "last_used":
		return out, api.Errorf(api.Invalid, "the inventory cannot be paged by %s: sort by name, or by expires", q.Sort)
	case q.Type != "" && !slices.ContainsFunc(provision.Types(), func(t provision.Type) bool { return t.Code == q.Type }):
		return out, api.Errorf(api.Invalid, "there is no type of this code: tokendesk types shows them all")
	case q.Before != "":
		var err error
		if until, err = time.Parse(time.RFC3339, q.Before); err != nil {
			return out, api.Errorf(api.Invalid, "expiring_before: expected a time such as 2030-01-31T00:00:00Z")
		}
	}
	whole := len(reachOf(ctx).desk) > 0
	if !whole && !q.narrow(ctx) {
		return out, nil
	}
	err := d.Vault.View(func(tx *vault.Tx) (err error) {
		if !whole && q.After != "" && q.Sort == "expires" {
			if tenant, _, err := tenantOf(tx, device.TokenID(q.After)); err != nil || !sees(ctx, tenant) {
				return errors.Join(err, errBegin)
			}
		}
		for {
			var page []vault.Token
			var next device.TokenID
			if expiring {
				page, next, err = q.expiring(tx, until)
			} else {
				page, next, err = tx.Tokens(q.filter())
			}
			if err != nil {
				return err
			}
			for _, t := range page {
				if !sees(ctx, t.Tenant) || q.Type != "" && provision.TypeOf(t.ID).Code != q.Type {
					continue
				}
				if len(out.Tokens) == q.Limit { // only of what the caller sees is anything said
					out.Next = out.Tokens[q.Limit-1].ID
					return nil
				}
				shown, err := d.tokenOf(ctx, tx, t)
				if err != nil {
					return err
				}
				out.Tokens = append(out.Tokens, shown)
			}
			if whole || next == "" {
				out.Next = string(next)
				return nil
			}
			q.After = string(next)
		}
	})
	return out, err
}

// narrow has the inventory look only for what somebody sees who has a role in tenants alone; false if that is nothing.
func (q *listQuery) narrow(ctx context.Context) bool {
	theirs := reachOf(ctx).tenants
	if q.Tenant != "" {
		return len(theirs[q.Tenant]) > 0
	}
	if len(theirs) == 1 {
		for name := range theirs {
			q.Tenant = name
		}
	}
	return true
}

var errBegin = api.Errorf(api.Refused, "the token to go on after does not expire any more: begin anew")

func (q *listQuery) filter() vault.Filter {
	return vault.Filter{
		Device: device.ID(q.Device), Serial: device.Serial(q.Serial), Owner: q.Owner, Status: vault.Status(q.Status),
		Batch: q.Batch, Tenant: q.Tenant, Stale: q.Stale, Text: q.Text, After: device.TokenID(q.After), Limit: q.Limit,
	}
}

// expiring is a page of the tokens whose time ends before a moment.
func (q *listQuery) expiring(tx *vault.Tx, until time.Time) (page []vault.Token, next device.TokenID, err error) {
	ids, err := tx.Expiring(until, 0)
	if err != nil {
		return nil, "", err
	}
	begin := slices.Index(ids, device.TokenID(q.After)) + 1
	if q.Sort != "expires" {
		slices.Sort(ids)
		at, found := slices.BinarySearch(ids, device.TokenID(q.After))
		if begin = at; found {
			begin++
		}
	} else if begin == 0 && q.After != "" {
		return nil, "", errBegin
	}
	for _, id := range ids[begin:] {
		t, ok, err := q.selects(tx, id)
		if err != nil {
			return nil, "", err
		}
		if !ok {
			continue
		}
		if len(page) == q.Limit {
			return page, page[len(page)-1].ID, nil
		}
		page = append(page, t)
	}
	return page, "", nil
}

// selects asks the inventory whether one token is among those that are wanted.
func (q *listQuery) selects(tx *vault.Tx, id device.TokenID) (t vault.Token, ok bool, err error) {
	if q.Device != "" && device.ID(q.Device) != id.Device() {
		return t, false, nil
	}
	f := q.filter()
	f.Device, f.After, f.Limit = id.Device(), "", 0
	for t, err := range tx.AllTokens(f) {
		if err != nil || t.ID == id {
			return t, err == nil, err
		}
	}
	return t, false, nil
}
