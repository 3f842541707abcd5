package keys

import (
	"context"
	"errors"

	"tokendesk/device"
)

// errHere ends a watch that has seen what it waited for.
var errHere = errors.New("the key is here")

// Await waits until the key named id is inserted, identified and without a problem.
func (r *Registry) Await(ctx context.Context, id device.ID) error {
	for {
		err := r.Watch(ctx, func(e Event) error {
			if e.Kind != Removed && e.Key.ID == id && e.Key.Problem == "" && e.Key.HID() {
				return errHere
			}
			return nil
		})
		switch {
		case errors.Is(err, errHere):
			return nil
		case !errors.Is(err, ErrBehind):
			return err
		}
	}
}
