package vault

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// bbolt trusts the pages it maps: a damaged one makes it panic, or read memory that is not its own, also in a
// goroutine where nobody can recover. Therefore the pages are verified here, through plain reads, before bbolt
// sees them, and what is in them on the same way. The layout is bbolt's internal/common; integers have the machine's byte order.
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

// layout is a bbolt file whose meta pages and list of buckets were verified; the rest is verified by walking it.
type layout struct {
	r       io.ReaderAt
	live    boltMeta
	used    []uint64 // a bit for each page; set atomically
	buckets []bucketRoot
}

type bucketRoot struct {
	name   string
	page   uint64
	inline []byte // the bucket's only page, if it is small
}

type boltMeta struct{ root, freelist, high, txid uint64 }

// readLayout verifies both meta pages and the list of buckets. Both meta pages must be right: with only the older one,
// bbolt would quietly drop the last transaction.
func readLayout(r io.ReaderAt, size int64) (*layout, error) {
	l := &layout{r: r}
	for id := range uint64(2) {
		m, err := readMeta(r, id, size)
		if err != nil {
			return nil, err
		}
		if id == 0 || m.txid > l.live.txid {
			l.live = m
		}
	}
	l.used = make([]uint64, l.live.high/64+1)
	l.used[0] = 3 // the meta pages
	w := &walker{layout: l, visit: l.bucket}
	return l, w.tree(l.live.root, 1, nil, nil, 0)
}

func readMeta(r io.ReaderAt, id uint64, size int64) (boltMeta, error) {
	p := make([]byte, pageSize)
	if _, err := r.ReadAt(p, int64(id)*pageSize); err != nil {
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
	case m.high < 2, m.high > uint64(size)/pageSize:
		return m, fmt.Errorf("the file is cut short: it has %d bytes and should have %d pages", size, m.high)
	}
	return m, nil
}

// bucket takes an element of the root: a bucket, with its tree or its inline page.
func (l *layout) bucket(name, val []byte, flags uint32) error {
	if flags != bucketFlag || len(val) < bucketSize {
		return fmt.Errorf("%q is not a bucket", name)
	}
	b := bucketRoot{name: string(name), page: native.Uint64(val)}
	if b.page == 0 {
		b.inline = bytes.Clone(val[bucketSize:])
		if len(b.inline) < pageHeaderSize || native.Uint64(b.inline) != 0 || native.Uint32(b.inline[12:]) != 0 {
			return fmt.Errorf("bucket %q is damaged", name)
		}
	}
	l.buckets = append(l.buckets, b)
	return nil
}

// entry is called for each entry of a bucket. Key and value are lent.
type entry func(bucket string, key, val []byte) error

// read walks one bucket.
func (l *layout) read(bucket string, fn entry) error {
	for _, b := range l.buckets {
		if b.name == bucket {
			return l.walker(b.name, fn).bucket(b)
		}
	}
	return fmt.Errorf("there is no %s in it", bucket)
}

