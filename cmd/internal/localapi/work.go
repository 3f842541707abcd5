package localapi

import (
	"context"
	"errors"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

// pushPatience is how long an answer waits to say what the central service made of a change.
const pushPatience = 3 * time.Second

// singleToken stands for the application in the path of a device that is one token itself.
const singleToken = "token"

func (p *TokenPath) id() (device.TokenID, error) {
	name := p.Device
	if p.Application != singleToken {
		name += "/" + p.Application
	}
	id, err := device.ParseTokenID(name)
	if err != nil {
		return "", api.Errorf(api.Invalid, "%v", err)
	}
	return id, nil
}

func (p *TokenPath) concerns() ([]device.TokenID, error) {
	id, err := p.id()
	return []device.TokenID{id}, err
}

// enrollment is the body of an enroll.
type enrollment struct{ Body api.Enroll }

func (e *enrollment) id() (device.TokenID, error) {
	id, err := device.ParseTokenID(e.Body.Device + "/" + e.Body.App)
	if err == nil && id.Programmable() {
		return id, nil
	}
	of := device.ID(e.Body.Device)
	if _, named := of.Serial(); !named {
		return "", api.Errorf(api.Invalid, "there is no such device: devices are named by their serial numbers, such as yk-12345678; tokendesk devices shows them")
	}
	return "", api.Errorf(api.Invalid, "such a device has no such application: choose --app %s, where NAME has up to %d small letters, digits, and . _ - between them",
		of.Family().Choices(), device.MaxCredentialName)
}

func (e *enrollment) concerns() ([]device.TokenID, error) {
	id, err := e.id()
	return []device.TokenID{id}, err
}

func (d *Desk) enroll(ctx context.Context, in *enrollment, tell provision.Tell) (api.Outcome, error) {
	e := in.Body
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	if why := d.unavailable(provision.TypeOf(id).Code); why != "" {
		return api.Outcome{}, api.Errorf(api.Refused, "%s", why)
	}
	tenant, err := d.homeOf(ctx, e.Tenant)
	if err != nil {
		return api.Outcome{}, err
	}
	changes, err := d.Runner.Enroll(ctx, officer(ctx), provision.Enrollment{
		Token: id, User: e.User, Tenant: tenant, Digits: e.Digits, StartCounter: e.StartCounter,
		Identifier: e.Identifier, Enter: e.Enter, Overwrite: e.Overwrite, Typed: e.Typed,
	}, tell)
	if e.Typed && errors.Is(err, provision.ErrCodesWanted) { // as asked
		err = nil
	}
	return d.outcome(ctx, id, changes, err)
}

// wipe leaves no token behind, unless that is compromised.
func (d *Desk) wipe(ctx context.Context, in *onToken[*api.OptionalReason], tell provision.Tell) (api.Outcome, error) {
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	due, err := d.dueBefore(ctx, id)
	if err != nil {
		return api.Outcome{}, err
	}
	changes, err := d.Runner.Wipe(ctx, officer(ctx), id, in.Body.Words(), tell)
	out, err := d.outcome(ctx, id, changes, d.onCardError(id, err))
	if err != nil {
		return out, err
	}
	return d.toRevoke(ctx, out, due, id)
}

// outcome says what an action has led to, and what the central service made of it so far.
func (d *Desk) outcome(ctx context.Context, id device.TokenID, changes []vault.Change, err error) (api.Outcome, error) {
	if err != nil {
		return api.Outcome{}, err
	}
	pushed := d.settle(ctx, changes)
	token, err := d.token(ctx, id)
	if errors.Is(err, vault.ErrNotFound) {
		return api.Outcome{Changes: pushed, Text: string(id) + " is gone from the inventory"}, nil
	}
	if err != nil {
		return api.Outcome{}, err
	}
	return api.Outcome{Token: &token, Changes: pushed}, nil
}

// settle waits a little for the central service to confirm changes.
func (d *Desk) settle(ctx context.Context, changes []vault.Change) []api.Change {
	ctx, cancel := context.WithTimeout(ctx, pushPatience)
	defer cancel()
	var out []api.Change
	for _, c := range changes {
		shown := changeOf(c)
		if d.Connector == nil {
			shown.State, shown.Problem = "local", "no central service is configured, so it stays in the outbox"
		} else if err := d.Outbox.Wait(ctx, c.Seq); err == nil {
			shown.State = "confirmed"
		} else if now, found := d.change(c.Seq); found {
			shown = changeOf(now)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			shown.Problem = err.Error()
		}
		out = append(out, shown)
	}
	return out
}

func (d *Desk) change(seq uint64) (found vault.Change, ok bool) {
	err := d.Vault.View(func(tx *vault.Tx) (err error) {
		found, err = tx.ChangeAt(seq)
		return err
	})
	return found, err == nil
}
