package bussocket

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
)

// Bus reaches the emulated keys behind one socket. It keeps nothing open between calls.
type Bus struct{ socket string }

var _ device.Bus = (*Bus)(nil)

// New returns the bus behind socket. Nothing is dialled yet.
func New(socket string) *Bus { return &Bus{socket} }

// Name implements device.Bus.
func (b *Bus) Name() string { return "emulator" }

// List returns the interfaces that are plugged in now.
func (b *Bus) List(ctx context.Context) ([]device.Info, error) {
	a, err := ask(ctx, b.socket, Request{Op: OpList})
	if err != nil {
		return nil, err
	}
	infos := make([]device.Info, len(a.Interfaces))
	for i, f := range a.Interfaces {
		infos[i] = f.info()
	}
	return infos, nil
}

// Watch implements device.Bus. When ctx ends it returns ctx.Err().
func (b *Bus) Watch(ctx context.Context, fn func(device.Event)) error {
	c, err := dial(ctx, b.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	defer c.interruptedBy(ctx)()
	if _, err := c.Write(EncodeRequest(Request{Op: OpWatch})); err != nil {
		return orContext(ctx, c.lost(err))
	}
	for {
		a, err := c.receive()
		switch {
		case err != nil:
			return orContext(ctx, err)
		case a.Error != nil:
			return orContext(ctx, c.lost(a.Error))
		case a.Event == EventAdded, a.Event == EventRemoved:
			fn(device.Event{Info: a.Interface.info(), Removed: a.Event == EventRemoved})
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Open implements device.Bus. An emulator that cannot be reached counts as an unplugged key.
func (b *Bus) Open(ctx context.Context, path string) (device.Report, error) {
	if !name.MatchString(path) {
		return nil, fmt.Errorf("cannot open %.80q: %w: that is no path of an interface", path, device.ErrGone)
	}
	c, err := dial(ctx, b.socket)
	if err == nil {
		stop := c.interruptedBy(ctx)
		var a Answer
		a, err = c.call(EncodeRequest(Request{Op: OpOpen, Path: path}))
		if !stop() { // too late to keep what may have been granted
			err = ctx.Err()
		}
		if err == nil && (a.Interface == nil || a.Interface.Path != path) {
			err = c.lost(errors.New("it does not say that it opened this interface"))
		}
		if err == nil {
			return &report{conn: c, path: path, size: a.Interface.reportSize()}, nil
		}
		c.Close()
	}
	err = orContext(ctx, err)
	if _, refused := errors.AsType[*Error](err); refused || ctx.Err() != nil || errors.Is(err, device.ErrPermission) {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return nil, fmt.Errorf("cannot open %s: %w: %w", path, device.ErrGone, err)
}

func orContext(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
