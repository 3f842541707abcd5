package localapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/device/trace"
	"tokendesk/provision"
	"tokendesk/vault"
)

// Names of what a trace is recorded with (package trace).
const (
	traceCode = "code-a"
	tracePIN  = "admin-pin"
)

const (
	traceCodes   = 2
	traceTidying = 10 * time.Second // for erasing a token after something went wrong
)

// recordTrace records what an enroll says to a token that is nobody's, and leaves that erased.
func (d *Desk) recordTrace(ctx context.Context, in *onToken[api.RecordTrace], tell provision.Tell) (out api.Outcome, err error) {
	id, err := in.id()
	if err != nil {
		return out, err
	}
	row, _ := device.ApplicationOf(id)
	if !row.HOTP {
		return out, refused("a trace is recorded of otp1, otp2, hotp1 to hotp3 or oath:NAME", "%s is not programmed with a seed by the desk itself", id)
	}
	release, err := d.Runner.Claim(id)
	if err != nil {
		return out, err
	}
	defer release()
	if err := d.notEnrolled(id); err != nil {
		return out, err
	}
	r := trace.NewRecorder(trace.Header{Token: id})
	going := &tracing{Recorder: r, id: id, row: row, wish: in.Body, tell: tell, patience: d.Runner.TouchTimeout}
	reports := false
	tap := keys.Tap{Card: r.Card, Report: func(inner device.Report) device.Report {
		reports = true
		return r.Report(inner)
	}}
	err = d.Keys.UseTapped(ctx, id, tap, func(ctx context.Context, t device.HOTPToken, k keys.Key) error {
		r.Emulated, r.Note = k.Info.Emulated, "an enroll: it is programmed, gives codes, and is erased"
		if reports {
			r.Vendor, r.Product = k.Info.Vendor, k.Info.Product
		}
		if err := d.notEnrolled(id); err != nil { // from here on the device is ours
			return err
		}
		if err := tellsNothing(row, k); err != nil {
			return err
		}
		return going.with(ctx, t)
	})
	if err != nil {
		return out, going.after(err)
	}
	recorded, err := r.Trace()
	if err != nil {
		return out, err
	}
	err = d.Vault.Update(func(tx *vault.Tx) error { return tx.Audit(vault.Done(officer(ctx), "trace", id, "")) })
	if err != nil {
		return out, err
	}
	return api.Outcome{Trace: string(recorded.Bytes()), Text: string(id) + " was recorded, and is erased"}, nil
}

func refused(next, format string, args ...any) error {
	return &provision.RefusedError{Reason: fmt.Sprintf(format, args...), Next: next}
}

// notEnrolled refuses a token that the inventory knows, whatever it is there.
func (d *Desk) notEnrolled(id device.TokenID) error {
	err := d.Vault.View(func(tx *vault.Tx) error { _, err := tx.Token(id); return err })
	if err == nil {
		return refused("take another device, or another of its applications", "%s is in the inventory, and a trace would overwrite it", id)
	}
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	return err
}

// tellsNothing refuses a device whose application would tell of others' credentials while it is recorded, or has a password of
// somebody's, of which there would be a proof.
func tellsNothing(row device.Application, k keys.Key) error {
	for _, h := range k.Holds {
		if h.Name+":" != row.Name {
			continue
		}
		if h.Locked {
			return refused("remove it first", "the %s applet has a password, which can be guessed from what would be recorded", h.Name)
		}
		if h.Used > 0 {
			return refused("take a device on which it is empty", "the %s applet holds credentials, whose names would be recorded", h.Name)
		}
	}
	return nil
}

// tracing is a record that is being made.
type tracing struct {
	*trace.Recorder
	token    device.HOTPToken
	id       device.TokenID
	row      device.Application
	wish     api.RecordTrace
	tell     provision.Tell
	patience time.Duration

	password string // that the device wants now, by its name
	written  bool
	erased   bool // again
}

