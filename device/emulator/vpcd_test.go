package emulator

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"
)

// deskOfVPCD is the reader's end of the protocol, where the test has to see each message.
type deskOfVPCD struct {
	t    *testing.T
	conn net.Conn
}

// awaitVPCD accepts a card.
func awaitVPCD(t *testing.T, l net.Listener) deskOfVPCD {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return deskOfVPCD{t, conn}
}

func (d deskOfVPCD) send(message ...byte) {
	d.t.Helper()
	if err := writeVPCD(d.conn, message); err != nil {
		d.t.Fatal(err)
	}
}

func (d deskOfVPCD) ask(message ...byte) []byte {
	d.t.Helper()
	d.send(message...)
	answer, err := readVPCD(d.conn)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer
}

func (d deskOfVPCD) awaitEnd() {
	d.t.Helper()
	if b, err := io.ReadAll(d.conn); err != nil && !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		d.t.Fatalf("the card did not leave the reader, it sent %x: %v", b, err)
	}
}

func TestCardOfVPCD(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	k := newKey(t, Options{VPCD: l.Addr().String()})
	serveCard(t, k)
	place := func() string {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.cardPlace()
	}
	d := awaitVPCD(t, l)
	if atr := d.ask(vpcdATR); !bytes.Equal(atr, k.Card().ATR()) {
		t.Fatalf("ATR %x", atr)
	}
	if got, want := place(), "in the reader at "+l.Addr().String(); got != want {
		t.Errorf("the card is said to be %q, not %q", got, want)
	}
	version := []byte{0, 0xFD, 0, 0, 0}
	d.send(version...) // without power
	d.awaitEnd()
	d = awaitVPCD(t, l)
	d.send(vpcdOn)
	for _, m := range []struct{ apdu, want string }{{"00fd000000", "6d00"}, {selectPIV, propertiesOf}, {"00fd000000", "0504039000"}} {
		apdu, _ := hex.DecodeString(m.apdu)
		if got := hex.EncodeToString(d.ask(apdu...)); got != m.want {
			t.Errorf("%s is answered %s, not %s", m.apdu, got, m.want)
		}
	}
	d.send(vpcdReset)
	if got := d.ask(version...); hex.EncodeToString(got) != "6d00" {
		t.Errorf("after a reset, without an application, VERSION answers %x", got)
	}
	d.send(vpcdOff)
	d.send(version...)
	d.awaitEnd()
	d = awaitVPCD(t, l)
	d.conn.Close() // the reader is gone: the card looks for it
	d = awaitVPCD(t, l)
	k.Remove()
	d.awaitEnd()
	if got := place(); got != "out" {
		t.Errorf("a card that was pulled is said to be %q", got)
	}
	k.Insert()
	d = awaitVPCD(t, l)
	if err := k.SetFault(FaultCardMute, 0); err != nil {
		t.Fatal(err)
	}
	if atr := d.ask(vpcdATR); len(atr) == 0 {
		t.Error("a mute card is not seen")
	}
	d.send(vpcdOn)
	d.send(vpcdATR)
	d.awaitEnd()
	d = awaitVPCD(t, l)
	d.send(7) // no message of vpcd's
	d.awaitEnd()
}

// FuzzVPCD feeds the card anything that a reader, or whoever listens in its place, may send.
func FuzzVPCD(f *testing.F) {
	frame := func(message ...byte) []byte {
		return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
	}
	sel, err := hex.DecodeString(selectPIV)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slices.Concat(frame(vpcdOn), frame(vpcdATR), frame(sel...), frame(0, 0xFD, 0, 0, 0), frame(vpcdOff)))
	f.Add([]byte{0xFF, 0xFF, 0})
	f.Fuzz(func(t *testing.T, sent []byte) {
		k := newKey(t, Options{VPCD: "127.0.0.1:1"})
		in, out := bytes.NewReader(sent), &bytes.Buffer{}
		err := k.answerReader(t.Context(), struct {
			io.Reader
			io.Writer
		}{in, out})
		if err == nil {
			t.Fatal("the card has left a reader that did not end it")
		}
		for out.Len() > 0 {
			if _, err := readVPCD(out); err != nil {
				t.Fatalf("the card sent half a message: %v", err)
			}
		}
	})
}
