package openldap

import (
	"bytes"
	"errors"
	"net"
	"sync"

	"tokendesk/vault/secret"
)

// The library copies every value into a string and into a buffer for each layer of a message, which nobody can wipe. It
// therefore never gets a secret, but a stand-in of the same length, and the connection below it puts the secret in its
// place, within locked memory.

// stand is each byte of a stand-in. Messages are of tags, lengths, small numbers and UTF-8, so that shortest of it in a row are
// a stand-in: the number of a message has up to three.
const (
	stand    = 0xFF
	shortest = 4
)

var errNotLent = errors.New("the message has a place for a secret that is not there")

// lender is a connection that puts secrets into the messages it sends. Only one is lent at a time.
type lender struct {
	net.Conn

	mu     sync.Mutex
	lent   secret.Secret
	failed error // what reading ended with
}

// Read implements io.Reader.
func (l *lender) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failed = err
	}
	return n, err
}

// broken is what reading ended with; the library makes mere text of it.
func (l *lender) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// lend returns what stands for s in messages until back is called; s must live for as long. Less than shortest bytes stand
// for themselves.
func (l *lender) lend(s secret.Secret) (standIn string, back func()) {
	if s.Len() < shortest {
		return string(s.Reveal()), func() {}
	}
	l.set(s)
	return string(bytes.Repeat([]byte{stand}, s.Len())), func() { l.set(secret.Secret{}) }
}

func (l *lender) set(s secret.Secret) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent = s
}

// Write implements io.Writer. A message whose secret was taken back meanwhile is not sent.
func (l *lender) Write(p []byte) (int, error) {
	if _, _, found := place(p); !found {
		return l.Conn.Write(p)
	}
	full, err := l.fill(p)
	if err != nil {
		return 0, err
	}
	defer full.Wipe()
	return l.Conn.Write(full.Reveal())
}

// fill returns a message with the secret in its place.
func (l *lender) fill(p []byte) (secret.Secret, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	begin, end, _ := place(p)
	// The length in front of a value may end like a stand-in; what follows a value is a tag, which is none.
	begin = max(begin, end-l.lent.Len())
	if _, _, more := place(p[end:]); more || l.lent.IsZero() || end-begin != l.lent.Len() {
		return secret.Secret{}, errNotLent
	}
	return secret.Make(len(p), func(b []byte) error {
		copy(b, p)
		copy(b[begin:], l.lent.Reveal())
		return nil
	})
}

// place finds the first stand-in in a message.
func place(p []byte) (begin, end int, found bool) {
	if begin = bytes.Index(p, bytes.Repeat([]byte{stand}, shortest)); begin < 0 {
		return 0, 0, false
	}
	for end = begin; end < len(p) && p[end] == stand; end++ {
	}
	return begin, end, true
}
