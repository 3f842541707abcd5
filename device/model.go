package device

// Capability is something a model can do for the desk.
type Capability uint8

// Capabilities.
const (
	// OTP is the YubiKey OTP application: two slots behind a boot-keyboard interface.
	OTP Capability = 1 << iota
	// CCID is a smart-card interface.
	CCID
	// FIDO is a CTAP interface; the desk does not use it, but a model without OTP is named by it.
	FIDO
	// NitrokeySlots is the password safe and the OTP slots of a Nitrokey Pro or Storage, behind feature reports of 64 bytes.
	NitrokeySlots
)

// USB vendor IDs.
const (
	YubicoVendor   = 0x1050
	NitrokeyVendor = 0x20A0 // Clay Logic, which lends numbers to Nitrokey
	PurismVendor   = 0x316D
)

// Model is one USB identity that the desk knows.
type Model struct {
	Vendor, Product uint16
	Name            string
	Capabilities    Capability
}

// ReportSize is the size of the feature reports through which the desk works with a model, with the report number (always 0)
// before them; 0 if it has none.
func (m Model) ReportSize() int {
	switch {
	case m.Has(OTP):
		return ReportSize
	case m.Has(NitrokeySlots):
		return NitrokeyReportSize
	}
	return 0
}

// Has reports whether the model has every capability in c.
func (m Model) Has(c Capability) bool { return m.Capabilities&c == c }

// Models are the USB identities the desk recognises (yubikey-manager, core/__init__.py: PID; libnitrokey, 41-nitrokey.rules).
var Models = []Model{
	{YubicoVendor, 0x0010, "YubiKey", OTP},
	{YubicoVendor, 0x0110, "YubiKey NEO", OTP},
	{YubicoVendor, 0x0111, "YubiKey NEO", OTP | CCID},
	{YubicoVendor, 0x0112, "YubiKey NEO", CCID},
	{YubicoVendor, 0x0113, "YubiKey NEO", FIDO},
	{YubicoVendor, 0x0114, "YubiKey NEO", OTP | FIDO},
	{YubicoVendor, 0x0115, "YubiKey NEO", FIDO | CCID},
	{YubicoVendor, 0x0116, "YubiKey NEO", OTP | FIDO | CCID},
	{YubicoVendor, 0x0120, "Security Key by Yubico", FIDO},
	{YubicoVendor, 0x0401, "YubiKey", OTP},
	{YubicoVendor, 0x0402, "YubiKey", FIDO},
	{YubicoVendor, 0x0403, "YubiKey", OTP | FIDO},
	{YubicoVendor, 0x0404, "YubiKey", CCID},
	{YubicoVendor, 0x0405, "YubiKey", OTP | CCID},
	{YubicoVendor, 0x0406, "YubiKey", FIDO | CCID},
	{YubicoVendor, 0x0407, "YubiKey", OTP | FIDO | CCID},
	{YubicoVendor, 0x0410, "YubiKey Plus", OTP | FIDO},
	{NitrokeyVendor, 0x4108, "Nitrokey Pro", NitrokeySlots | CCID},
	{NitrokeyVendor, 0x4109, "Nitrokey Storage", NitrokeySlots | CCID},
	{NitrokeyVendor, 0x42B2, "Nitrokey 3", CCID | FIDO},
	{PurismVendor, 0x4C4B, "Librem Key", NitrokeySlots | CCID},
}

// Make is what holds for all devices of a family.
type Make struct {
	Card     string // what is one that is seen by its smart card only: "Nitrokey 3"
	CardCure string // what to look at where no smart card is seen of one that has some; empty: nothing
}

// Makes are the families whose devices the desk programs.
var Makes = map[Family]Make{
	YubiKey:  {Card: "YubiKey", CardCure: "its CCID interface may be switched off (ykman config usb --enable PIV)"},
	Nitrokey: {Card: "Nitrokey 3"},
}

// FindModel looks up a USB identity.
func FindModel(vendor, product uint16) (Model, bool) {
	for _, m := range Models {
		if m.Vendor == vendor && m.Product == product {
			return m, true
		}
	}
	return Model{}, false
}
