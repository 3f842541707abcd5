package vault

import (
	"fmt"
	"io"
)

// window is what was read last of a file.
type window struct {
	buf      []byte
	first, n uint64 // its pages
}

// maxWindow is how many pages are read at once where they follow each other in the file.
const maxWindow = 16

// slide reads n pages from id on.
func (v *window) slide(r io.ReaderAt, id, n uint64) error {
	if uint64(cap(v.buf)) < n*pageSize {
		v.buf = make([]byte, n*pageSize)
	}
	v.buf, v.first, v.n = v.buf[:n*pageSize], id, n
	_, err := r.ReadAt(v.buf, int64(id)*pageSize)
	if err != nil {
		v.n = 0
		err = fmt.Errorf("page %d: %w", id, err)
	}
	return err
}

// page returns n pages from id on, which are in the window.
func (v *window) page(id, n uint64) []byte {
	return v.buf[(id-v.first)*pageSize : (id-v.first+n)*pageSize]
}
