package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt trusts the pages it maps: a damaged one makes it panic, or read memory that is not its own, also in a
// goroutine where nobody can recover. Therefore the pages are verified here, through plain reads, before bbolt
// sees them. The layout is bbolt's internal/common; integers have the machine's byte order.
const (
	pageSize       = 4096 // fixed at creation, whatever the machine's
	pageHeaderSize = 16
	elementSize    = 16
	bucketSize     = 16 // root page and sequence, in front of an inline page

	branchFlag   = 0x01
	leafFlag     = 0x02
	metaFlag     = 0x04
	freelistFlag = 0x10
	bucketFlag   = 0x01 // of a leaf element

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	metaSumAt   = 56
	maxDepth    = 32 // a tree of two-way branches would hold 2^32 pages
	manyFree    = 0xFFFF
)

var native = binary.NativeEndian

// checkPages verifies a whole bbolt file: both meta pages, every tree, and that each page is used once or free.
// Both meta pages must be right: with only the older one, bbolt would quietly drop the last transaction.
func checkPages(r io.ReaderAt, size int64) error {
	w := walker{r: r, high: 2, used: map[uint64]bool{0: true, 1: true}}
	var live boltMeta
	for id := range uint64(2) {
		m, err := w.meta(id, size)
		if err != nil {
			return err
		}
		if id == 0 || m.txid > live.txid {
			live = m
		}
	}
	w.high = live.high
	if err := w.tree(live.root, nil, nil, 0, w.bucket); err != nil {
		return err
	}
	return w.freelist(live.freelist)
}

type boltMeta struct{ root, freelist, high, txid uint64 }

type walker struct {
	r    io.ReaderAt
	high uint64 // pages from here on are not in use
	used map[uint64]bool
}

func (w *walker) meta(id uint64, size int64) (boltMeta, error) {
	p := make([]byte, pageSize)
	if _, err := w.r.ReadAt(p, int64(id)*pageSize); err != nil {
		return boltMeta{}, fmt.Errorf("meta page %d: %w", id, err)
	}
	b := p[pageHeaderSize:]
	h := fnv.New64a()
	h.Write(b[:metaSumAt])
	m := boltMeta{root: native.Uint64(b[16:]), freelist: native.Uint64(b[32:]), high: native.Uint64(b[40:]), txid: native.Uint64(b[48:])}
	switch {
	case native.Uint32(b) != boltMagic, native.Uint32(b[4:]) != boltVersion, native.Uint32(b[8:]) != pageSize:
		return m, fmt.Errorf("meta page %d is not that of a vault", id)
	case native.Uint64(p) != id, native.Uint16(p[8:]) != metaFlag, native.Uint64(b[metaSumAt:]) != h.Sum64():
		return m, fmt.Errorf("meta page %d is damaged", id)
	case m.high > uint64(size)/pageSize:
		return m, fmt.Errorf("the file is cut short: it has %d bytes and should have %d pages", size, m.high)
	}
	return m, nil
}

