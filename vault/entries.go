package vault

import (
	"bytes"

	"go.etcd.io/bbolt"
)

// entries are those of a bucket, as one transaction finds and changes them.
type entries struct {
	*bbolt.Bucket
	cursor *bbolt.Cursor // of all lookups: bbolt's own Get makes one each time
	gaps   [256]*gap     // by what the keys around them begin with: the index has one for each kind
	at     pair          // what was found last, which is mostly looked for again before it is changed
}

// gap is where a lookup has found nothing: no key with the gap's first byte is at from, or after it and before to. What is
// new is looked for before it is put, often twice, and in a delivery its neighbour comes next: most of these lookups need none.
type gap struct {
	from, to []byte
	open     bool // there is no to
}

// entries are the same for the whole transaction: what they know of gaps holds because all changes go through them.
func (tx *Tx) entries(bucket string) *entries {
	e, ok := tx.buckets[bucket]
	if !ok {
		b := tx.bolt.Bucket([]byte(bucket))
		if bucket != bucketSeen { // its keys come in no order; most others come in theirs, and leave full pages behind
			b.FillPercent = 0.9
		}
		e = &entries{Bucket: b, cursor: b.Cursor()}
		tx.buckets[bucket] = e
	}
	return e
}

// around returns the gap that a key may be in.
func (e *entries) around(key []byte) *gap {
	var first byte
	if len(key) > 0 {
		first = key[0]
	}
	if e.gaps[first] == nil {
		e.gaps[first] = &gap{}
	}
	return e.gaps[first]
}

func (g *gap) holds(key []byte) bool {
	return len(g.from) > 0 && bytes.Compare(g.from, key) <= 0 && (g.open || bytes.Compare(key, g.to) < 0)
}

// seek is the cursor's, and notes the gap before what it finds.
func (e *entries) seek(g *gap, key []byte) (k, v []byte) {
	if k, v = e.cursor.Seek(key); !bytes.Equal(k, key) {
		g.from, g.to, g.open = append(g.from[:0], key...), append(g.to[:0], k...), k == nil
	}
	return k, v
}

// find returns a stored value, or nil. It is lent until the transaction ends.
func (e *entries) find(key []byte) []byte {
	if e.at.val != nil && bytes.Equal(e.at.key, key) {
		return e.at.val
	}
	g := e.around(key)
	if g.holds(key) {
		return nil
	}
	if k, v := e.seek(g, key); bytes.Equal(k, key) {
		e.at = pair{append(e.at.key[:0], key...), v}
		return v
	}
	return nil
}

// first returns the first entry from key on, which is not below prefix, if it begins with that. It is lent until the
// transaction ends.
func (e *entries) first(prefix, key []byte) (k, v []byte) {
	if len(prefix) == 0 {
		return e.cursor.Seek(key)
	}
	g := e.around(key)
	if g.holds(key) && (g.open || !bytes.HasPrefix(g.to, prefix)) {
		return nil, nil
	}
	if k, v = e.seek(g, key); !bytes.HasPrefix(k, prefix) {
		return nil, nil
	}
	return k, v
}

// Put stores a value.
func (e *entries) Put(key, val []byte) error {
	e.at.val = nil
	if g := e.around(key); g.holds(key) {
		g.from = append(append(g.from[:0], key...), 0) // the least key after it
	}
	return e.Bucket.Put(key, val)
}

// Delete takes an entry out. Gaps need no care: they become longer.
func (e *entries) Delete(key []byte) error {
	e.at.val = nil
	return e.Bucket.Delete(key)
}
