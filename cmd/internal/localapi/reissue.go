package localapi

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// stays is the end of a replaced token that is none.
const stays = "stock"

func (d *Desk) reissue(ctx context.Context, in *onToken[api.Reissue], tell provision.Tell) (api.Outcome, error) {
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	o, err := reissueOf(id, in.Body)
	if err != nil {
		return api.Outcome{}, err
	}
	if o.With != "" {
		id = o.With
		if err := errors.Join(d.allWithin(reachOf(ctx), officers, []device.TokenID{id}), d.current(ctx, id)); err != nil {
			return api.Outcome{}, err
		}
	}
	o.May = mayOrder(ctx)
	on := []device.TokenID{o.Token}
	if o.With != "" {
		on = append(on, o.With)
	}
	due, err := d.dueBefore(ctx, on...)
	if err != nil {
		return api.Outcome{}, err
	}
	changes, err := d.Runner.Reissue(ctx, officer(ctx), o, tell)
	out, err := d.waiting(ctx, id, changes, err)
	if err != nil {
		return out, err
	}
	return d.toRevoke(ctx, out, due, on...)
}

// current refuses a token that is not in the inventory yet, and of a type that is retired.
func (d *Desk) current(ctx context.Context, id device.TokenID) error {
	retired := d.retirement(provision.TypeOf(id).Code)
	if retired == "" {
		return nil
	}
	_, err := d.token(ctx, id)
	if errors.Is(err, vault.ErrNotFound) {
		err = api.Errorf(api.Refused, "%s", retired)
	}
	return err
}

func reissueOf(id device.TokenID, b api.Reissue) (o provision.Reissue, err error) {
	for field, words := range map[string]string{"reason": b.Reason, "words": b.Words} {
		if len(words) > maxWords {
			return o, api.Errorf(api.Invalid, "the request is not valid: body.%s: expected at most %d bytes", field, maxWords)
		}
	}
	o = provision.Reissue{
		Token: id, User: b.User, ContinueOffline: b.ContinueOffline, Reason: b.Reason, Codes: b.Codes, Owner: b.Owner,
		Old:      provision.OldEnd{Words: b.Words},
		Settings: provision.Settings{Digits: b.Digits, Identifier: b.Identifier, Enter: b.Enter, Overwrite: b.Overwrite},
	}
	if b.Old != stays {
		o.Old.Loss = vault.LossKind(b.Old)
	}
	switch {
	case b.With != "" && b.WithoutDevice:
		return o, api.Errorf(api.Invalid, "a token is either replaced by another one, or waits for its device")
	case b.With == "" && (b.Old != "" || b.Words != ""):
		return o, api.Errorf(api.Invalid, "what becomes of the old token is only asked when another one replaces it")
	case b.With != "":
		o.With, err = device.ParseTokenID(b.With)
	case b.WithoutDevice:
		o.Shape = provision.Absent
	}
	if err != nil {
		err = api.Errorf(api.Invalid, "%v", err)
	}
	return o, err
}

func (d *Desk) reseed(ctx context.Context, in *onToken[*api.OptionalReason], tell provision.Tell) (api.Outcome, error) {
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	changes, err := d.Runner.Reseed(ctx, officer(ctx), id, in.Body.Words(), tell)
	return d.outcome(ctx, id, changes, err)
}

func (d *Desk) resolve(ctx context.Context, in *onToken[api.Resolve], tell provision.Tell) (api.Outcome, error) {
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	due, err := d.dueBefore(ctx, id)
	if err != nil {
		return api.Outcome{}, err
	}
	out, err := d.resolved(ctx, id, in.Body, tell)
	if err != nil {
		return out, err
	}
	return d.toRevoke(ctx, out, due, id)
}

// resolved settles interrupted work as its caller says.
func (d *Desk) resolved(ctx context.Context, id device.TokenID, in api.Resolve, tell provision.Tell) (api.Outcome, error) {
	switch by := officer(ctx); {
	case in.Undo && (in.ContinueOffline || len(in.Codes) > 0) || in.ContinueOffline && len(in.Codes) > 0:
		return api.Outcome{}, api.Errorf(api.Invalid, "work is either given up, or goes on with codes, or goes on before a cut-off is confirmed")
	case in.Undo:
		return api.Outcome{Text: "undone"}, d.Runner.Undo(ctx, by, id, tell)
	case in.ContinueOffline:
		changes, err := d.Runner.ResolveOffline(ctx, by, id, in.Reason, tell)
		return d.waiting(ctx, id, changes, err)
	default:
		changes, err := d.Runner.Resolve(ctx, by, id, in.Codes, tell)
		return d.waiting(ctx, id, changes, err)
	}
}

// waiting is outcome for work that may now wait for its device, which is no failure: that was asked for.
func (d *Desk) waiting(ctx context.Context, id device.TokenID, changes []vault.Change, err error) (api.Outcome, error) {
	if !errors.Is(err, provision.ErrDeviceWanted) {
		return d.outcome(ctx, id, changes, err)
	}
	out, err := d.outcome(ctx, id, changes, nil)
	if err != nil {
		return out, err
	}
	leaver, user, err := d.Runner.Awaited(id)
	if leaver != "" {
		out.Text = fmt.Sprintf("%s is cut off; ", leaver)
	}
	out.Text += fmt.Sprintf("insert %s and run tokendesk resolve %s to reseed it for %s", id.Device(), id, user)
	return out, err
}
