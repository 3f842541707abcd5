package daemon

import (
	"context"
	"errors"
	"sync"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/usbhid"
	"tokendesk/vault"
)

const allowEmulated = "say devices.allow_emulated = true in the configuration if this desk may use emulated tokens"

// buses applies rule D6: real credentials and emulated tokens do not mix by accident.
func (c DevicesConfig) buses(level vault.Level) ([]device.Bus, error) {
	mixed := c.AllowEmulated || level != vault.LevelTPM
	var buses []device.Bus
	if c.USB {
		var usb device.Bus = usbhid.Bus{}
		if !mixed {
			usb = &genuine{Bus: usb}
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
type genuine struct {
	device.Bus
	emulated sync.Map // paths
}

const notGenuine = "it is EMULATED, and the vault is sealed by a hardware TPM"

// Watch implements device.Bus.
func (g *genuine) Watch(ctx context.Context, fn func(device.Event)) error {
	return g.Bus.Watch(ctx, func(e device.Event) {
		if !e.Info.Emulated {
			g.emulated.Delete(e.Info.Path)
		} else {
			g.emulated.Store(e.Info.Path, true)
			if e.Info.Problem == "" {
				e.Info.Problem, e.Info.Cure = notGenuine, allowEmulated
			}
		}
		fn(e)
	})
}

// Open implements device.Bus.
func (g *genuine) Open(ctx context.Context, path string) (device.Report, error) {
	if _, emulated := g.emulated.Load(path); emulated {
		return nil, &device.CureError{Err: errors.New(notGenuine), Cure: allowEmulated}
	}
	return g.Bus.Open(ctx, path)
}
