package bussocket

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"

	"tokendesk/device"
)

// Limits of the contract.
const (
	MaxRequest     = 4 << 10   // bytes of a request line
	MaxAnswer      = 256 << 10 // bytes of an answer line
	MaxReadTimeout = time.Minute
	MaxTouches     = 1000
	MaxBacklog     = 1024 // events kept for a watcher that does not read
	InputSize      = 8    // bytes of a boot-keyboard report (HID 1.11, appendix B.1)
)

// Operations.
const (
	OpList       = "list"
	OpWatch      = "watch"
	OpOpen       = "open"
	OpSetFeature = "set-feature"
	OpGetFeature = "get-feature"
	OpReadInput  = "read-input"
	OpClose      = "close"
	OpInsert     = "insert"
	OpRemove     = "remove"
	OpTouch      = "touch"
	OpFault      = "fault"
	OpListAll    = "list-all"
)

// Events.
const (
	EventAdded   = "added"
	EventRemoved = "removed"
	EventSynced  = "synced"
)

// Where the text of a touch went.
const (
	ToWindow = "window" // nobody held the key open
	ToHolder = "holder" // the program that holds the key open
	ToUSB    = "usb"    // the machine's USB; the key cannot know which program reads there
	ToNobody = "nobody" // the touched slot types nothing
	// ToChallenge: nothing was typed; the touch released the answer to a challenge that waited for it.
	ToChallenge = "challenge"
)

// Hex is bytes that travel as a hexadecimal string.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

// Request is one line from the client.
type Request struct {
	Op        string `json:"op"`
	Path      string `json:"path,omitempty"`       // open
	Data      Hex    `json:"data,omitempty"`       // set-feature
	TimeoutMS int64  `json:"timeout_ms,omitempty"` // read-input
	Key       string `json:"key,omitempty"`        // control operations: serial or port
	Long      bool   `json:"long,omitempty"`       // touch
	Times     int    `json:"times,omitempty"`      // touch
	Kind      string `json:"kind,omitempty"`       // fault
	N         int    `json:"n,omitempty"`          // fault
}

// Answer is one line from the server.
type Answer struct {
	OK         bool        `json:"ok,omitempty"`
	Error      *Error      `json:"error,omitempty"`
	Event      string      `json:"event,omitempty"`
	Interface  *Interface  `json:"interface,omitempty"`  // added, removed, open
	Interfaces []Interface `json:"interfaces,omitempty"` // list
	Data       Hex         `json:"data,omitempty"`       // get-feature, read-input
	Touches    []Touch     `json:"touches,omitempty"`    // touch
	Keys       []Key       `json:"keys,omitempty"`       // list-all
}

// Interface is the HID interface of a plugged-in key: the OTP keyboard of a YubiKey, or what a Nitrokey has for its slots.
type Interface struct {
	Path    string `json:"path"`
	Port    string `json:"port"`
	Vendor  uint16 `json:"vendor"`
	Product uint16 `json:"product"`
}

func (i Interface) info() device.Info {
	return device.Info{Path: i.Path, Port: i.Port, Vendor: i.Vendor, Product: i.Product, Emulated: true}
}

// reportSize is that of the interface's feature reports, with the report number before them.
func (i Interface) reportSize() int {
	if m, _ := device.FindModel(i.Vendor, i.Product); m.ReportSize() != 0 {
		return m.ReportSize()
	}
	return device.ReportSize
}

// Touch is what one touch did.
type Touch struct {
	To   string `json:"to"`             // ToWindow and so on
	Text string `json:"text,omitempty"` // what appeared in the window; Enter is "\n", Tab "\t"
}

// Key is everything the server tells about one key.
type Key struct {
	Interface
	USBPort         string        `json:"usb_port,omitempty"` // the kernel's name of it, "1-1", while the key is attached there
	Device          device.ID     `json:"device"`             // its name: "yk-12345678"
	Serial          device.Serial `json:"serial"`
	Firmware        string        `json:"firmware"`
	Present         bool          `json:"present"`
	Held            bool          `json:"held"`  // a handle is open
	Holds           []string      `json:"holds"` // what is configured, of that which feature reports reach: "otp2", "hotp1"
	ProgramSequence uint8         `json:"program_sequence"`
	Card            string        `json:"card,omitempty"` // where its smart card is, or why nowhere; empty: it has none
	Faults          []string      `json:"faults"`
	TypedToWindow   int           `json:"typed_to_window"`  // touches
	TypedToHolder   int           `json:"typed_to_holder"`  // or over USB
	RequiredWaitUS  int64         `json:"required_wait_us"` // the protocol's own waiting so far, in µs
}

