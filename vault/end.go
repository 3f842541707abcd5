package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tokendesk/device"
)

// maxLossWords is how much an officer can say of a loss, in bytes.
const maxLossWords = 200

// What a token says can be so long, in bytes.
const (
	MaxDescription = maxDescription
	MaxLabel       = maxLabel // batch and tenant
	MaxAddress     = maxAddress
)

// firstMoment and LastMoment bound the times at which tokens can expire: they are indexed as nanoseconds since 1970, and the
// signed ones that Go counts end in 2262.
var (
	firstMoment = time.Unix(0, 0)
	LastMoment  = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// moment is a time as it is read back: in UTC, and of no clock.
func moment(t time.Time) time.Time { return t.UTC().Round(0) }

// checkEnd checks what a token says of the end of its time.
func (t *Token) checkEnd() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("cannot put token %s: %s", t.ID, fmt.Sprintf(format, args...))
	}
	if !t.Expires.IsZero() && (t.Expires.Before(firstMoment) || !t.Expires.Before(LastMoment)) {
		return bad("it would expire in the year %d; years from 1970 to 2261 are possible", t.Expires.Year())
	}
	if t.Status != Compromised {
		if t.Loss != (Loss{}) || !t.Wiped.IsZero() {
			return bad("it is %s, and says that it is lost or erased", t.Status)
		}
		return nil
	}
	switch t.Loss.Kind {
	case Lost, Stolen, Damaged, Destroyed:
	case Other:
		if t.Loss.Words == "" {
			return bad("a loss of kind %s takes words", Other)
		}
	default:
		return bad("there is no kind of loss %q", t.Loss.Kind)
	}
	switch {
	case len(t.Loss.Words) > maxLossWords:
		return bad("its loss has %d bytes of words, and may have %d; shorten them", len(t.Loss.Words), maxLossWords)
	case !utf8.ValidString(t.Loss.Words), strings.ContainsFunc(t.Loss.Words, unicode.IsControl):
		return bad("the words of its loss contain control characters or are not UTF-8; take them out")
	case t.Loss.Time.IsZero():
		return bad("its loss has no time")
	case t.Owner != "":
		return bad("it is compromised, and would belong to %s", t.Owner)
	}
	return nil
}

// expires tells whether a moment will come at which the token expires.
func (t *Token) expires() bool {
	return !t.Expires.IsZero() && t.Status == Active
}

func expiryKey(at time.Time, id device.TokenID) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{kindExpiry}, uint64(at.UnixNano())), id...)
}

// Expiring lists active tokens whose time ends at or before a moment, the earliest first: at most limit, or
// all if limit is 0.
func (tx *Tx) Expiring(until time.Time, limit int) (out []device.TokenID, err error) {
	if until.Before(firstMoment) {
		return nil, nil
	}
	if until.After(LastMoment) {
		until = LastMoment
	}
	const at = 1 + 8
	end := string(expiryKey(until, ""))
	err = tx.scan(bucketIndex, []byte{kindExpiry}, nil, func(p pair) (bool, error) {
		if len(p.key) <= at {
			return false, tx.refuse(bucketIndex, p.key, errors.New("it has no token"))
		}
		if string(p.key[:at]) > end {
			return false, nil
		}
		id := device.TokenID(p.key[at:])
		t, err := tx.Token(id)
		if errors.Is(err, ErrNotFound) || err == nil && (!t.expires() || string(expiryKey(t.Expires, id)) != string(p.key)) {
			err = tx.refuse(bucketIndex, p.key, errors.New("it leads to no token of that time"))
		}
		out = append(out, id)
		return limit <= 0 || len(out) < limit, err
	})
	return out, err
}
