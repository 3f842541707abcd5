package vaulttest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// Chip is a TPM without the TPM, for tests of what a vault makes of one: it seals, counts and fails as it is told, in
// memory and at once. What TPMs really do is the business of tpmseal's tests.
type Chip struct {
	mu       sync.Mutex
	key      []byte
	counters map[string]uint64
	// Fail is asked before each call for an error to return instead; with after, the call has had its effect. May be nil.
	Fail func(call string) (err error, after bool)
}

// NewChip returns a chip of its own.
func NewChip() *Chip {
	key := make([]byte, 32)
	rand.Read(key)
	return &Chip{key: key, counters: map[string]uint64{}}
}

// Software opens the chip for vault.At without its counters.
func (c *Chip) Software() (vault.Sealer, error) { return struct{ vault.Sealer }{c}, nil }

// Open is for vault.At.
func (c *Chip) Open() (vault.Sealer, error) { return c, nil }

// Close implements vault.Sealer.
func (c *Chip) Close() error { return nil }

// Kind implements vault.Sealer.
func (c *Chip) Kind() string { return "tpm" }

// Level implements vault.Sealer.
func (c *Chip) Level() vault.Level { return vault.LevelEmulated }

// call does fn, or fails as Fail says.
func (c *Chip) call(name string, fn func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Fail != nil {
		if err, after := c.Fail(name); err != nil {
			if after {
				return errors.Join(fn(), err)
			}
			return err
		}
	}
	return fn()
}

// Key implements vault.Sealer. The key is the PIN.
func (c *Chip) Key(pin secret.Secret, _ []byte) (secret.Secret, error) { return pin.Clone(), nil }

type chipBlob struct {
	At     vault.Mark
	Nonce  []byte
	Sealed []byte
}

func (c *Chip) aead() cipher.AEAD {
	b, err := aes.NewCipher(c.key)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(b)
	if err != nil {
		panic(err)
	}
	return a
}

// Seal implements vault.Sealer.
func (c *Chip) Seal(plain, key secret.Secret, at vault.Mark) (blob []byte, err error) {
	err = c.call("seal", func() error {
		b := chipBlob{At: at, Nonce: make([]byte, 12)}
		rand.Read(b.Nonce)
		b.Sealed = c.aead().Seal(nil, b.Nonce, plain.Reveal(), key.Reveal())
		blob, err = json.Marshal(b)
		return err
	})
	return blob, err
}

// Unseal implements vault.Sealer.
func (c *Chip) Unseal(blob []byte, key secret.Secret) (plain secret.Secret, err error) {
	err = c.call("unseal", func() error {
		var b chipBlob
		if err := json.Unmarshal(blob, &b); err != nil || len(b.Nonce) != 12 {
			return &vault.StateError{State: vault.StateCorrupt, Err: errors.New("the seal is unreadable"), Cure: "restore a backup"}
		}
		if b.At.Counter != nil {
			n, err := c.count(b.At.Counter)
			if err != nil {
				return err
			}
			if n > b.At.Value {
				return vault.ErrStale
			}
			if n < b.At.Value {
				return &vault.StateError{State: vault.StateCounterLost, Err: errors.New("it is sealed for later"), Cure: "restore a backup"}
			}
		}
		p, err := c.aead().Open(nil, b.Nonce, b.Sealed, key.Reveal())
		if err != nil {
			return &vault.StateError{State: vault.StateWrongPIN, Err: errors.New("the PIN does not open it"), Cure: "give the right one", Left: 3}
		}
		plain = secret.New(p)
		return nil
	})
	return plain, err
}

func (c *Chip) count(name []byte) (uint64, error) {
	n, ok := c.counters[string(name)]
	if !ok {
		return 0, &vault.StateError{State: vault.StateCounterLost, Err: errors.New("there is no such counter"), Cure: "restore a backup"}
	}
	return n, nil
}

// NewCounter implements vault.Anchor.
func (c *Chip) NewCounter(secret.Secret) (name []byte, value uint64, err error) {
	err = c.call("new counter", func() error {
		value = 1
		for _, n := range c.counters {
			value = max(value, n+1) // as TPMs do
		}
		name = fmt.Appendf(nil, "counter %s", rand.Text())
		c.counters[string(name)] = value
		return nil
	})
	return name, value, err
}

// Count implements vault.Anchor.
func (c *Chip) Count(name []byte, _ secret.Secret) (n uint64, err error) {
	err = c.call("count", func() (err error) {
		n, err = c.count(name)
		return err
	})
	return n, err
}

// Increment implements vault.Anchor.
func (c *Chip) Increment(name []byte, _ secret.Secret) error {
	return c.call("increment", func() error {
		if _, err := c.count(name); err != nil {
			return err
		}
		c.counters[string(name)]++
		return nil
	})
}

// DropCounter implements vault.Anchor.
func (c *Chip) DropCounter(name []byte) error {
	return c.call("drop counter", func() error {
		delete(c.counters, string(name))
		return nil
	})
}

// Clear is what clearing a TPM does: nothing it has sealed opens, no counter is left.
func (c *Chip) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	rand.Read(c.key)
	clear(c.counters)
}

// Counters is how many counters there are, and the sum of their values.
func (c *Chip) Counters() (n int, total uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.counters {
		total += v
	}
	return len(c.counters), total
}
