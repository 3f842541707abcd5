package vault

import "fmt"

// manyRecords is from how many records on another processor encodes them, and how many it encodes at a time.
const manyRecords = 100

type encoded[T any] struct {
	rec T
	key []byte
	val []byte
	err error
}

// storeMany writes n numbered records. next makes one with its number; it is called in order, and perhaps by another goroutine: while
// some are put, the next ones are encoded. stored is called for each that was put.
func storeMany[T any](tx *Tx, bucket string, n int, next func(i int) (rec T, number uint64), stored func(*T) error) error {
	if tx.summer == nil {
		return errReadOnly
	}
	tx.weigh(light)
	parts := encodeMany(tx, bucket, n, next)
	defer func() {
		for range parts { // whoever encodes needs the keys
		}
	}()
	for part := range parts {
		for i := range part {
			e := &part[i]
			if e.err != nil {
				return fmt.Errorf("cannot store an entry in %s: %w", bucket, e.err)
			}
			if err := tx.put(bucket, e.key, e.val); err != nil {
				return err
			}
			if err := stored(&e.rec); err != nil {
				return err
			}
		}
	}
	return nil
}

func encodeMany[T any](tx *Tx, bucket string, n int, next func(int) (T, uint64)) <-chan []encoded[T] {
	version := tx.ledger.Version
	tx.ledger.Version += uint64(n)
	parts := make(chan []encoded[T], (n+manyRecords-1)/manyRecords) // room for all
	c := coder{keyring: tx.s.keys}
	encode := func() {
		defer close(parts)
		var body []byte
		for from := 0; from < n; from += manyRecords {
			out := make([]encoded[T], min(manyRecords, n-from))
			for i := range out {
				rec, number := next(from + i)
				e := encoded[T]{rec: rec, key: numberKey(number)}
				version++
				if body, e.err = encodeJSON(body[:0], rec); e.err == nil {
					e.val = c.encodeRecord(bucket, e.key, version, body)
				}
				out[i] = e
			}
			parts <- out
		}
	}
	if n < manyRecords {
		encode()
	} else {
		go encode()
	}
	return parts
}
