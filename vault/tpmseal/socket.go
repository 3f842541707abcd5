package tpmseal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	dialTimeout     = 2 * time.Second
	dialPoll        = 10 * time.Millisecond
	exchangeTimeout = 10 * time.Second // the slowest command takes a few ms in swtpm
	headerSize      = 10               // of a response: tag, size, code (TPM 2.0 Library, Part 1, 18)
	maxResponse     = 64 << 10
)

var errDesynchronised = errors.New("an earlier exchange with the TPM failed half-way")

// socket is the raw command stream of an swtpm. swtpm serves one client at a time and lets others wait without a
// word, so every exchange has a deadline. A device needs none: the kernel bounds its commands.
type socket struct {
	conn    net.Conn
	timeout time.Duration
	broken  bool
	close   sync.Once
}

// dial connects, waiting a little for an swtpm that is starting up or not done with the last client.
func dial(path string) (*socket, error) {
	tick := time.NewTicker(dialPoll)
	defer tick.Stop()
	deadline := time.Now().Add(dialTimeout)
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			return &socket{conn: c, timeout: exchangeTimeout}, nil
		}
		// The last is a full queue of clients, of which swtpm serves one at a time.
		wait := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
		if !wait || time.Now().After(deadline) {
			return nil, err
		}
		<-tick.C
	}
}

// Send implements transport.TPM.
func (s *socket) Send(command []byte) ([]byte, error) {
	if s.broken {
		return nil, errDesynchronised
	}
	s.broken = true // until the exchange is complete
	if err := s.conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(command); err != nil {
		return nil, fmt.Errorf("the TPM does not take commands: %w", err)
	}
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(s.conn, head); err != nil {
		return nil, s.noAnswer(err)
	}
	size := binary.BigEndian.Uint32(head[2:])
	if size < headerSize || size > maxResponse {
		return nil, fmt.Errorf("the TPM announces an answer of %d bytes", size)
	}
	response := append(head, make([]byte, size-headerSize)...)
	if _, err := io.ReadFull(s.conn, response[headerSize:]); err != nil {
		return nil, s.noAnswer(err)
	}
	s.broken = false
	return response, nil
}

func (s *socket) noAnswer(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the TPM gave no answer for %s; swtpm serves one client at a time, perhaps another holds it", s.timeout)
	}
	return fmt.Errorf("the TPM hung up: %w", err)
}

// Close implements io.Closer.
func (s *socket) Close() (err error) {
	s.close.Do(func() { err = s.conn.Close() })
	return err
}
