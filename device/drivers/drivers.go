// Package drivers knows which driver speaks to which device: it makes a device.Session of an opened interface or card.
//
// Together with the tables of package device it is all that a new kind of token needs beside its driver.
package drivers

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
	"tokendesk/device/management"
	"tokendesk/device/nitrokey"
	"tokendesk/device/oathapplet"
	"tokendesk/device/otpslot"
	"tokendesk/vault/secret"
)

// OverReport starts a session on an opened interface, which the caller closes.
func OverReport(i device.Info, r device.Report) device.Session {
	if m, known := device.FindModel(i.Vendor, i.Product); known && m.Has(device.NitrokeySlots) {
		return nitrokey.New(r, m)
	}
	return otpslot.New(r)
}

// OverCard finds out what an opened card is, and starts a session on it. The caller closes the card. It fails with
// management.ErrNotYubiKey if no driver knows it.
func OverCard(ctx context.Context, card device.Card) (device.Session, error) {
	info, err := management.Read(ctx, card)
	if err == nil && info.Serial != 0 {
		return &yubiKey{card, info}, nil
	}
	if err != nil && !errors.Is(err, management.ErrNotYubiKey) {
		return nil, err
	}
	applet, other := oathapplet.Open(ctx, card)
	switch {
	case other == nil && applet.Nitrokey():
		return secrets{applet}, nil
	case other != nil && !errors.Is(other, device.ErrNoApplication):
		return nil, other
	case err != nil:
		return nil, err
	}
	return &yubiKey{card, info}, nil
}

// yubiKey is a YubiKey, reached through its smart card. Its applications are selected when they are asked for.
type yubiKey struct {
	card device.Card
	info management.Info
}

// Identify implements device.Session. Of applications that are switched off it tells nothing.
func (y *yubiKey) Identify(ctx context.Context) (device.Identity, error) {
	id := device.Identity{Serial: y.info.Serial, Firmware: y.info.Firmware, PIV: y.info.PIV}
	if id.Serial != 0 {
		id.ID = device.YubiKeyID(id.Serial)
	}
	for _, open := range []func(context.Context) (device.Session, error){y.otp, y.oath} {
		s, err := open(ctx)
		var of device.Identity
		if err == nil {
			of, err = s.Identify(ctx)
		}
		switch { // an application that is not there, or out of order, does not take the others away
		case err == nil:
			id.Holds = append(id.Holds, of.Holds...)
		case errors.Is(err, device.ErrGone), ctx.Err() != nil:
			return id, err
		}
	}
	return id, nil
}

// Credentials implements device.Lister.
func (y *yubiKey) Credentials(ctx context.Context, password secret.Secret) ([]device.Credential, error) {
	applet, err := oathapplet.Open(ctx, y.card)
	if err != nil {
		return nil, err
	}
	return credentials(ctx, applet, password)
}

// Token implements device.Session.
func (y *yubiKey) Token(ctx context.Context, id device.TokenID) (device.HOTPToken, error) {
	row, credential := device.ApplicationOf(id)
	switch {
	case row.Family != device.YubiKey || !row.HOTP:
		return nil, fmt.Errorf("%s: %w", id, device.ErrNoApplication)
	case credential != "":
		return y.on(ctx, id, y.oath)
	}
	return y.on(ctx, id, y.otp)
}

func (y *yubiKey) on(ctx context.Context, id device.TokenID, open func(context.Context) (device.Session, error)) (device.HOTPToken, error) {
	s, err := open(ctx)
	if errors.Is(err, device.ErrNoApplication) {
		return nil, &device.CureError{Err: fmt.Errorf("%s: %w, or has it switched off", id, err), Cure: "switch it on: ykman config usb --enable OTP or OATH"}
	}
	if err != nil {
		return nil, err
	}
	t, err := s.Token(ctx, id)
	if err != nil {
		return nil, err
	}
	return ofKey{t, y.info}, nil
}

func (y *yubiKey) otp(ctx context.Context) (device.Session, error) {
	return otpslot.OverCard(ctx, y.card)
}

func (y *yubiKey) oath(ctx context.Context) (device.Session, error) {
	return oathapplet.Open(ctx, y.card)
}

// secrets is a Nitrokey 3, whose secrets application is all that the desk uses.
type secrets struct{ *oathapplet.Session }

// Credentials implements device.Lister.
func (s secrets) Credentials(ctx context.Context, password secret.Secret) ([]device.Credential, error) {
	return credentials(ctx, s.Session, password)
}

func credentials(ctx context.Context, applet *oathapplet.Session, password secret.Secret) (out []device.Credential, err error) {
	if applet.Locked() {
		if err := applet.Unlock(ctx, password); err != nil {
			return nil, err
		}
	}
	all, err := applet.List(ctx)
	for _, c := range all {
		out = append(out, device.Credential{Name: c.Name, Type: types[c.Type], Algorithm: algorithms[c.Algorithm]})
	}
	return out, err
}

var (
	types      = map[oathapplet.Type]string{oathapplet.HOTP: "HOTP", oathapplet.TOTP: "TOTP"}
	algorithms = map[oathapplet.Algorithm]string{oathapplet.SHA1: "SHA-1", oathapplet.SHA256: "SHA-256", oathapplet.SHA512: "SHA-512"}
)

// ofKey is a token of an applet that does not know, or does not tell, whose it is.
type ofKey struct {
	device.HOTPToken
	info management.Info
}

// Describe implements device.HOTPToken.
func (o ofKey) Describe(ctx context.Context) (device.State, error) {
	state, err := o.HOTPToken.Describe(ctx)
	state.Serial, state.Firmware = o.info.Serial, o.info.Firmware
	return state, err
}
