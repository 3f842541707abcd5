package daemon

import (
	"context"
	"errors"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/usbhid"
	"tokendesk/vault"
)

const allowEmulated = "say devices.allow_emulated = true in the configuration if this desk may use emulated tokens"

// buses applies rule D6: real credentials and emulated tokens do not mix by accident.
func (d *Daemon) buses(v *vault.Vault) ([]device.Bus, error) {
	c := d.Config.Devices
	mixed := c.AllowEmulated || v.Level() != vault.LevelTPM
	var buses []device.Bus
	if c.USB {
		var usb device.Bus = usbhid.Bus{}
		if !mixed {
			usb = genuine{usb}
		}
		buses = append(buses, usb)
	}
	if c.Emulator == "" {
		return buses, nil
	}
	if !mixed {
		return nil, errors.New("devices.emulator is set beside a vault sealed by a hardware TPM: remove it, or " + allowEmulated)
	}
	return append(buses, bussocket.New(c.Emulator)), nil
}

// genuine is a bus whose emulated keys are shown and cannot be used.
type genuine struct{ device.Bus }

// Watch implements device.Bus.
func (g genuine) Watch(ctx context.Context, fn func(device.Event)) error {
	return g.Bus.Watch(ctx, func(e device.Event) {
		if e.Info.Emulated && e.Info.Problem == "" {
			e.Info.Problem, e.Info.Cure = "it is EMULATED, and the vault is sealed by a hardware TPM", allowEmulated
		}
		fn(e)
	})
}
