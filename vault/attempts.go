package vault

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tokendesk/device"
)

// Attempts is how often in a row something has failed: codes of a token, an officer's searches. It is written with each
// failure, so that a restart forgives none. Backups and restores keep it: a wait that was due then is over by itself.
type Attempts struct {
	Failures int       `json:"failures"`
	Last     time.Time `json:"last"` // when the last one was
}

// tokenAttempts begins the keys of tokens: the token's name follows.
const tokenAttempts = "token/"

// TokenAttempts is the key of a token's attempts. They are forgotten when the token is deleted.
func TokenAttempts(id device.TokenID) string { return tokenAttempts + string(id) }

// Attempts returns what has failed under a key; no Failures if nothing has.
func (tx *Tx) Attempts(key string) (a Attempts, err error) {
	if key == "" {
		return a, nil
	}
	_, err = tx.load(bucketAttempts, []byte(key), &a)
	return a, err
}

// PutAttempts writes what has failed under a key, of 1 to 256 bytes of UTF-8 without control characters. Without Failures it
// forgets the key.
func (tx *Tx) PutAttempts(key string, a Attempts) error {
	switch {
	case key == "" || len(key) > maxOwner || !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return errors.New("cannot put attempts: their key is empty, has more than 256 bytes, control characters or no UTF-8")
	case a.Failures == 0:
		return tx.forgetAttempts(key)
	case a.Failures < 0:
		return fmt.Errorf("cannot put attempts of %q: there are no %d failures", key, a.Failures)
	case a.Last.IsZero():
		return fmt.Errorf("cannot put attempts of %q: the last one has no time", key)
	}
	a.Last = moment(a.Last)
	return tx.store(bucketAttempts, []byte(key), a)
}

func (tx *Tx) forgetAttempts(key string) error {
	if val, err := tx.get(bucketAttempts, []byte(key)); val == nil || err != nil {
		return err
	}
	tx.weigh(light)
	return tx.delete(bucketAttempts, []byte(key))
}

// checkAttempts checks that nothing is counted that could not have been put.
func (c *contents) checkAttempts() error {
	return c.scan(bucketAttempts, nil, nil, func(p pair) (bool, error) {
		var a Attempts
		if err := c.open(bucketAttempts, p.key, p.val, &a); err != nil {
			return false, err
		}
		if a.Failures < 1 || a.Last.IsZero() {
			return false, c.refuse(bucketAttempts, p.key, errors.New("it counts no failure, or has no time"))
		}
		return true, nil
	})
}