var (
	operations = map[string]bool{
		OpList: true, OpWatch: true, OpOpen: true, OpSetFeature: true, OpGetFeature: true, OpReadInput: true,
		OpClose: true, OpInsert: true, OpRemove: true, OpTouch: true, OpFault: true, OpListAll: true,
	}
	// Names end up in messages and on terminals, so they are plain.
	name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.:_-]{0,63}$`)
)

// DecodeRequest reads a request line and checks that it is complete and within the limits. Its errors
// are of type *Error with the code bad-request.
func DecodeRequest(line []byte) (Request, error) {
	var r Request
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Request{}, badRequest("not a request: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Request{}, badRequest("not a request: something follows the object")
	}
	if err := r.check(); err != nil {
		return Request{}, err
	}
	if r.Op == OpTouch && r.Times == 0 {
		r.Times = 1
	}
	return r, nil
}

func (r Request) check() error {
	if !operations[r.Op] {
		return badRequest("there is no operation %.40q", r.Op)
	}
	switch r.Op {
	case OpOpen:
		if !name.MatchString(r.Path) {
			return badRequest("open needs the path of an interface, such as emu1:1.0")
		}
	case OpSetFeature:
		if n := len(r.Data); n != device.ReportSize && n != device.NitrokeyReportSize || r.Data[0] != 0 {
			return badRequest("a feature report is %d or %d bytes, the first of them 0", device.ReportSize, device.NitrokeyReportSize)
		}
	case OpReadInput:
		if r.TimeoutMS < 0 || r.TimeoutMS > MaxReadTimeout.Milliseconds() {
			return badRequest("a read waits 0 to %d ms, not %d", MaxReadTimeout.Milliseconds(), r.TimeoutMS)
		}
	case OpInsert, OpRemove, OpTouch, OpFault:
		if !name.MatchString(r.Key) {
			return badRequest("%s needs a key: a serial number, a name such as nk-00005d19, or a port such as emu1", r.Op)
		}
		if r.Times < 0 || r.Times > MaxTouches {
			return badRequest("a key is touched 1 to %d times, not %d", MaxTouches, r.Times)
		}
		if r.Op == OpFault && !name.MatchString(r.Kind) {
			return badRequest("fault needs a kind")
		}
	}
	return nil
}

// DecodeAnswer reads an answer line and checks its form.
func DecodeAnswer(line []byte) (Answer, error) {
	var a Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return Answer{}, fmt.Errorf("not an answer of the bus socket: %w", err)
	}
	forms := 0
	for _, is := range []bool{a.OK, a.Error != nil, a.Event != ""} {
		if is {
			forms++
		}
	}
	if forms != 1 {
		return Answer{}, errors.New("not an answer of the bus socket: it is not exactly one of ok, error and event")
	}
	switch a.Event {
	case "", EventSynced:
	case EventAdded, EventRemoved:
		if a.Interface == nil {
			return Answer{}, fmt.Errorf("not an answer of the bus socket: event %s without an interface", a.Event)
		}
	default:
		return Answer{}, fmt.Errorf("not an answer of the bus socket: event %.40q", a.Event)
	}
	if a.Interface != nil && !a.Interface.valid() {
		return Answer{}, errors.New("not an answer of the bus socket: a path or port is malformed")
	}
	for _, i := range a.Interfaces {
		if !i.valid() {
			return Answer{}, errors.New("not an answer of the bus socket: a path or port is malformed")
		}
	}
	for _, k := range a.Keys {
		names := append([]string{k.USBPort, string(k.Device)}, k.Holds...)
		if !k.valid() || slices.ContainsFunc(names, func(s string) bool { return s != "" && !name.MatchString(s) }) {
			return Answer{}, errors.New("not an answer of the bus socket: a path or port is malformed")
		}
	}
	return a, nil
}

func (i Interface) valid() bool { return name.MatchString(i.Path) && name.MatchString(i.Port) }

// EncodeAnswer renders an answer as a line, newline included.
func EncodeAnswer(a Answer) []byte { return encode(a) }

// EncodeRequest renders a request as a line, newline included.
func EncodeRequest(r Request) []byte { return encode(r) }

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the two types hold nothing that JSON cannot express
	}
	return append(b, '\n')
}

// ErrLineTooLong is returned by ReadLine.
var ErrLineTooLong = errors.New("the line is too long")

// ReadLine returns the next line without its newline; r's buffer size is the limit. The line is valid
// until the next read. What precedes the end of the stream without a newline is no line.
func ReadLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, ErrLineTooLong
	case err != nil:
		return nil, err
	}
	return line[:len(line)-1], nil
}
