package apdu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/device/apdu"
	"tokendesk/vault/secret"
)

// card notes what it is sent.
type card struct {
	device.Card
	status uint16
	err    error

	got  []byte // a copy
	lent []byte // what it was sent itself
}

func (c *card) Transmit(command []byte) ([]byte, uint16, error) {
	c.got, c.lent = bytes.Clone(command), command
	return []byte("answer"), c.status, c.err
}

var command = apdu.Command{Ins: 0xCA, P1: 1, P2: 2}

func TestEncoding(t *testing.T) {
	for size, header := range map[int]string{0: "00ca010200", 1: "00ca010201", 255: "00ca0102ff", 256: "00ca0102000100", 65535: "00ca010200ffff"} {
		data := bytes.Repeat([]byte{7}, size)
		c := &card{status: 0x9000}
		answer, err := apdu.Send(t.Context(), c, command, data)
		if err != nil || string(answer) != "answer" {
			t.Errorf("%d bytes: %q, %v", size, answer, err)
		}
		want := header + fmt.Sprintf("%x", data)
		if got := fmt.Sprintf("%x", c.got); got != want {
			t.Errorf("%d bytes: %.20s of %d, not %.20s of %d", size, got, len(got), want, len(want))
		}
		if !bytes.Equal(c.lent, make([]byte, len(c.lent))) {
			t.Errorf("a copy of %d bytes is left", size)
		}
		_, err = apdu.SendSecret(t.Context(), c, command, size, func(b []byte) []byte { return append(b, data...) })
		if got := fmt.Sprintf("%x", c.got); err != nil || got != want {
			t.Errorf("%d secret bytes: %.20s of %d, not %.20s of %d, %v", size, got, len(got), want, len(want), err)
		}
	}
	c := &card{status: 0x9000}
	if _, err := apdu.Select(t.Context(), c, apdu.PIV); err != nil || fmt.Sprintf("%x", c.got) != "00a4040005a000000308" {
		t.Errorf("%x, %v", c.got, err)
	}
}

func TestNothingIsSent(t *testing.T) {
	c := &card{status: 0x9000}
	fill := func(n int) func([]byte) []byte { return func(b []byte) []byte { return append(b, make([]byte, n)...) } }
	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	for name, send := range map[string]func() ([]byte, error){
		"data that are too long": func() ([]byte, error) { return apdu.Send(t.Context(), c, command, make([]byte, 1<<16)) },
		"a secret that is too long": func() ([]byte, error) {
			return apdu.SendSecret(t.Context(), c, command, 1<<16, fill(1<<16))
		},
		"less than was said": func() ([]byte, error) { return apdu.SendSecret(t.Context(), c, command, 9, fill(8)) },
		"more than was said": func() ([]byte, error) { return apdu.SendSecret(t.Context(), c, command, 9, fill(10)) },
		"given up":           func() ([]byte, error) { return apdu.Send(given, c, command, nil) },
	} {
		if answer, err := send(); err == nil || answer != nil || c.got != nil {
			t.Errorf("%s: %x, %v, sent %d bytes", name, answer, err, len(c.got))
		}
	}
	if live := secret.Memory().Live; live != 0 {
		t.Errorf("%d secrets are left", live)
	}
}

func TestRefusals(t *testing.T) {
	for status, want := range map[uint16]string{
		0x6982: "the card refuses: not allowed without PIN, password, key or touch (status 6982)",
		0x1234: "the card refuses: for a reason of its own (status 1234)",
		0x9001: "the card refuses: for a reason of its own (status 9001)",
	} {
		answer, err := apdu.Send(t.Context(), &card{status: status}, command, nil)
		if answer != nil || err == nil || err.Error() != want || !apdu.Is(fmt.Errorf("wrapped: %w", err), apdu.Full, apdu.Status(status)) || apdu.Is(err, apdu.Full) {
			t.Errorf("%04x: %x, %v", status, answer, err)
		}
	}
	_, err := apdu.Send(t.Context(), &card{err: device.ErrGone}, command, nil)
	if !errors.Is(err, device.ErrGone) || apdu.Is(err, 0) || apdu.IsUnknown(err) {
		t.Error(err)
	}
	if apdu.Is(nil, apdu.Denied) || apdu.IsUnknown(nil) || !apdu.IsUnknown(apdu.NotFound) || strings.Contains(apdu.Full.Error(), "own") {
		t.Error("what is no refusal is taken for one")
	}
}
