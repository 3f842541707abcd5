package bussocket

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"tokendesk/device"
)

func TestReadLine(t *testing.T) {
	r := bufio.NewReaderSize(strings.NewReader("one\n\n"+strings.Repeat("x", 15)+"\ncut off"), 16)
	for _, want := range []string{"one", "", strings.Repeat("x", 15)} {
		if got, err := ReadLine(r); err != nil || string(got) != want {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if _, err := ReadLine(r); err != io.EOF {
		t.Fatalf("a line without its end: %v", err)
	}
	if _, err := ReadLine(bufio.NewReaderSize(strings.NewReader(strings.Repeat("x", 16)+"\n"), 16)); err != ErrLineTooLong {
		t.Fatalf("a long line: %v", err)
	}
}

func TestErrorsTravel(t *testing.T) {
	for _, c := range conditions {
		a, err := DecodeAnswer(bytes.TrimSuffix(EncodeAnswer(Answer{Error: WireError(c.err)}), []byte("\n")))
		if err != nil || !errors.Is(a.Error, c.err) || a.Error.Code != c.code {
			t.Errorf("%v became %v, %v", c.err, a.Error, err)
		}
	}
	if e := WireError(errors.New("other")); e.Code != CodeFailed || e.Unwrap() != nil || e.Error() != "other" {
		t.Errorf("another error became %+v", e)
	}
	if e := (&Error{Code: "odd"}); e.Error() == "" {
		t.Error("an error without text says nothing")
	}
}

func TestUnreachable(t *testing.T) {
	for _, c := range []struct {
		cause error
		want  string
	}{
		{syscall.ENOENT, "there is no such socket"},
		{syscall.ECONNREFUSED, "nobody serves that socket any more"},
		{syscall.EACCES, "the socket is another user's"},
		{syscall.EINVAL, "at most 107 bytes"},
		{io.ErrUnexpectedEOF, "unexpected EOF"},
	} {
		err := unreachable("/run/bus", c.cause)
		for _, want := range []string{"cannot reach the emulator at /run/bus: ", c.want, "tokenemu serve --socket /run/bus"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
		if got := errors.Is(err, device.ErrPermission); got != (c.cause == syscall.EACCES) {
			t.Errorf("%v: permission %v", err, got)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range []Request{
		{Op: OpList},
		{Op: OpOpen, Path: "emu1:1.0"},
		{Op: OpSetFeature, Data: make(Hex, device.ReportSize)},
		{Op: OpSetFeature, Data: make(Hex, device.NitrokeyReportSize)},
		{Op: OpReadInput, TimeoutMS: 100},
		{Op: OpTouch, Key: "12345678", Long: true, Times: 2},
		{Op: OpFault, Key: "emu1", Kind: "reclaim", N: 3},
	} {
		f.Add(bytes.TrimSuffix(EncodeRequest(r), []byte("\n")))
	}
	f.Add([]byte(`{"op":"set-feature","data":"0"}`))
	f.Add([]byte(`{"op":"list"}{`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := DecodeRequest(line)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != CodeBadRequest {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again, err := DecodeRequest(EncodeRequest(r)); err != nil || !reflect.DeepEqual(normal(r), normal(again)) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
		if n := len(r.Data); r.Op == OpSetFeature && n != device.ReportSize && n != device.NitrokeyReportSize || r.TimeoutMS < 0 && r.Op == OpReadInput || r.Times > MaxTouches && r.Op == OpTouch {
			t.Fatalf("beyond the limits: %+v", r)
		}
	})
}

// normal drops the difference between no bytes and nil.
func normal(r Request) Request {
	if len(r.Data) == 0 {
		r.Data = nil
	}
	return r
}

func FuzzDecodeAnswer(f *testing.F) {
	i := Interface{Path: "emu1:1.0", Port: "emu1", Vendor: 0x1050, Product: 0x407}
	for _, a := range []Answer{
		{OK: true},
		{OK: true, Data: make(Hex, device.ReportSize)},
		{OK: true, Interfaces: []Interface{i}, Keys: []Key{{Interface: i, USBPort: "1-1", Device: "yk-1", Holds: []string{"otp2"}}}, Touches: []Touch{{To: ToWindow, Text: "755224\n"}}},
		{Error: &Error{CodeGone, "pulled"}},
		{Event: EventAdded, Interface: &i},
		{Event: EventSynced},
	} {
		f.Add(bytes.TrimSuffix(EncodeAnswer(a), []byte("\n")))
	}
	f.Add([]byte(`{"ok":true,"error":{}}`))
	f.Add([]byte(`{"event":"added"}`))
	f.Add([]byte(`{"ok":true,"keys":[{"path":"emu1:1.0","port":"emu1","usb_port":"\u001b[2J"}]}`))
	f.Add([]byte(`{"ok":true,"keys":[{"path":"emu1:1.0","port":"emu1","holds":["\u001b[2J"]}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := DecodeAnswer(line)
		if err != nil {
			return
		}
		if (a.Event == EventAdded || a.Event == EventRemoved) && a.Interface == nil {
			t.Fatal("an event without an interface")
		}
		for _, k := range a.Keys {
			if strings.ContainsFunc(k.Port+k.Path+k.USBPort+string(k.Device)+strings.Join(k.Holds, ""), unicode.IsControl) {
				t.Fatalf("a name with control characters: %+v", k)
			}
		}
		if _, err := DecodeAnswer(EncodeAnswer(a)); err != nil {
			t.Fatalf("%s is not read again: %v", EncodeAnswer(a), err)
		}
	})
}
