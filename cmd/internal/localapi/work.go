package localapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	syncer "tokendesk/sync"
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
	return device.ParseTokenID(fmt.Sprintf("%s/otp%d", e.Body.Device, e.Body.Slot))
}

func (e *enrollment) concerns() ([]device.TokenID, error) {
	id, err := e.id()
	return []device.TokenID{id}, err
}

func (d *Desk) enroll(ctx context.Context, in *enrollment, tell provision.Tell) (api.Outcome, error) {
	e := in.Body
	id, err := in.id()
	if why := d.unavailable(provision.TypeOf(id).Code); err == nil && why != "" {
		return api.Outcome{}, api.Errorf(api.Refused, "%s", why)
	}
	if err != nil {
		return api.Outcome{}, api.Errorf(api.Invalid, "the device is not named by a YubiKey's serial number, such as yk-12345678")
	}
	tenant, err := d.homeOf(ctx, e.Tenant)
	if err != nil {
		return api.Outcome{}, err
	}
	changes, err := d.Runner.Enroll(ctx, officer(ctx), provision.Enrollment{
		Token: id, User: e.User, Tenant: tenant, Digits: e.Digits, StartCounter: e.StartCounter,
		Identifier: e.Identifier, Enter: e.Enter, Overwrite: e.Overwrite, Typed: e.Typed,
	}, tell)
	if errors.Is(err, provision.ErrCodesWanted) { // as asked
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
	changes, err := d.Runner.Wipe(ctx, officer(ctx), id, in.Body.Words(), tell)
	return d.outcome(ctx, id, changes, err)
}

func (d *Desk) test(ctx context.Context, in *onToken[api.Codes], tell provision.Tell) (api.Outcome, error) {
	one := func(a *syncer.Attempt, codes []string) (vault.Change, error) { return a.Test(codes[len(codes)-1]) }
	return d.place(ctx, in, provision.ActTest, 1, tell, func(a *syncer.Attempt, codes []string) (vault.Change, bool, error) {
		c, err := one(a, codes)
		return c, err == nil, err
	}, one)
}

func (d *Desk) resync(ctx context.Context, in *onToken[api.Codes], tell provision.Tell) (api.Outcome, error) {
	return d.place(ctx, in, provision.ActResync, 2, tell, (*syncer.Attempt).ResyncLast, (*syncer.Attempt).Resync)
}

// place finds the counter that codes belong to, typed ones or captured ones.
func (d *Desk) place(ctx context.Context, in *onToken[api.Codes], action provision.Action, need int, tell provision.Tell,
	captured func(*syncer.Attempt, []string) (vault.Change, bool, error),
	typed func(*syncer.Attempt, []string) (vault.Change, error),
) (api.Outcome, error) {
	id, err := in.id()
	if err != nil {
		return api.Outcome{}, err
	}
	codes := in.Body.Codes
	switch {
	case in.Body.Capture && len(codes) > 0:
		return api.Outcome{}, api.Errorf(api.Invalid, "codes are either given or captured, not both")
	case !in.Body.Capture && (len(codes) < need || need == 1 && len(codes) > 1):
		return api.Outcome{}, api.Errorf(api.Invalid, "give %s, oldest first, or have the key captured", []string{"one code", "two or three consecutive codes"}[need-1])
	}
	if err := d.Runner.Ready(id, action); err != nil {
		return api.Outcome{}, err
	}
	if in.Body.Capture && id.Device().Family() != device.YubiKey {
		return api.Outcome{}, api.Errorf(api.Refused, "%s types nothing: give the codes that it shows", id)
	}
	attempt, err := d.Outbox.Begin(ctx, officer(ctx), id)
	if err != nil {
		return api.Outcome{}, err
	}
	defer attempt.Close()
	if attempt.Note != "" {
		tell(provision.Progress{Kind: provision.Note, Text: attempt.Note})
	}
	var change vault.Change
	if in.Body.Capture {
		err = d.Runner.Capture(ctx, id, func(codes []string) (ok bool, err error) {
			change, ok, err = captured(attempt, codes)
			return ok, err
		}, tell)
	} else {
		change, err = typed(attempt, codes)
	}
	if err != nil {
		return api.Outcome{}, err
	}
	d.Outbox.Wake()
	return d.outcome(ctx, id, []vault.Change{change}, nil)
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
