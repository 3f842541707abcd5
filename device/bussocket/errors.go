package bussocket

import (
	"errors"
	"fmt"
	"syscall"

	"tokendesk/device"
)

// Code classifies an error on the wire.
type Code string

// Codes.
const (
	CodeGone       Code = "gone"
	CodeBusy       Code = "busy"
	CodePermission Code = "permission"
	CodeTimeout    Code = "timeout"
	CodeBadRequest Code = "bad-request"
	CodeUnknownKey Code = "unknown-key"
	CodeAmbiguous  Code = "ambiguous"
	CodeFailed     Code = "failed"
)

var conditions = []struct {
	code Code
	err  error
}{
	{CodeGone, device.ErrGone},
	{CodeBusy, device.ErrBusy},
	{CodePermission, device.ErrPermission},
	{CodeTimeout, device.ErrTimeout},
}

// Error is an error that travels. It unwraps to the device error of its code, if there is one.
type Error struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
}

// Errorf makes an error for the wire.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error { return Errorf(CodeBadRequest, format, args...) }

func (e *Error) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("the emulator refused (%.40q)", string(e.Code))
	}
	return e.Text
}

// Unwrap returns device.ErrGone and the like.
func (e *Error) Unwrap() error {
	for _, c := range conditions {
		if c.code == e.Code {
			return c.err
		}
	}
	return nil
}

// WireError turns any error into one that travels.
func WireError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	for _, c := range conditions {
		if errors.Is(err, c.err) {
			return &Error{c.code, err.Error()}
		}
	}
	return &Error{CodeFailed, err.Error()}
}

// unreachable says why the server cannot be talked to, and what to do.
func unreachable(socket string, err error) error {
	cause, remedy := err, "start it with tokenemu serve --socket "+socket
	switch {
	case errors.Is(err, syscall.ENOENT):
		cause = fmt.Errorf("there is no such socket (%w)", syscall.ENOENT)
	case errors.Is(err, syscall.ECONNREFUSED):
		cause = fmt.Errorf("nobody serves that socket any more (%w)", syscall.ECONNREFUSED)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		cause = fmt.Errorf("%w: the socket is another user's", device.ErrPermission)
		remedy = "run as the user who started it, or " + remedy
	case errors.Is(err, syscall.EINVAL):
		cause = fmt.Errorf("the path of a socket has at most 107 bytes, this one has %d", len(socket)) // unix(7)
	}
	return fmt.Errorf("cannot reach the emulator at %s: %w; %s", socket, cause, remedy)
}
