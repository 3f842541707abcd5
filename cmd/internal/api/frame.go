package api

import (
	"encoding/binary"
	"errors"
	"io"
)

// A request that carries secrets has this body: a frame of FrameSize bytes, whatever they are, and then the operation's
// JSON. The frame holds each secret with its length before it (2 bytes, big endian), in the operation's order, and zeroes.
// So no secret is ever in a JSON value, in a string, or in a buffer that outlives the request, and none shows by its length.

// SecretType is the content type of a request with a frame.
const SecretType = "application/x-tokendesk-secret"

// FrameSize is the size of a frame, in bytes. It is at least that of the server's read buffer, so that a read of it
// bypasses that.
const FrameSize = 16 << 10

// ErrFrame means that a frame is not what WriteFrame writes.
var ErrFrame = errors.New("the secrets of the request are damaged")

// PutFrame puts secrets into a buffer of FrameSize bytes.
func PutFrame(frame []byte, secrets ...[]byte) error {
	clear(frame)
	at := 0
	for _, s := range secrets {
		if len(s) > FrameSize-at-2 {
			return errors.New("the secrets are too long")
		}
		binary.BigEndian.PutUint16(frame[at:], uint16(len(s)))
		copy(frame[at+2:], s)
		at += 2 + len(s)
	}
	return nil
}

// ReadFrame fills frame from r and returns the n secrets in it, which are parts of frame.
func ReadFrame(r io.Reader, frame []byte, n int) (secrets [][]byte, err error) {
	if _, err := io.ReadFull(r, frame[:FrameSize]); err != nil {
		return nil, ErrFrame
	}
	rest := frame[:FrameSize]
	for range n {
		if len(rest) < 2 {
			return nil, ErrFrame
		}
		size := int(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; size > len(rest) {
			return nil, ErrFrame
		}
		secrets, rest = append(secrets, rest[:size:size]), rest[size:]
	}
	for _, b := range rest {
		if b != 0 {
			return nil, ErrFrame
		}
	}
	return secrets, nil
}
