package provision

import (
	"slices"

	"tokendesk/device"
)

// Codes of types.
const (
	TypeYubiKey = "yubikey-hotp" // of device.Applications, which has more
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

	types = append(programmed(), []Type{
		{Code: TypeFob, Family: device.Fob, Actions: append([]Action{ActTest, ActResync, ActReissue}, always...)},
		{Code: TypeMail, Family: device.Mail, Actions: always, Sent: true},
		{Code: TypePhone, Family: device.Phone, Actions: always, Sent: true},
		{Code: TypePIV, Family: device.YubiKey, Actions: []Action{ActEdit, ActAssign, ActUnassign, ActWipe, ActCompromise, ActDelete}, PIV: true},
	}...)
)

// programmed are the types of tokens that the desk programs with seeds: those of the table of devices' applications.
func programmed() (types []Type) {
	for _, a := range device.Applications {
		if a.HOTP && !slices.ContainsFunc(types, func(t Type) bool { return t.Code == a.Type }) {
			types = append(types, Type{Code: a.Type, Family: a.Family, Actions: append([]Action{ActTest, ActResync, ActReseed, ActReissue, ActWipe}, always...)})
		}
	}
	return types
}

// Types returns all types.
func Types() []Type { return slices.Clone(types) }

// TypeOf returns the type of a token, which its name tells.
func TypeOf(id device.TokenID) Type {
	row, _ := device.ApplicationOf(id)
	for _, t := range types {
		if row.Type != "" && t.Code == row.Type || row.Type == "" && t.Family == id.Device().Family() {
			return t
		}
	}
	return Type{}
}