// verify walks everything with as many goroutines as there are processors, each with its own fn, and checks that each page
// is used once or free.
func (l *layout) verify(newEntry func() entry) error {
	tasks, err := l.tasks()
	if err != nil {
		return err
	}
	next := atomic.Int64{}
	var g errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			fn := newEntry()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(tasks) {
					return nil
				}
				if err := tasks[i](fn); err != nil {
					next.Store(int64(len(tasks)))
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return l.freelist(l.live.freelist)
}

// tasks splits the file into trees that can be walked at the same time.
func (l *layout) tasks() (tasks []func(entry) error, err error) {
	for _, b := range l.buckets {
		if b.inline != nil {
			tasks = append(tasks, func(fn entry) error { return l.walker(b.name, fn).bucket(b) })
			continue
		}
		w := l.walker(b.name, nil)
		p, err := w.page(b.page, 1, 0)
		if err != nil {
			return nil, err
		}
		if native.Uint16(p[8:]) == leafFlag {
			tasks = append(tasks, func(fn entry) error { return l.walker(b.name, fn).leafPage(b.page, p, nil, nil) })
			continue
		}
		err = branch(b.page, p, nil, nil, func(kid, _ uint64, low, high []byte) error {
			tasks = append(tasks, func(fn entry) error { return l.walker(b.name, fn).tree(kid, 1, low, high, 1) })
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return tasks, nil
}

// walker walks trees of one bucket. It is used by one goroutine.
type walker struct {
	*layout
	visit leafFunc
	reads [maxDepth + 1]window // at each depth
}

func (l *layout) walker(bucket string, fn entry) *walker {
	return &walker{layout: l, visit: func(key, val []byte, flags uint32) error {
		if flags != 0 { // the vault does not nest buckets
			return errors.New("an element has unknown flags")
		}
		return fn(bucket, key, val)
	}}
}

func (w *walker) bucket(b bucketRoot) error {
	if b.inline != nil {
		return leaf(b.inline, nil, nil, w.visit)
	}
	return w.tree(b.page, 1, nil, nil, 0)
}

// page reads a page with its overflow and marks it used. It is valid until the next one at this depth. The pages of a run are
// read at once.
func (w *walker) page(id, run uint64, depth int) ([]byte, error) {
	if id < 2 || id >= w.live.high {
		return nil, fmt.Errorf("page %d is out of bounds", id)
	}
	v := &w.reads[depth]
	if id < v.first || id >= v.first+v.n {
		if err := v.slide(w.r, id, min(run, maxWindow, w.live.high-id)); err != nil {
			return nil, err
		}
	}
	p := v.page(id, 1)
	n := uint64(native.Uint32(p[12:])) + 1
	if native.Uint64(p) != id || n > w.live.high-id {
		return nil, fmt.Errorf("page %d has a damaged header", id)
	}
	for i := id; i < id+n; i++ {
		if !w.mark(i) {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
	}
	if id+n > v.first+v.n {
		if err := v.slide(w.r, id, n); err != nil {
			return nil, err
		}
	}
	return v.page(id, n), nil
}

// mark notes that a page is used; false if it was before.
func (l *layout) mark(page uint64) bool {
	bit := uint64(1) << (page % 64)
	return atomic.OrUint64(&l.used[page/64], bit)&bit == 0
}

// leafFunc is called for each element of a leaf.
type leafFunc func(key, val []byte, flags uint32) error

// tree walks a B+tree whose keys must ascend from low and stay below high; nil means no bound.
func (w *walker) tree(id, run uint64, low, high []byte, depth int) error {
	if depth > maxDepth {
		return errors.New("a tree is too deep")
	}
	p, err := w.page(id, run, depth)
	if err != nil {
		return err
	}
	if native.Uint16(p[8:]) == leafFlag {
		return w.leafPage(id, p, low, high)
	}
	return branch(id, p, low, high, func(kid, run uint64, low, high []byte) error { return w.tree(kid, run, low, high, depth+1) })
}

func (w *walker) leafPage(id uint64, p, low, high []byte) error {
	if err := leaf(p, low, high, w.visit); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
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

// branch calls fn for each child of a branch page, with the bounds of its keys. As many children as run, this one among them,
// follow each other in the file.
func branch(id uint64, p, low, high []byte, fn func(kid, run uint64, low, high []byte) error) error {
	n, err := elements(p, branchFlag)
	if err != nil || n == 0 {
		return fmt.Errorf("page %d: %w", id, errors.Join(err, errors.New("it is not a branch")))
	}
	kids := make([]struct {
		key     []byte
		id, run uint64
	}, n)
	for i := n - 1; i >= 0; i-- {
		at := pageHeaderSize + i*elementSize
		k, err := slice(p, at, uint64(native.Uint32(p[at:])), uint64(native.Uint32(p[at+4:])))
		if err == nil && len(k) == 0 {
			err = errors.New("it has an empty key") // bbolt asserts that there is none
		}
		if err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		kid := &kids[i]
		kid.key, kid.id, kid.run = k, native.Uint64(p[at+8:]), 1
		if i+1 < n && kids[i+1].id == kid.id+1 {
			kid.run += kids[i+1].run
		}
	}
	for i, k := range kids {
		end := high
		if i+1 < n {
			end = kids[i+1].key
		}
		if !within(k.key, low, end) {
			return fmt.Errorf("page %d: its keys are out of order", id)
		}
		if err := fn(k.id, k.run, k.key, end); err != nil {
			return err
		}
	}
	return nil
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

// freelist checks that the pages listed as free and the pages used are all pages, and none is both.
func (l *layout) freelist(id uint64) error {
	w := walker{layout: l}
	p, err := w.page(id, 1, 0)
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
		if free <= last || free >= l.live.high || !l.mark(free) {
			return fmt.Errorf("page %d cannot be free", free)
		}
		last = free
	}
	marked := 0
	for _, word := range l.used {
		marked += bits.OnesCount64(word)
	}
	if lost := l.live.high - uint64(marked); lost != 0 {
		return fmt.Errorf("%d pages are neither used nor free", lost)
	}
	return nil
}
