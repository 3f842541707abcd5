package pivcard_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/device"
	"tokendesk/device/emulator/smartcard"
	"tokendesk/device/pcsc"
	"tokendesk/device/pcsctest"
	"tokendesk/device/pivcard"
)

// rig is the pcscd of all tests: a process has but one.
var rig *pcsctest.Rig

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if reader := os.Getenv(workerRole); reader != "" {
		return work(reader)
	}
	dir, err := os.MkdirTemp("", "pivcard")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	if rig, err = pcsctest.Start(dir, 1); err != nil {
		fmt.Println(err)
		return 1
	}
	defer rig.Stop()
	os.Setenv("PCSCLITE_CSOCK_NAME", filepath.Clean(rig.Socket))
	return m.Run()
}

const serial = device.Serial(12345678)

var firmwares = []device.Version{{Major: 4, Minor: 3, Build: 5}, {Major: 5, Minor: 2, Build: 7}, {Major: 5, Minor: 4, Build: 3}, {Major: 5, Minor: 7, Build: 1}}

// token is an emulated card that can be plugged into the rig's reader.
type token struct {
	t *testing.T
	*smartcard.Card
	mu     sync.Mutex
	conn   net.Conn
	ended  chan struct{}
	events chan device.CardEvent
}

func newToken(t *testing.T, firmware device.Version) *token {
	k := &token{t: t, events: make(chan device.CardEvent, 100)}
	k.Card = smartcard.New(smartcard.Options{Serial: serial, Firmware: firmware, Pulled: k.hangUp})
	ctx, cancel := context.WithCancel(context.Background())
	watched := make(chan error, 1)
	go func() { watched <- pcsc.Bus{}.Watch(ctx, func(e device.CardEvent) { k.events <- e }) }()
	t.Cleanup(func() {
		k.unplug()
		cancel()
		if err := <-watched; err != context.Canceled {
			t.Errorf("the watch ended with %v", err)
		}
	})
	k.plug()
	return k
}

// plug serves the card to vpcd, whose messages have a length of two bytes; those of one byte are about power.
func (k *token) plug() {
	k.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", rig.Ports[0]))
	if err != nil {
		k.t.Fatal(err)
	}
	ended := make(chan struct{})
	k.mu.Lock()
	k.conn, k.ended = conn, ended
	k.mu.Unlock()
	k.PowerUp()
	go func() {
		defer close(ended)
		for {
			size, err := receive(conn, 2)
			if err != nil {
				return
			}
			message, err := receive(conn, int(binary.BigEndian.Uint16(size)))
			if err != nil {
				return
			}
			var answer []byte
			switch {
			case len(message) == 1 && message[0] == 4:
				answer = k.ATR()
			case len(message) == 1:
				if message[0] != 0 {
					k.PowerUp()
				}
				continue
			default:
				answer = k.Transmit(message)
			}
			if answer != nil {
				conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
		}
	}()
	k.await(false)
}

// receive reads what vpcd sends in parts, and waits after each until it is acknowledged.
func receive(conn net.Conn, n int) ([]byte, error) {
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	b := make([]byte, n)
	_, err = io.ReadFull(conn, b)
	return b, err
}

func (k *token) hangUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != nil {
		k.conn.Close()
	}
}

func (k *token) unplug() {
	k.t.Helper()
	k.hangUp()
	if k.conn != nil {
		<-k.ended
		k.conn = nil
		k.await(true)
	}
}

// await waits until pcscd has told of the card.
func (k *token) await(removed bool) {
	k.t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case e := <-k.events:
			if e.Removed == removed {
				return
			}
		case <-late:
			k.t.Fatal("pcscd tells nothing of the card")
		}
	}
}

func (k *token) open() *pivcard.Card {
	k.t.Helper()
	c, err := pivcard.Open(k.t.Context(), rig.Readers[0], true)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { c.Close() })
	return c
}
