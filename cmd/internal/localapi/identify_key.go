package localapi

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
)

// errIdentified ends a capture that has its answer.
var errIdentified = errors.New("a key was identified")

// identifyKey says whose the inserted key is that somebody touches first: two times, and a third if that is needed.
func (d *Desk) identifyKey(ctx context.Context, _ *nothing, tell func(api.CaptureEvent)) (last api.CaptureEvent, err error) {
	keys := d.usable()
	if len(keys) == 0 {
		return last, api.Errorf(api.Device, "no key is inserted: insert it; tokendesk devices says why if it is not seen")
	}
	listening, name, over := d.captures.begin(ctx)
	defer over()
	first := api.CaptureEvent{Capture: name}
	for _, id := range keys {
		first.Devices = append(first.Devices, string(id))
	}
	tell(first)
	typed := map[device.ID][]string{}
	err = d.Runner.Tray(listening, keys, func(c provision.Typed) (bool, error) {
		codes := typed[c.Device]
		if len(codes) > 0 && len(codes[0]) != len(c.Code) { // of the other slot
			codes = nil
		}
		codes = append(codes, c.Code)
		typed[c.Device] = codes
		if len(codes) < 2 {
			tell(api.CaptureEvent{Key: &api.CapturedKey{Device: string(c.Device), State: "ready", Codes: len(codes)}})
			return false, nil
		}
		found, err := d.identifyCodes(ctx, codes)
		if err != nil {
			return false, err
		}
		if found.More {
			tell(api.CaptureEvent{Key: &api.CapturedKey{Device: string(c.Device), State: "ready", Codes: len(codes), Text: found.Why}})
			return false, nil
		}
		last.Identified = &api.IdentifiedKey{Device: string(c.Device), Identified: found, Warning: stray(c.Device, found)}
		return true, errIdentified
	}, func(p provision.Progress) { tell(capturedKey(p)) })
	switch {
	case errors.Is(err, errIdentified):
		return last, nil
	case err == nil: // the officer has ended it
		err = api.Errorf(api.NotVerified, "it was ended before a key had typed enough codes: nothing is known")
	}
	return last, err
}

// stray says that a seed sits in another key than its token's.
func stray(key device.ID, found api.Identified) string {
	if found.Token == nil || found.Token.Device == string(key) {
		return ""
	}
	return fmt.Sprintf("these codes were typed by %s, and their seed is that of %s: a copy of it is in the wrong key; find out how it came there, and reseed the token", key, found.Token.ID)
}
