package provision

import (
	"slices"

	"tokendesk/device"
)

// Codes of types.
const (
	TypeYubiKey = "yubikey-hotp"
	TypeFob     = "imported-hotp"
	TypeMail    = "mail"
	TypePhone   = "phone"
)

// Type is a kind of token and what can be done with it.
type Type struct {
	Code    string
	Family  device.Family
	Actions []Action
	// Sent says that its codes are sent to an address, by somebody else: the desk has no seed of it, and tells the central
	// service nothing.
	Sent bool
}

var (
	always = []Action{ActEdit, ActAssign, ActUnassign, ActDisable, ActEnable, ActExpire, ActCompromise, ActDelete}

	types = []Type{
		{Code: TypeYubiKey, Family: device.YubiKey, Actions: append([]Action{ActTest, ActResync, ActReseed, ActReissue, ActWipe}, always...)},
		{Code: TypeFob, Family: device.Fob, Actions: append([]Action{ActTest, ActResync, ActReissue}, always...)},
		{Code: TypeMail, Family: device.Mail, Actions: always, Sent: true},
		{Code: TypePhone, Family: device.Phone, Actions: always, Sent: true},
	}
)

// Types returns all types.
func Types() []Type { return slices.Clone(types) }

// TypeOf returns the type of a token, which its name tells.
func TypeOf(id device.TokenID) Type {
	for _, t := range types {
		if t.Family == id.Device().Family() {
			return t
		}
	}
	return Type{}
}
