package trace

import (
	"bytes"

	"tokendesk/device"
)

// Trace is a conversation with one device over one opening of it.
type Trace struct {
	Header
	Steps []Step // the first one opens
}

// Header says whose conversation a trace is.
type Header struct {
	Token device.TokenID
	// Vendor and Product are those of a device that is reached by feature reports; 0 if it is a smart card.
	Vendor, Product uint16
	Emulated        bool   // not a hardware token (rule D6)
	Note            string // one line about it
}

// card tells whether the conversation is one with a smart card.
func (h Header) card() bool { return h.Vendor == 0 && h.Product == 0 }

// reportSize is that of the device's feature reports; 0 if it has none.
func (h Header) reportSize() int {
	m, _ := device.FindModel(h.Vendor, h.Product)
	return m.ReportSize()
}

// Step is one thing that was asked of a driver.
type Step struct {
	Operation
	Calls   []Call
	Outcome string // "ok", "code 22186581", "fails gone"
	line    int    // of Outcome in the file
}

// Kind is which method was called.
type Kind string

// Kinds of calls.
const (
	Set  Kind = "set"  // Report.SetFeature
	Get  Kind = "get"  // Report.GetFeature
	Key  Kind = "key"  // Report.ReadInput
	APDU Kind = "apdu" // Card.Transmit
	Draw Kind = "draw" // device.Draw: what the host has chosen at random
)

// Call is one call of a transport, or a run of looks that have all shown the same.
type Call struct {
	Kind   Kind
	Sent   []byte // Set, APDU
	Got    []byte // Get, Key (empty: nothing was typed), APDU, Draw
	Status uint16 // APDU
	Err    string // name of the error that it has failed with; empty: none
	Times  int    // Get: how often it was looked, at least 1; 0 with others
	line   int
}

// looks tells whether a call only looks how things are, again and again, so that it does not matter how often. A single Get
// counts, since nothing was waited for.
func (c Call) looks() bool {
	return c.Err == "" && (c.Kind == Get && c.Times > 1 || c.quiet())
}

// quiet tells whether a call has waited for a keystroke, and none came.
func (c Call) quiet() bool { return c.Kind == Key && c.Err == "" && len(c.Got) == 0 }

// again tells whether next is another look that has shown the same.
func (c Call) again(next Call) bool {
	if c.Err != "" || next.Err != "" || c.Kind != next.Kind {
		return false
	}
	return c.quiet() && next.quiet() || c.Kind == Get && bytes.Equal(c.Got, next.Got)
}
