package vault

import (
	"bytes"
	"slices"

	"go.etcd.io/bbolt"
)

// source is an ordered set of names.
type source interface {
	// seek returns the least name that is not below id, or nil. No call goes back behind the one before.
	seek(id []byte) []byte
}

// leapfrog is the intersection of its sources.
type leapfrog []source

// union is all that is in any of its sources.
type union struct {
	sources []source
	fronts  []front // of those that have not ended, in the order of their names
	begun   bool
}

// front is where a source stands.
type front struct {
	name []byte
	source
}

func (f front) compare(name []byte) int { return bytes.Compare(f.name, name) }

func (u *union) seek(id []byte) []byte {
	if !u.begun {
		u.begun = true
		for _, s := range u.sources {
			if n := s.seek(id); n != nil {
				u.fronts = append(u.fronts, front{n, s})
			}
		}
		slices.SortFunc(u.fronts, func(a, b front) int { return a.compare(b.name) })
	}
	for len(u.fronts) > 0 && u.fronts[0].compare(id) < 0 {
		f, rest := u.fronts[0], u.fronts[1:]
		if f.name = f.seek(id); f.name == nil {
			u.fronts = rest
			continue
		}
		i, _ := slices.BinarySearchFunc(rest, f.name, front.compare)
		copy(u.fronts, rest[:i])
		u.fronts[i] = f
	}
	if len(u.fronts) == 0 {
		return nil
	}
	return u.fronts[0].name
}

// list is sorted.
type list struct{ names [][]byte }

func (l *list) seek(id []byte) []byte {
	i, _ := slices.BinarySearchFunc(l.names, id, bytes.Compare)
	if l.names = l.names[i:]; len(l.names) == 0 {
		return nil
	}
	return l.names[0]
}

// keys is the names at the end of a bucket's keys.
type keys struct {
	c     *bbolt.Cursor
	lead  []byte // what stands before each name
	begin []byte // what each key begins with
	key   []byte // the last one
	buf   []byte
	ended bool
}

// posting is the tokens that have a value.
func (q *query) posting(kind byte, value string) *keys {
	p := indexPrefix(kind, value)
	return &keys{c: q.index.Cursor(), lead: p, begin: p}
}

// names is the tokens whose names have a prefix.
func (q *query) names(prefix string) *keys {
	return &keys{c: q.tokens.Cursor(), begin: []byte(prefix)}
}

func (k *keys) seek(id []byte) []byte {
	k.buf = append(append(k.buf[:0], k.lead...), id...)
	if bytes.Compare(k.buf, k.begin) < 0 {
		k.buf = append(k.buf[:0], k.begin...)
	}
	if k.key != nil && bytes.Compare(k.key, k.buf) < 0 {
		k.key, _ = k.c.Next() // what is near is often next
		k.ended = k.key == nil
	}
	if !k.ended && (k.key == nil || bytes.Compare(k.key, k.buf) < 0) {
		k.key, _ = k.c.Seek(k.buf)
		k.ended = k.key == nil
	}
	if k.ended || !bytes.HasPrefix(k.key, k.begin) {
		return nil
	}
	return k.key[len(k.lead):]
}
