package oathapplet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/vault/secret"
)

// Issuer is before the names of the desk's credentials, so that other programs show where they come from: "tokendesk:alice".
const Issuer = "tokendesk"

// Token is an HOTP credential of the desk, whether it is there or not.
type Token struct {
	session *Session
	row     device.Application
	name    string
}

var _ device.HOTPToken = (*Token)(nil)

// Token implements device.Session.
func (s *Session) Token(_ context.Context, id device.TokenID) (device.HOTPToken, error) {
	row, name := device.ApplicationOf(id)
	family := device.YubiKey
	if s.about.nitrokey {
		family = device.Nitrokey
	}
	if name == "" || row.Family != family || s.about.nitrokey && id.Device() != device.NitrokeyID(s.about.serial) {
		return nil, fmt.Errorf("%s: %w", id, device.ErrNoApplication)
	}
	return &Token{s, row, Issuer + ":" + name}, nil
}

// Describe implements device.HOTPToken. A YubiKey does not tell its serial number here.
func (t *Token) Describe(ctx context.Context) (device.State, error) {
	there, err := t.session.has(ctx, t.name)
	if err != nil {
		return device.State{}, err
	}
	return device.State{Serial: t.session.about.serial, Firmware: t.session.about.version, Configured: there}, nil
}

// Unlock implements device.HOTPToken.
func (t *Token) Unlock(ctx context.Context, password secret.Secret) error {
	return t.session.Unlock(ctx, password)
}

// Program implements device.HOTPToken. A Nitrokey 3 waits for a touch if there is something to replace.
func (t *Token) Program(ctx context.Context, c device.HOTPConfig) error {
	if err := t.row.Check(c); err != nil {
		return err
	}
	if !c.NewAccessCode.IsZero() {
		return errors.New("an OATH credential has no access code of its own")
	}
	if err := t.session.open(ctx, c.CurrentAccessCode); err != nil {
		return err
	}
	credential := Credential{Name: t.name, Type: HOTP, Algorithm: SHA1, Digits: c.Digits, Counter: uint32(c.StartCounter)}
	return t.session.put(ctx, credential, c.Seed, c.CurrentAccessCode)
}

// Delete implements device.HOTPToken. A Nitrokey 3 waits for a touch if it is there.
func (t *Token) Delete(ctx context.Context, current secret.Secret) error {
	if err := t.session.open(ctx, current); err != nil {
		return err
	}
	return t.session.delete(ctx, t.name, current)
}

// Emission implements device.HOTPToken.
func (t *Token) Emission() device.Emission { return device.Calculated }

// Code implements device.HOTPToken. An application that wants its password has to be unlocked before.
func (t *Token) Code(ctx context.Context) (string, error) {
	if t.session.locked {
		return "", fmt.Errorf("cannot calculate a code: %w", device.ErrLocked)
	}
	return t.session.Calculate(ctx, Credential{Name: t.name, Type: HOTP}, time.Time{})
}
