package pcsc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/device"
	"tokendesk/device/pcsctest"
)

// home is where the pcscd of each test is: libpcsclite reads its socket's name once.
var home string

// holderRole names, in the environment, the reader that this process is to hold until its input ends.
const holderRole = "PCSC_TEST_HOLD"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if reader := os.Getenv(holderRole); reader != "" {
		return holdReader(reader)
	}
	var err error
	if home, err = os.MkdirTemp("", "pcsc"); err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(home)
	os.Setenv("PCSCLITE_CSOCK_NAME", home+"/pcscd/pcscd.comm")
	return m.Run()
}

// holdReader is another program that has a card.
func holdReader(reader string) int {
	c, err := Bus{}.Open(context.Background(), reader)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	return 0
}

func startRig(t *testing.T, readers int) *pcsctest.Rig {
	t.Helper()
	return started(t, func(dir string) (*pcsctest.Rig, error) { return pcsctest.Start(dir, readers) })
}

func started(t *testing.T, start func(dir string) (*pcsctest.Rig, error)) *pcsctest.Rig {
	t.Helper()
	r, err := start(home)
	if err != nil {
		t.Fatal(err)
	}
	if r.Socket != os.Getenv("PCSCLITE_CSOCK_NAME") {
		t.Fatal("the rig has its socket at ", r.Socket)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// yubikeyATR is that of a YubiKey 5.
var yubikeyATR = []byte("\x3b\xfd\x13\x00\x00\x81\x31\xfe\x15\x80\x73\xc0\x21\xc0\x57YubiKey\x40")

// plugged is a card in a reader.
type plugged struct {
	conn  net.Conn
	ended chan struct{}
	once  sync.Once
}

// plug puts a card into the reader at a port. It answers commands by answer; nil: not at all.
func plug(t *testing.T, port int, atr []byte, answer func([]byte) []byte) *plugged {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	p := &plugged{conn: conn, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		for {
			message, err := p.receive()
			if err != nil {
				return
			}
			var reply []byte
			switch {
			case len(message) == 1 && message[0] == 4:
				reply = atr
			case len(message) > 1:
				reply = answer(message)
			}
			if reply != nil {
				conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
			}
		}
	}()
	t.Cleanup(p.pull)
	return p
}

// receive reads a message of vpcd, which has a length of two bytes. They come apart, so the first is acknowledged at once.
func (p *plugged) receive() ([]byte, error) {
	raw, err := p.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	part := func(n int) ([]byte, error) {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
		b := make([]byte, n)
		_, err := io.ReadFull(p.conn, b)
		return b, err
	}
	size, err := part(2)
	if err != nil {
		return nil, err
	}
	return part(int(binary.BigEndian.Uint16(size)))
}

func (p *plugged) pull() {
	p.once.Do(func() {
		p.conn.Close()
		<-p.ended
	})
}

// ok answers every command with its own first bytes.
func ok(apdu []byte) []byte { return append(apdu[:4:4], 0x90, 0x00) }

// observer is a running Watch.
type observer struct {
	t      *testing.T
	events chan device.CardEvent
	ended  chan error
	cancel context.CancelFunc
}

func observe(t *testing.T, b Bus) *observer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{t: t, events: make(chan device.CardEvent, 100), ended: make(chan error, 1), cancel: cancel}
	go func() { o.ended <- b.Watch(ctx, func(e device.CardEvent) { o.events <- e }) }()
	t.Cleanup(func() {
		cancel()
		if o.ended != nil {
			<-o.ended
		}
	})
	return o
}

// next is the next event.
func (o *observer) next() device.CardEvent {
	o.t.Helper()
	select {
	case e := <-o.events:
		return e
	case err := <-o.ended:
		o.ended = nil
		o.t.Fatal("the watch has ended: ", err)
	case <-time.After(20 * time.Second):
		o.t.Fatal("nothing is told")
	}
	return device.CardEvent{}
}

func (o *observer) expect(reader string, removed bool) device.CardInfo {
	o.t.Helper()
	e := o.next()
	if e.Info.Reader != reader || e.Removed != removed {
		o.t.Fatalf("%+v, not of %q, removed %v", e, reader, removed)
	}
	return e.Info
}

// end is why it ends.
func (o *observer) end() error {
	o.t.Helper()
	select {
	case err := <-o.ended:
		o.ended = nil
		return err
	case <-time.After(20 * time.Second):
		o.t.Fatal("the watch does not end")
	}
	return nil
}

func openCard(t *testing.T, reader string) *Card {
	t.Helper()
	c, err := open(t.Context(), reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func expectError(t *testing.T, err, is error, cure string) {
	t.Helper()
	if _, told := device.Cure(err); !errors.Is(err, is) || told != cure {
		t.Errorf("%v, not %v with the cure %q", err, is, cure)
	}
}
