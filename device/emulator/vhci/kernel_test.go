package vhci

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// kernel plays vhci_hcd's part: it packs transfers as drivers/usb/usbip/vhci_tx.c does.
type kernel struct {
	t        *testing.T
	c        net.Conn
	sequence uint32
	ended    <-chan error // what serve returned
}

// plugIn starts serving d. The end of the test ends it.
func plugIn(t *testing.T, d Device) *kernel {
	t.Helper()
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serve(ours, d) }()
	theirs.SetDeadline(time.Now().Add(20 * time.Second))
	k := &kernel{t: t, c: theirs, ended: ended}
	t.Cleanup(func() { theirs.Close() })
	return k
}

// pull ends the connection and returns what serve made of it.
func (k *kernel) pull() error {
	k.t.Helper()
	k.c.Close()
	select {
	case err := <-k.ended:
		return err
	case <-time.After(20 * time.Second):
		k.t.Fatal("serving goes on without a connection")
		return nil
	}
}

// words makes a header.
func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, make([]byte, headerSize-len(b))...)
}

func (k *kernel) send(b []byte) {
	k.t.Helper()
	if _, err := k.c.Write(b); err != nil {
		k.t.Fatal(err)
	}
}

// submit sends a transfer and returns its sequence number.
func (k *kernel) submit(in bool, endpoint uint32, room int, setup Setup, data []byte) uint32 {
	k.t.Helper()
	k.sequence++
	direction := uint32(0)
	if in {
		direction = 1
	} else {
		room = len(data)
	}
	h := words(commandSubmit, k.sequence, deviceID, direction, endpoint, 0, uint32(room), 0, 0, 0)
	h[40], h[41] = setup.RequestType, setup.Request
	binary.LittleEndian.PutUint16(h[42:], setup.Value)
	binary.LittleEndian.PutUint16(h[44:], setup.Index)
	binary.LittleEndian.PutUint16(h[46:], setup.Length)
	k.send(append(h, data...))
	return k.sequence
}

// ask queues a transfer of one packet from an IN endpoint.
func (k *kernel) ask(endpoint uint32, room int) uint32 {
	k.t.Helper()
	return k.submit(true, endpoint, room, Setup{}, nil)
}

func (k *kernel) unlink(victim uint32) uint32 {
	k.t.Helper()
	k.sequence++
	k.send(words(commandUnlink, k.sequence, deviceID, 0, 0, victim))
	return k.sequence
}

// returned is an answer.
type returned struct {
	command, sequence uint32
	status            int32
	data              string
}

// receive reads the next answer. Data follows only for transfers to the host, which the caller knows.
func (k *kernel) receive(in bool) returned {
	k.t.Helper()
	var h [headerSize]byte
	if _, err := io.ReadFull(k.c, h[:]); err != nil {
		k.t.Fatal(err)
	}
	r := returned{command: binary.BigEndian.Uint32(h[0:]), sequence: binary.BigEndian.Uint32(h[4:]), status: int32(binary.BigEndian.Uint32(h[20:]))}
	actual := binary.BigEndian.Uint32(h[24:])
	if !bytes.Equal(h[8:20], make([]byte, 12)) || actual > maxOut {
		k.t.Fatalf("a strange header: %x", h)
	}
	if in && r.command == returnSubmit {
		data := make([]byte, actual)
		if _, err := io.ReadFull(k.c, data); err != nil {
			k.t.Fatal(err)
		}
		r.data = string(data)
	}
	return r
}

func (k *kernel) expect(in bool, want returned) {
	k.t.Helper()
	if got := k.receive(in); got != want {
		k.t.Fatalf("answered %+v, not %+v", got, want)
	}
}

// controlIn reads from endpoint 0.
func (k *kernel) controlIn(requestType, request uint8, value, index, length uint16) (string, int32) {
	k.t.Helper()
	n := k.submit(true, 0, int(length), Setup{requestType, request, value, index, length}, nil)
	r := k.receive(true)
	if r.command != returnSubmit || r.sequence != n {
		k.t.Fatalf("answered %+v to transfer %d", r, n)
	}
	return r.data, r.status
}

// controlOut writes to endpoint 0.
func (k *kernel) controlOut(requestType, request uint8, value, index uint16, data []byte) int32 {
	k.t.Helper()
	n := k.submit(false, 0, 0, Setup{requestType, request, value, index, uint16(len(data))}, data)
	r := k.receive(false)
	if r.command != returnSubmit || r.sequence != n {
		k.t.Fatalf("answered %+v to transfer %d", r, n)
	}
	return r.status
}

// gadget is a small device: whatever is written to it can be read again.
type gadget struct {
	stored  []byte
	packets chan []byte
	asked   chan struct{} // told whenever In begins to wait, if there is room
}

func newGadget() *gadget {
	return &gadget{packets: make(chan []byte, 2000), asked: make(chan struct{}, 1)}
}

var errPulled = errors.New("pulled")

const (
	readStored  = 1
	writeStored = 9
	vanish      = 7
)

func (g *gadget) Control(s Setup, data []byte) ([]byte, error) {
	switch s.Request {
	case readStored:
		return g.stored, nil
	case writeStored:
		g.stored = bytes.Clone(data)
		return []byte("nobody asked for this"), nil
	case vanish:
		return nil, errPulled
	}
	return nil, ErrStall
}

func (g *gadget) Out(endpoint uint8, data []byte) error {
	switch endpoint {
	case 3:
		g.stored = bytes.Clone(data)
		return nil
	case 4:
		return errPulled
	}
	return ErrStall
}

func (g *gadget) In(ctx context.Context, endpoint uint8) ([]byte, error) {
	switch endpoint {
	case 1:
	case 15:
		return nil, errPulled
	default:
		return nil, ErrStall
	}
	select {
	case g.asked <- struct{}{}:
	default:
	}
	select {
	case p := <-g.packets:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
