package trace_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/trace"
)

// scenario is something that is done with an emulated token, and what each step comes to.
type scenario struct {
	name, note string
	token      device.TokenID
	model      device.Model // zero: it is reached as a smart card
	begin      func(t *testing.T, r *trace.Recorder, token device.TokenID) (rig, error)
	do         []act
	want       []string
}

// rig is a token that was opened through a recorder, and a hand beside it.
type rig struct {
	device.HOTPToken
	hand func(what string) error
}

// act is an operation, after the hand has done something.
type act struct {
	hand string
	trace.Operation
}

func (s scenario) record(t *testing.T) *trace.Recorder {
	t.Helper()
	r := trace.NewRecorder(header(s))
	r.KeepForeign = true
	b, err := s.begin(t, r, s.token)
	r.Opened(err)
	if err != nil {
		return r
	}
	for _, a := range s.do {
		if a.hand != "" {
			if err := b.hand(a.hand); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = r.Do(t.Context(), b, a.Operation) // what comes of it is compared
	}
	return r
}

const serial = device.Serial(12345678)

var (
	fw5 = device.Version{Major: 5, Minor: 4, Build: 3}

	describe = trace.Operation{Verb: trace.Describe}
	code     = trace.Operation{Verb: trace.Code}
	remove   = trace.Operation{Verb: trace.Delete}
)

func program(change func(*trace.Operation)) trace.Operation {
	o := trace.Operation{Verb: trace.Program, Seed: "rfc4226", Digits: 6, Enter: true}
	if change != nil {
		change(&o)
	}
	return o
}

func with(o trace.Operation, password string) trace.Operation { o.Current = password; return o }

func header(s scenario) trace.Header {
	return trace.Header{Token: s.token, Vendor: s.model.Vendor, Product: s.model.Product, Emulated: true, Note: s.note}
}

var yubiKey = device.Model{Vendor: device.YubicoVendor, Product: 0x0407}

var scenarios = slices.Concat(typed, cards, nitrokeys)

// faultOf is a fault and its number: "pull-after=2".
func faultOf(what string) (fault string, n int) {
	fault, number, _ := strings.Cut(what, "=")
	n, _ = strconv.Atoi(number)
	return fault, n
}
