package oathapplet

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/device/apdu"
)

// Calculate returns a code: of an HOTP credential the next one, after which its counter has moved even if the answer was lost; of
// a TOTP credential that of a time. It waits for a touch if the credential takes one, and fails with device.ErrNoTouch.
func (s *Session) Calculate(ctx context.Context, c Credential, at time.Time) (string, error) {
	var challenge []byte
	switch {
	case c.Type == TOTP:
		step := at.Unix() / int64(period(c.Name)/time.Second)
		challenge = binary.BigEndian.AppendUint64(nil, uint64(step))
	case s.about.nitrokey:
		challenge = make([]byte, challengeSize) // nitrokey-sdk-py sends one always; yubikit sends none
	}
	code, err := s.calculate(ctx, c.Name, challenge)
	return code, s.refused(err, true)
}

// defaultPeriod of TOTP credentials, whose names do not tell it (RFC 6238, section 5.2).
const defaultPeriod = 30 * time.Second

// period reads that of a TOTP credential from its name.
func period(name string) time.Duration {
	digits, _, found := strings.Cut(name, "/")
	n, err := strconv.ParseUint(digits, 10, 31)
	if !found || err != nil || n == 0 {
		return defaultPeriod
	}
	return time.Duration(n) * time.Second
}

func (s *Session) calculate(ctx context.Context, name string, challenge []byte) (string, error) {
	const what = "calculate a code"
	data := appendField(appendField(nil, tagName, []byte(name)), tagChallenge, challenge)
	answer, err := s.do(ctx, what, insCalculate, truncated, data)
	switch {
	case apdu.Is(err, apdu.NotUsable, apdu.NotFound):
		return "", &device.CureError{Err: fmt.Errorf("%w: %s", err, name), Cure: "somebody has erased it: enroll the token again"}
	case err != nil:
		return "", err
	}
	code, err := parseCode(answer)
	clear(answer)
	if err != nil {
		return "", fmt.Errorf("cannot %s: %w", what, err)
	}
	return code, nil
}

// parseCode reads CALCULATE's answer: how many digits, and the truncated hash (RFC 4226, section 5.3).
func parseCode(answer []byte) (string, error) {
	value, err := only(answer, tagTruncated)
	if err != nil {
		return "", err
	}
	if len(value) != 5 || value[0] < 6 || value[0] > 8 {
		return "", fmt.Errorf("%w: it is no code of 6 to 8 digits", device.ErrCorrupt)
	}
	modulus := uint32(1)
	for range value[0] {
		modulus *= 10
	}
	return fmt.Sprintf("%0*d", int(value[0]), binary.BigEndian.Uint32(value[1:])&0x7FFFFFFF%modulus), nil
}
