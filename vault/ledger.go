package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"maps"
	"math/bits"
	"time"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// ledger is what every commit writes, sealed: it makes one state of the file out of all its records. A record, a header or
// a whole file from another state does not fit into it.
//
// Sum is an additive multiset hash (Clarke et al., ASIACRYPT 2003) of all entries: the sum, modulo 2^128, of a keyed hash of
// each. A change costs two hashes; a scan verifies it. The sum and its terms stay secret: whoever puts old records together
// cannot choose them so that their sums agree, and has one guess with each opening.
type ledger struct {
	Epoch   uint64            `json:"epoch"`   // what the TPM's counter stands at, or is to be raised to next
	Version uint64            `json:"version"` // the last record version given out
	Sum     sum               `json:"sum"`
	Entries uint64            `json:"entries"` // in all buckets but meta
	Header  [sha256.Size]byte `json:"header"`  // digest of the encoded header
	Job     uint64            `json:"job"`     // the last number given out; so are those up to Notice
	Change  uint64            `json:"change"`
	Backup  uint64            `json:"backup"`

	Approval uint64 `json:"approval,omitempty"`
	Handover uint64 `json:"handover,omitempty"`
	Notice   uint64 `json:"notice,omitempty"`

	Certificate uint64 `json:"certificate,omitempty"`

	Trail  audit.Point    `json:"trail"`
	Counts map[string]int `json:"counts,omitempty"` // entries of the index by kind and value, where they are counted
	// Shred is when the first seed was dropped that older pages of the file still hold; zero if there is none.
	Shred time.Time `json:"shred,omitzero"`
	// Destroyed counts the seeds that were ever taken out: backups of before still hold them.
	Destroyed uint64    `json:"destroyed"`
	Changed   time.Time `json:"changed"`
}

func (l *ledger) clone() *ledger {
	c := *l
	c.Counts = maps.Clone(l.Counts)
	if c.Counts == nil {
		c.Counts = map[string]int{}
	}
	return &c
}

func (l *ledger) encode(r *keyring) ([]byte, error) {
	body, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	return r.ledger.Seal(nonce, nonce, body, frame("ledger", r.vault, r.version)), nil
}

func decodeLedger(r *keyring, b []byte) (*ledger, error) {
	if len(b) < nonceSize+tagSize {
		return nil, errShort
	}
	body, err := r.ledger.Open(nil, b[:nonceSize], b[nonceSize:], frame("ledger", r.vault, r.version))
	if err != nil {
		return nil, errUnauthentic
	}
	var l ledger
	if err := json.Unmarshal(body, &l); err != nil {
		return nil, errors.New("it is unreadable")
	}
	if l.Counts == nil {
		l.Counts = map[string]int{}
	}
	return &l, nil
}

// sum is a number modulo 2^128, least significant word first.
type sum [2]uint64

func (s *sum) add(t sum) {
	var c uint64
	s[0], c = bits.Add64(s[0], t[0], 0)
	s[1], _ = bits.Add64(s[1], t[1], c)
}

func (s *sum) sub(t sum) {
	var c uint64
	s[0], c = bits.Sub64(s[0], t[0], 0)
	s[1], _ = bits.Sub64(s[1], t[1], c)
}

// summer hashes entries. A value is known by its tag, which stands for all that the tag authenticates; what has no tag, by the
// last block of a CBC chain. That block or tag, encrypted once more under another key, is the term (EMAC: ISO/IEC 9797-1, MAC
// algorithm 2). HMAC would be most of the time that opening a vault takes. It is used by one goroutine.
type summer struct {
	chain chain
	last  cipher.Block
	buf   []byte
	out   [aes.BlockSize]byte
}

// chain is what cipher.NewCBCEncrypter returns.
type chain interface {
	cipher.BlockMode
	SetIV(iv []byte)
}

var zeroBlock [aes.BlockSize]byte

func (r *keyring) summer() *summer {
	s := &summer{last: r.element[1]}
	secret.Do(func() { s.chain = cipher.NewCBCEncrypter(r.element[0], zeroBlock[:]).(chain) }) // it copies the key
	return s
}

// term is what an entry adds to the sum.
func (s *summer) term(bucket string, key, val []byte) sum {
	known := val[max(0, len(val)-tagSize):]
	if len(val) < minValue {
		known = s.digest(bucket, key, val)
	}
	s.last.Encrypt(s.out[:], known)
	return sum{binary.LittleEndian.Uint64(s.out[:]), binary.LittleEndian.Uint64(s.out[8:])}
}

func (s *summer) digest(bucket string, key, val []byte) []byte {
	b := append(append(s.buf[:0], byte(len(bucket))), bucket...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(key))), key...) // bbolt has keys of up to 32768 bytes
	b = append(append(b, val...), 0x80)
	b = append(b, zeroBlock[:-len(b)&(aes.BlockSize-1)]...)
	s.buf = b
	s.chain.SetIV(zeroBlock[:])
	s.chain.CryptBlocks(b, b)
	return b[len(b)-aes.BlockSize:]
}
