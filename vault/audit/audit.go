// Package audit is the history of a vault: a chain of entries in which each holds the hash of the one before, and
// signed heads that vouch for all entries up to theirs.
//
// It exists so that an auditor with nothing but the vault's public key can tell on any machine whether an export is
// what the desk wrote. It stores nothing, knows neither the vault nor the daemon, and needs no cgo.
//
// It promises: of an export that verifies, no entry was changed, removed, added or moved; it ends with the entry that
// its head was signed for; it is byte for byte what the desk wrote; and nothing in it can act on a terminal. Hostile
// input of any size is read in bounded memory and never panics.
//
// It does not promise that the holder of the signing key told the truth, or told the same to everybody: who can sign
// can write another history. That shows only beside heads that were shipped elsewhere before (Verify's known). Nor
// does a head say that nothing happened after it.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The longest texts of an act, in bytes. Longer ones are cut and end in "…".
const (
	MaxText   = 256
	MaxReason = 1024
)

// DeskUID is the UID of what the desk does by itself. It is not 0, which is root.
const DeskUID = -1

// Officer is who did it, as the kernel named the peer of the connection.
type Officer struct {
	UID  int64  `json:"uid"`
	Name string `json:"name"`
}

// Act is what an entry tells.
type Act struct {
	Time    time.Time `json:"time"`    // from 1678 to 2262, which is what Unix nanoseconds can tell
	Epoch   uint64    `json:"epoch"`   // of the vault
	Counter uint64    `json:"counter"` // the value of the TPM's counter; 0 without one
	Officer Officer   `json:"officer"`
	Action  string    `json:"action"`
	Object  string    `json:"object"`
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason"`
}

// Entry is an act at its place in the chain. Point.Next makes it.
type Entry struct {
	Seq uint64 `json:"seq"` // from 1, without gaps
	Act
	Prev Digest `json:"prev"` // the hash of the entry before, or that of Genesis
	Hash Digest `json:"hash"` // over everything above, see digest
}

// Point is a place in the chain: after the entry Seq, whose hash is Hash.
type Point struct {
	Seq  uint64 `json:"seq"`
	Hash Digest `json:"hash"`
}

// Genesis is where the chain begins. It makes the chain that of one vault and one key.
func Genesis(vault string, key Key) Point {
	return Point{0, frame(nil).text("tokendesk audit genesis v1").text(vault).text(string(key[:])).sum()}
}

// Next makes the entry that continues the chain at p. Control characters and invalid UTF-8 in a become U+FFFD, long
// texts are cut, and the time becomes UTC without a monotonic part.
func (p Point) Next(a Act) Entry {
	e := Entry{Seq: p.Seq + 1, Act: a.normal(), Prev: p.Hash}
	e.Hash = e.digest()
	return e
}

// Point is the place after e.
func (e Entry) Point() Point { return Point{e.Seq, e.Hash} }

// Follows says why e is not an entry that Next made at p, or returns nil.
func (e Entry) Follows(p Point) error {
	switch {
	case p.Seq == math.MaxUint64 || e.Seq != p.Seq+1:
		return fmt.Errorf("entry %d stands where the one after %d belongs", e.Seq, p.Seq)
	case e.Act != e.normal():
		return fmt.Errorf("entry %d holds a text or a time that the desk would not have written", e.Seq)
	case e.Hash != e.digest():
		return fmt.Errorf("entry %d was changed: its hash is not that of its contents", e.Seq)
	case e.Prev != p.Hash:
		return fmt.Errorf("entry %d does not continue %d: one of the two was replaced", e.Seq, p.Seq)
	}
	return nil
}

// digest is independent of JSON, so that an entry may be stored in any form. It must never change.
func (e Entry) digest() Digest {
	return frame(nil).text("tokendesk audit entry v1").number(e.Seq).
		time(e.Time).number(e.Epoch).number(e.Counter).
		number(uint64(e.Officer.UID)).text(e.Officer.Name).
		text(e.Action).text(e.Object).text(e.Outcome).text(e.Reason).
		text(string(e.Prev[:])).sum()
}

// normal is the act as an entry holds it.
func (a Act) normal() Act {
	a.Time = normalTime(a.Time)
	for _, s := range []*string{&a.Officer.Name, &a.Action, &a.Object, &a.Outcome} {
		*s = clean(*s, MaxText)
	}
	a.Reason = clean(a.Reason, MaxReason)
	return a
}

func normalTime(t time.Time) time.Time { return time.Unix(0, t.UnixNano()).UTC() }

// clean replaces what could act on a terminal or change how the rest of a line reads, and cuts s to limit bytes. The
// four classes are small and settled, so that all versions of Unicode agree on what is clean.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' && unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return utf8.RuneError
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	end := limit - len("…")
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// Digest is a SHA-256; in text, 64 lowercase hexadecimal digits.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(d) || Digest(b).String() != string(text) {
		return fmt.Errorf("a hash has %d lowercase hexadecimal digits", 2*len(d))
	}
	*d = Digest(b)
	return nil
}

// frame is an encoding to be hashed or signed. Numbers have eight bytes and texts are preceded by their length; a
// frame begins with a text of its own kind, which settles what follows. So no two lists of fields give the same bytes.
type frame []byte

func (f frame) number(n uint64) frame { return binary.BigEndian.AppendUint64(f, n) }

func (f frame) text(s string) frame { return append(f.number(uint64(len(s))), s...) }

func (f frame) time(t time.Time) frame { return f.number(uint64(t.UnixNano())) }

func (f frame) sum() Digest { return sha256.Sum256(f) }