// page reads a page with its overflow and marks it used.
func (w *walker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= w.high {
		return nil, fmt.Errorf("page %d is out of bounds", id)
	}
	head := make([]byte, pageHeaderSize)
	if _, err := w.r.ReadAt(head, int64(id)*pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	n := uint64(native.Uint32(head[12:])) + 1
	if native.Uint64(head) != id || n > w.high-id {
		return nil, fmt.Errorf("page %d has a damaged header", id)
	}
	for i := id; i < id+n; i++ {
		if w.used[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.used[i] = true
	}
	p := make([]byte, n*pageSize)
	if _, err := w.r.ReadAt(p, int64(id)*pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// leafFunc is called for each element of a leaf.
type leafFunc func(key, val []byte, flags uint32) error

// tree walks a B+tree whose keys must ascend from low and stay below high; nil means no bound.
func (w *walker) tree(id uint64, low, high []byte, depth int, fn leafFunc) error {
	if depth > maxDepth {
		return errors.New("a tree is too deep")
	}
	p, err := w.page(id)
	if err != nil {
		return err
	}
	if native.Uint16(p[8:]) == leafFlag {
		if err := leaf(p, low, high, fn); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		return nil
	}
	keys, kids, err := branch(p)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for i, k := range keys {
		end := high
		if i+1 < len(keys) {
			end = keys[i+1]
		}
		if !within(k, low, end) {
			return fmt.Errorf("page %d: its keys are out of order", id)
		}
		if err := w.tree(kids[i], k, end, depth+1, fn); err != nil {
			return err
		}
	}
	return nil
}

func within(k, low, high []byte) bool {
	return bytes.Compare(k, low) >= 0 && (high == nil || bytes.Compare(k, high) < 0)
}

// elements returns the number of elements of a page whose element table fits into it.
func elements(p []byte, flag uint16) (int, error) {
	n := int(native.Uint16(p[8+2:]))
	if native.Uint16(p[8:]) != flag || pageHeaderSize+n*elementSize > len(p) {
		return 0, errors.New("its header is damaged")
	}
	return n, nil
}

// slice cuts n bytes out of p at an element's offset.
func slice(p []byte, element int, pos, n uint64) ([]byte, error) {
	start := uint64(element) + pos
	if start+n > uint64(len(p)) { // 32-bit values: the sum cannot wrap
		return nil, errors.New("an element points outside the page")
	}
	return p[start : start+n : start+n], nil
}

func branch(p []byte) (keys [][]byte, kids []uint64, err error) {
	n, err := elements(p, branchFlag)
	if err != nil || n == 0 {
		return nil, nil, errors.Join(err, errors.New("it is not a branch"))
	}
	for i := range n {
		at := pageHeaderSize + i*elementSize
		k, err := slice(p, at, uint64(native.Uint32(p[at:])), uint64(native.Uint32(p[at+4:])))
		if err == nil && len(k) == 0 {
			err = errors.New("it has an empty key") // bbolt asserts that there is none
		}
		if err != nil {
			return nil, nil, err
		}
		keys, kids = append(keys, k), append(kids, native.Uint64(p[at+8:]))
	}
	return keys, kids, nil
}

func leaf(p, low, high []byte, fn leafFunc) error {
	n, err := elements(p, leafFlag)
	if err != nil {
		return err
	}
	for i := range n {
		at := pageHeaderSize + i*elementSize
		ksize, vsize := uint64(native.Uint32(p[at+8:])), uint64(native.Uint32(p[at+12:]))
		kv, err := slice(p, at, uint64(native.Uint32(p[at+4:])), ksize+vsize)
		if err != nil {
			return err
		}
		k := kv[:ksize:ksize]
		if ksize == 0 || !within(k, low, high) || (i > 0 && bytes.Equal(k, low)) {
			return errors.New("its keys are out of order")
		}
		if err := fn(k, kv[ksize:], native.Uint32(p[at:])); err != nil {
			return err
		}
		low = k
	}
	return nil
}

// bucket checks an element of the root: a bucket, with its tree or its inline page.
func (w *walker) bucket(name, val []byte, flags uint32) error {
	if flags != bucketFlag || len(val) < bucketSize {
		return fmt.Errorf("%q is not a bucket", name)
	}
	if root := native.Uint64(val); root != 0 {
		return w.tree(root, nil, nil, 0, record)
	}
	p := val[bucketSize:]
	if len(p) < pageHeaderSize || native.Uint64(p) != 0 || native.Uint32(p[12:]) != 0 {
		return fmt.Errorf("bucket %q is damaged", name)
	}
	return leaf(p, nil, nil, record)
}

// record checks an element of a bucket: the vault does not nest buckets.
func record(_, _ []byte, flags uint32) error {
	if flags != 0 {
		return errors.New("an element has unknown flags")
	}
	return nil
}

// freelist checks that the pages listed as free and the pages used are all pages, and none is both.
func (w *walker) freelist(id uint64) error {
	p, err := w.page(id)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	n, ids := uint64(native.Uint16(p[10:])), p[pageHeaderSize:]
	if n == manyFree {
		n, ids = native.Uint64(ids), ids[8:]
	}
	if native.Uint16(p[8:]) != freelistFlag || n > uint64(len(ids)/8) {
		return errors.New("the list of free pages is damaged")
	}
	last := uint64(1)
	for i := range n {
		free := native.Uint64(ids[i*8:])
		if free <= last || free >= w.high || w.used[free] {
			return fmt.Errorf("page %d cannot be free", free)
		}
		w.used[free] = true
		last = free
	}
	if lost := w.high - uint64(len(w.used)); lost != 0 {
		return fmt.Errorf("%d pages are neither used nor free", lost)
	}
	return nil
}
