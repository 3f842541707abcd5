package nitrokey_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"tokendesk/device"
	"tokendesk/device/emulator/nitrokeypro"
	"tokendesk/device/nitrokey"
	"tokendesk/vault/secret"
)

const serial = device.Serial(0x5D19)

var (
	seed      = secret.New([]byte("12345678901234567890")) // RFC 4226, appendix D
	otherSeed = secret.New([]byte("another seed, longer"))
	adminPIN  = secret.New([]byte(nitrokeypro.FactoryAdminPIN))
	wrongPIN  = secret.New([]byte("87654321"))
	codes     = []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"}
)

func model(t *testing.T, vendor, product uint16) device.Model {
	t.Helper()
	m, known := device.FindModel(vendor, product)
	if !known {
		t.Fatal("the model table has no such device")
	}
	return m
}

// kinds are a device of each model, and of each way to write a slot.
func kinds(t *testing.T) map[string]nitrokeypro.Options {
	t.Helper()
	pro, storage := model(t, device.NitrokeyVendor, 0x4108), model(t, device.NitrokeyVendor, 0x4109)
	return map[string]nitrokeypro.Options{
		"pro":         {Model: pro},
		"librem":      {Model: model(t, device.PurismVendor, 0x4C4B), Firmware: device.Version{Minor: 10}},
		"storage":     {Model: storage},
		"pro-0.8":     {Model: pro, Firmware: device.Version{Minor: 8}},
		"storage-dev": {Model: storage, Firmware: device.Version{Minor: 53, Build: 1}},
		"pro-0.7":     {Model: pro, Firmware: device.Version{Minor: 7}},
		"storage-53":  {Model: storage, Firmware: device.Version{Minor: 53}},
	}
}

// each runs fn for each kind, in time that passes only while everybody waits.
func each(t *testing.T, fn func(t *testing.T, k *nitrokeypro.Token)) {
	for name, o := range kinds(t) {
		bubble(t, name, func(t *testing.T) { fn(t, newToken(o)) })
	}
}

func bubble(t *testing.T, name string, fn func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, fn) })
}

func newToken(o nitrokeypro.Options) *nitrokeypro.Token {
	o.Serial = serial
	return nitrokeypro.New(o)
}

// tap is a report that runs before each call, which it numbers from 1.
type tap struct {
	device.Report
	calls  int
	before func(call int)
}

func (r *tap) SetFeature(p []byte) error { r.count(); return r.Report.SetFeature(p) }
func (r *tap) GetFeature(p []byte) error { r.count(); return r.Report.GetFeature(p) }

func (r *tap) count() {
	r.calls++
	if r.before != nil {
		r.before(r.calls)
	}
}

// open starts a session, and lends HOTP slot 1.
func open(t *testing.T, k *nitrokeypro.Token) (*nitrokey.Session, device.HOTPToken) {
	t.Helper()
	return over(t, k, k.Open())
}

func over(t *testing.T, k *nitrokeypro.Token, r device.Report) (*nitrokey.Session, device.HOTPToken) {
	t.Helper()
	s := nitrokey.New(r, k.Model())
	one, err := s.Token(t.Context(), device.AppToken(device.NitrokeyID(serial), "hotp1"))
	if err != nil {
		t.Fatal(err)
	}
	return s, one
}

func config() device.HOTPConfig {
	return device.HOTPConfig{Seed: seed, Digits: 6, CurrentAccessCode: adminPIN}
}

func program(t *testing.T, token device.HOTPToken, c device.HOTPConfig) {
	t.Helper()
	if err := token.Program(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func expectCodes(t *testing.T, token device.HOTPToken, want ...string) {
	t.Helper()
	for i, code := range want {
		got, err := token.Code(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got != code {
			t.Errorf("code %d is %s, want %s", i, got, code)
		}
	}
}

func expectError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func expectPINError(t *testing.T, err error, retries int) {
	t.Helper()
	var pin *device.PINError
	if !errors.As(err, &pin) || *pin != (device.PINError{Name: "admin PIN", Retries: retries}) {
		t.Errorf("error %v, want one about the admin PIN with %d tries left", err, retries)
	}
}

func setFault(t *testing.T, k *nitrokeypro.Token, f nitrokeypro.Fault, n int) {
	t.Helper()
	if err := k.SetFault(f, n); err != nil {
		t.Fatal(err)
	}
}

func describe(t *testing.T, token device.HOTPToken) device.State {
	t.Helper()
	state, err := token.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func configured(t *testing.T, token device.HOTPToken, want bool) {
	t.Helper()
	if got := describe(t, token).Configured; got != want {
		t.Errorf("the slot is configured: %v, want %v", got, want)
	}
}
