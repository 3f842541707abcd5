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
	TypePIV     = "yubikey-piv"
)

// Type is a kind of token and what can be done with it.
type Type struct {
	Code    string
	Family  device.Family
	Actions []Action
	// Sent says that its codes are sent to an address, by somebody else: the desk has no seed of it, and tells the central
	// service nothing.
	Sent bool
	PIV  bool // it holds keys and certificates, of which the central service is told nothing
}

// Told tells whether the central service is told of such tokens.
func (t Type) Told() bool { return !t.Sent && !t.PIV }

var (
	always = []Action{ActEdit, ActAssign, ActUnassign, ActDisable, ActEnable, ActExpire, ActCompromise, ActDelete}

	types = []Type{
		{Code: TypeYubiKey, Family: device.YubiKey, Actions: append([]Action{ActTest, ActResync, ActReseed, ActReissue, ActWipe}, always...)},
		{Code: TypeFob, Family: device.Fob, Actions: append([]Action{ActTest, ActResync, ActReissue}, always...)},
		{Code: TypeMail, Family: device.Mail, Actions: always, Sent: true},
		{Code: TypePhone, Family: device.Phone, Actions: always, Sent: true},
		{Code: TypePIV, Family: device.YubiKey, Actions: []Action{ActEdit, ActAssign, ActUnassign, ActWipe, ActCompromise, ActDelete}, PIV: true},
	}
)

// Types returns all types.
func Types() []Type { return slices.Clone(types) }

// TypeOf returns the type of a token, which its name tells.
func TypeOf(id device.TokenID) Type {
	for _, t := range types {
		if t.Family == id.Device().Family() && t.PIV == id.PIV() {
			return t
		}
	}
	return Type{}
}
