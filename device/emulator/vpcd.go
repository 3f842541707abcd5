package emulator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"syscall"
	"time"

	"tokendesk/device/emulator/smartcard"
)

// Messages of vpcd, which is the reader: a length of two bytes, big-endian, and as much data. Those of one byte are what is
// done to the card; all others are APDUs (vsmartcard, virtualsmartcard/src/vpcd/vpcd.h). Nothing but APDUs and the ATR is
// answered.
const (
	vpcdOff   = 0
	vpcdOn    = 1
	vpcdReset = 2
	vpcdATR   = 4
)

const (
	// vpcdAgain is how often a reader that is not there is looked for. TCP tells nobody that one has come.
	vpcdAgain = 50 * time.Millisecond
	// mutePatience is how long a reader waits for a card that does not answer.
	mutePatience = 500 * time.Millisecond
)

// carrier is a device that has a smart card, or can have one, which is one with it: it goes when the device is pulled.
type carrier struct {
	plug
	vpcd     string                   // where a reader waits for the card; empty: in none of vpcd
	card     *smartcard.Card          // nil: none; its methods are called without mu, since it may wait for a touch
	transmit func(apdu []byte) []byte // has the card carry out an APDU; nil is no answer
	finger   finger

	leave    chan struct{} // the card is to leave the reader, see eject
	inReader bool          // the card is in the reader of vpcd; guarded by mu
	away     time.Time     // until then the card stays out; guarded by mu
}

// ServeCard keeps the smart card in its reader, VPCD of the options, whenever the device is plugged in, until ctx ends; then it
// returns nil. A reader that is not there yet, or that goes, is looked for until it is there. A Server does this for its keys. It
// is called once at a time.
func (c *carrier) ServeCard(ctx context.Context) error {
	if c.vpcd == "" {
		return errors.New("cannot serve a smart card: the device has no vpcd")
	}
	for {
		gone := c.plugged()
		if gone == nil {
			select {
			case <-c.inserted:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		insertion, end := context.WithCancel(ctx)
		go func() {
			defer end()
			select {
			case <-gone:
			case <-insertion.Done():
			}
		}()
		c.stayInReader(insertion)
		end()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// stayInReader returns when ctx, which is one insertion, ends.
func (c *carrier) stayInReader(ctx context.Context) {
	again := time.NewTicker(vpcdAgain)
	defer again.Stop()
	for ctx.Err() == nil {
		c.stayAway(ctx)
		var d net.Dialer
		if conn, err := d.DialContext(ctx, "tcp", c.vpcd); err == nil {
			c.beInReader(ctx, conn.(*net.TCPConn))
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// beInReader serves one connection to its end, which may be that ctx ends.
func (c *carrier) beInReader(ctx context.Context, conn *net.TCPConn) {
	ctx, cancel := context.WithCancel(ctx)
	conn.SetLinger(0) // vpcd takes an orderly end for an empty answer, and a reset for a failure
	c.setInReader(true)
	defer c.setInReader(false)
	var pulling sync.WaitGroup
	pulling.Go(func() {
		select {
		case <-ctx.Done():
		case <-c.leave:
		}
		conn.Close()
		c.card.PowerDown() // which ends a command that waits for a touch
	})
	defer pulling.Wait()
	defer cancel()
	_ = c.answerReader(ctx, quickConn{conn}) // however it ended: the next connection is a new insertion
}

func (c *carrier) setInReader(in bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inReader = in
}

// quickConn acknowledges at once what vpcd sends in two pieces; otherwise the second waits for the kernel's delayed
// acknowledgement of the first, 40 ms an APDU.
type quickConn struct{ *net.TCPConn }

func (c quickConn) Read(p []byte) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if err := raw.Control(func(fd uintptr) { // the kernel forgets it, so it is said every time
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	}); err != nil {
		return 0, err
	}
	return c.TCPConn.Read(p)
}

// answerReader speaks for the card until the reader ends it.
func (c *carrier) answerReader(ctx context.Context, reader io.ReadWriter) error {
	fresh := false // power came, and the ATR has not been told since
	for {
		message, err := readVPCD(reader)
		if err != nil {
			return err
		}
		var answer []byte
		switch {
		case len(message) == 0:
			continue
		case len(message) > 1:
			if answer = c.transmit(message); answer == nil {
				c.keepSilent(ctx)
				return errSilent
			}
		case message[0] == vpcdOff:
			c.card.PowerDown()
			continue
		case message[0] == vpcdOn, message[0] == vpcdReset:
			c.card.PowerUp()
			fresh = true
			continue
		case message[0] == vpcdATR:
			// It is also how vpcd asks whether there is a card, which can be seen of a mute one as well.
			if fresh && c.cardMute() {
				return errSilent
			}
			fresh, answer = false, c.card.ATR()
		default:
			return fmt.Errorf("vpcd sent the message %#x, which is not known", message[0])
		}
		if err := writeVPCD(reader, answer); err != nil {
			return err
		}
	}
}

// errSilent ends a connection over a card that does not answer, as vpcd has no message for that and waits for ever. It
// finds the card again a moment later.
var errSilent = errors.New("the card does not answer")

// keepSilent waits for as long as a reader would.
func (c *carrier) keepSilent(ctx context.Context) {
	if c.instant {
		return
	}
	t := time.NewTimer(mutePatience)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func readVPCD(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, message)
	return message, err
}

func writeVPCD(w io.Writer, message []byte) error {
	if len(message) > math.MaxUint16 {
		return fmt.Errorf("vpcd takes no message of %d bytes", len(message))
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message)))
	_, err := w.Write(append(b, message...))
	return err
}
