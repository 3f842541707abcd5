package syncer

import "time"

// HurryBegin has Begin wait less for the central service, until restore is called.
func HurryBegin(d time.Duration) (restore func()) {
	before := beginPatience
	beginPatience = d
	return func() { beginPatience = before }
}
