package smartcard

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"slices"
)

// Types and algorithms of credentials, which share a byte.
const (
	maskKind      = 0xF0
	maskAlgorithm = 0x0F

	kindHOTP = 0x10
	kindTOTP = 0x20

	algSHA1   = 1
	algSHA256 = 2
	algSHA512 = 3
)

var hashes = map[byte]func() hash.Hash{algSHA1: sha1.New, algSHA256: sha256.New, algSHA512: sha512.New}

// Properties of credentials.
const propTouch = 0x02

// credential is one of an OATH application.
type credential struct {
	name       []byte
	how        byte // type and algorithm
	digits     byte
	key        []byte
	properties byte
	counter    uint64 // HOTP: the next moving factor
}

// newCredential reads the data of PUT. Which values are possible is the application's.
func newCredential(e tlvs) (*credential, bool) {
	name, named := e.take(tagOATHName)
	key, keyed := e.take(tagOATHKey)
	if !named || !keyed || len(key) < 2 {
		return nil, false
	}
	c := &credential{name: bytes.Clone(name), how: key[0], digits: key[1], key: bytes.Clone(key[2:])}
	if properties, ok := e.take(tagOATHProperties); ok {
		c.properties = properties[0]
	}
	if counter, ok := e.take(tagOATHCounter); ok {
		if len(counter) != 4 {
			return nil, false
		}
		c.counter = uint64(binary.BigEndian.Uint32(counter))
	}
	return c, len(e) == 0
}

func (c *credential) kind() byte      { return c.how & maskKind }
func (c *credential) algorithm() byte { return c.how & maskAlgorithm }
func (c *credential) touch() bool     { return c.properties&propTouch != 0 }

// next is the moving factor of the next HOTP code, which it uses up.
func (c *credential) next() []byte {
	b := binary.BigEndian.AppendUint64(nil, c.counter)
	c.counter++
	return b
}

// answer calculates (RFC 4226, section 5.3, and RFC 6238, section 4), truncated to 31 bits or not.
func (c *credential) answer(factor []byte, truncate bool) []byte {
	m := hmac.New(hashes[c.algorithm()], c.key)
	m.Write(factor)
	sum := m.Sum(nil)
	if !truncate {
		return appendTLV(nil, tagOATHResponse, slices.Concat([]byte{c.digits}, sum)...)
	}
	at := sum[len(sum)-1] & 0x0F
	return appendTLV(nil, tagOATHTruncated, c.digits, sum[at]&0x7F, sum[at+1], sum[at+2], sum[at+3])
}

// credentials are kept in the order in which they came.
type credentials []*credential

func (l credentials) first(is func(*credential) bool) *credential {
	if i := slices.IndexFunc(l, is); i >= 0 {
		return l[i]
	}
	return nil
}

func (l credentials) find(name []byte) *credential {
	return l.first(func(c *credential) bool { return bytes.Equal(c.name, name) })
}

func (l *credentials) remove(name []byte) bool {
	n := len(*l)
	*l = slices.DeleteFunc(*l, func(c *credential) bool { return bytes.Equal(c.name, name) })
	return len(*l) < n
}

// oathElements reads elements until the end. That of properties has no length in PUT.
func oathElements(b []byte) (all tlvs, ok bool) { return readElements(b, true) }

func readElements(b []byte, bare bool) (all tlvs, ok bool) {
	for len(b) > 0 {
		var t tlv
		if bare && b[0] == tagOATHProperties && len(b) > 1 {
			t, b = tlv{tagOATHProperties, b[1:2]}, b[2:]
		} else if t, b, ok = nextTLV(b); !ok {
			return nil, false
		}
		all = append(all, t)
	}
	return all, true
}

// take removes the first element if it has the tag.
func (l *tlvs) take(tag uint32) (value []byte, ok bool) {
	if len(*l) == 0 || (*l)[0].tag != tag {
		return nil, false
	}
	value, *l = (*l)[0].value, (*l)[1:]
	return value, true
}
