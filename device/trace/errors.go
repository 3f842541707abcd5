package trace

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/device"
)

// ErrForeign means that a token has typed what is no code of a published seed: perhaps its other slot was touched. It may be
// somebody's secret, so that there is no trace then.
var ErrForeign = errors.New("the token has given something that is no code of the published seed, and the trace was thrown away")

// DifferError says where a driver does not do what a trace says.
type DifferError struct {
	Line int // of the file; 0 if the trace was not read from one
	Want string
	Did  string
}

func (e *DifferError) Error() string {
	return fmt.Sprintf("line %d of the trace says %q, and the driver did %q", e.Line, e.Want, e.Did)
}

// conditions are the errors that traces tell apart, the more special ones first.
var conditions = []struct {
	name string
	err  error
}{
	{"gone", device.ErrGone},
	{"busy", device.ErrBusy},
	{"permission", device.ErrPermission},
	{"corrupt", device.ErrCorrupt},
	{"mute", device.ErrMute},
	{"no-touch", device.ErrNoTouch},
	{"not-a-code", device.ErrNotACode},
	{"locked", device.ErrLocked},
	{"full", device.ErrFull},
	{"no-application", device.ErrNoApplication},
	{"timeout", device.ErrTimeout},
	{"cancelled", context.Canceled},
	{"late", context.DeadlineExceeded},
}

// other is the name of all other errors.
const other = "other"

// named is the name of an error.
func named(err error) string {
	for _, c := range conditions {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return other
}

// errOther is what becomes of an error that has no name.
var errOther = errors.New("an error that the trace has no name for")

// called is the error with a name.
func called(name string) (error, bool) {
	for _, c := range conditions {
		if c.name == name {
			return c.err, true
		}
	}
	return errOther, name == other
}

// failure says what a step came to that has failed: what callers can tell apart, and no words.
func failure(err error) string {
	if e, ok := errors.AsType[*device.PINError](err); ok {
		return fmt.Sprintf("pin %d %s", e.Retries, e.Name)
	}
	if e, ok := errors.AsType[*device.FirmwareError](err); ok {
		return fmt.Sprintf("firmware %s", e.Need)
	}
	if _, ok := errors.AsType[*device.RejectedError](err); ok {
		return "rejected"
	}
	return named(err)
}
