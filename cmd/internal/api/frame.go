package api

import (
	"encoding/binary"
	"errors"
	"io"
)

// A request that carries secrets has this body: a frame of FrameSize bytes, whatever they are, and then the operation's
// JSON. The frame holds each secret with its length before it (2 bytes, big endian), in the operation's order, and zeroes.
// So no secret is ever in a JSON value, in a string, or in a buffer that outlives the request, and none shows by its length.

//
// An answer that is a secret has this body: a frame of none, and a frame of one. What stands at the beginning of an answer
// goes through buffers of both servers and clients that outlive it: those are filled with zeroes by the time the secret comes.

// SecretType is the content type of what has a frame.
const SecretType = "application/x-tokendesk-secret"

// FrameSize is the size of a frame, in bytes. It is at least that of the server's read buffer, so that a read of it
// bypasses that.
const FrameSize = 16 << 10

// AnswerSize is the size of an answer that is a secret, in bytes.
const AnswerSize = 2 * FrameSize

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

// PutAnswer puts a secret into a buffer of AnswerSize bytes.
func PutAnswer(answer, secret []byte) error {
	clear(answer[:FrameSize])
	return PutFrame(answer[FrameSize:AnswerSize], secret)
}

// ReadAnswer fills answer from r and returns the secret in it, which is a part of answer.
func ReadAnswer(r io.Reader, answer []byte) (secret []byte, err error) {
	if _, err := ReadFrame(r, answer[:FrameSize], 0); err != nil {
		return nil, err
	}
	secrets, err := ReadFrame(r, answer[FrameSize:AnswerSize], 1)
	if err != nil {
		return nil, err
	}
	return secrets[0], nil
}