// with records, and does not leave a published seed on the token if it can be helped.
func (t *tracing) with(ctx context.Context, token device.HOTPToken) error {
	t.token = token
	err := t.enroll(ctx)
	if err == nil || !t.written {
		return err
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceTidying)
	defer cancel()
	t.erased = t.do(after, trace.Operation{Verb: trace.Delete, Current: t.password}) == nil
	return err
}

// after adds to what has gone wrong what it has left behind.
func (t *tracing) after(err error) error {
	switch {
	case t.erased:
		return fmt.Errorf("%w; nothing was kept, and the token is erased", err)
	case t.written:
		return fmt.Errorf("%w; nothing was kept, but %s may have a published seed now: insert it and record again with --overwrite, or erase it", err, t.id)
	}
	return err
}

func (t *tracing) do(ctx context.Context, o trace.Operation) error {
	_, err := t.Do(ctx, t.token, o)
	return err
}

func (t *tracing) enroll(ctx context.Context) error {
	if err := t.unlock(ctx); err != nil {
		return err
	}
	if err := t.clear(ctx); err != nil {
		return err
	}
	o := trace.Operation{Verb: trace.Program, Seed: t.wish.Seed, Digits: t.wish.Digits, Enter: true, Current: t.password}
	if t.row.Access == device.OwnCode {
		o.New = traceCode
	}
	t.written = true
	if o.New != "" { // also if it is not known whether it was written: an empty slot wants none
		t.password = o.New
	}
	if err := t.do(ctx, o); err != nil {
		return err
	}
	t.tell(provision.Progress{Kind: provision.Done, Step: "program", Text: "the published seed is on the device"})
	if err := t.codes(ctx); err != nil {
		return err
	}
	if err := t.do(ctx, trace.Operation{Verb: trace.Delete, Current: t.password}); err != nil {
		return err
	}
	return t.do(ctx, trace.Operation{Verb: trace.Describe})
}

// unlock shows a device the PIN that it has left the factory with, if it wants one.
func (t *tracing) unlock(ctx context.Context) error {
	if t.row.Access != device.SharedPassword {
		return nil
	}
	err := t.do(ctx, trace.Operation{Verb: trace.Unlock})
	if !errors.Is(err, device.ErrLocked) {
		return err
	}
	t.password = tracePIN
	err = t.do(ctx, trace.Operation{Verb: trace.Unlock, Current: t.password})
	if wrong := (*device.PINError)(nil); errors.As(err, &wrong) {
		return &device.CureError{Err: fmt.Errorf("it does not have the PIN of the factory, and no other is recorded: %w", err), Cure: "take another device"}
	}
	return err
}

// clear erases what is there, if that may be.
func (t *tracing) clear(ctx context.Context) error {
	found, err := t.Do(ctx, t.token, trace.Operation{Verb: trace.Describe})
	if err != nil || !found.State.Configured {
		return err
	}
	if !t.wish.Overwrite {
		return refused("if it is not wanted any more, say --overwrite", "there is something in %s of %s", t.id.Place(), t.id.Device())
	}
	err = t.do(ctx, trace.Operation{Verb: trace.Delete, Current: t.password})
	if rejected := (*device.RejectedError)(nil); errors.As(err, &rejected) && t.row.Access == device.OwnCode { // what an earlier record may have left
		return t.do(ctx, trace.Operation{Verb: trace.Delete, Current: traceCode})
	}
	return err
}

func (t *tracing) codes(ctx context.Context) error {
	emission := t.token.Emission()
	touch := "touch the key"
	switch {
	case emission == device.Elsewhere: // where they come out nothing is recorded
		return nil
	case emission == device.LongTouch:
		touch = "touch the key for three seconds"
	}
	patience := t.patience
	if patience == 0 {
		patience = provision.DefaultTouchTimeout
	}
	for n := range traceCodes {
		if emission.Typed() {
			t.tell(provision.Progress{Kind: provision.Touch, Text: touch, Slot: t.id.Slot(), Codes: n})
		}
		if err := t.do(ctx, trace.Operation{Verb: trace.Code, Within: patience}); err != nil {
			return err
		}
	}
	return nil
}
