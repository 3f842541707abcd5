package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"
)

// maxLine is above the longest line of an export in bytes: five texts with each byte escaped, and 0.5 KiB around them.
const maxLine = 8192

// Summary is what an export that verified holds.
type Summary struct {
	Header
	Head      Head
	Unchecked []Head // known heads for entries before From-1: this file says nothing about them, and agrees with all others
}

// Before is how many entries the vault had before the first one of the file.
func (s Summary) Before() uint64 { return s.From - 1 }

func (s Summary) String() string {
	text := fmt.Sprintf("vault %s: %d entries from %d on are as the desk wrote them, under its head of %s",
		s.Vault, s.To-s.Before(), s.From, s.Head.Time.Format(time.RFC3339))
	if s.Before() > 0 {
		text += fmt.Sprintf("; entries 1 to %d before are not in this file", s.Before())
	}
	if n := len(s.Unchecked); n > 0 {
		text += fmt.Sprintf("; known heads for entries before this file, not checked: %d", n)
	}
	return text
}

// Verify reads an export and says why it is not what the vault with that key wrote, or returns what it holds. It needs
// a few tens of kilobytes, however long the export is.
//
// fn, if there is one, gets each entry as it is read. What it got is proven only when Verify has returned nil.
//
// known are heads that the same vault shipped before. A history that contradicts one of them, or ends before it, is
// refused: the desk has told two stories, or this file is older than the head.
func Verify(r io.Reader, key Key, fn func(Entry), known ...Head) (Summary, error) {
	known = slices.SortedFunc(slices.Values(known), func(a, b Head) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, h := range known {
		if err := h.Verify(key); err != nil {
			return Summary{}, fmt.Errorf("the known head for entry %d is of no use: %w", h.Seq, err)
		}
	}
	in := &reader{in: bufio.NewReaderSize(r, maxLine)}
	s, err := in.verify(key, fn, known)
	if err != nil {
		return Summary{}, fmt.Errorf("line %d: %w", in.line, err)
	}
	return s, nil
}

type reader struct {
	in   *bufio.Reader
	line int // the number of the line last read
	form bytes.Buffer
}

func (r *reader) verify(key Key, fn func(Entry), known []Head) (s Summary, err error) {
	if s.Header, err = r.header(); err != nil {
		return s, err
	}
	if s.Key != key {
		return s, otherKey(s.Key, key)
	}
	c, err := begin(s.Header)
	if err != nil {
		return s, err
	}
	for len(known) > 0 && known[0].Seq < c.at.Seq {
		s.Unchecked, known = append(s.Unchecked, known[0]), known[1:]
	}
	for {
		for ; len(known) > 0 && known[0].Seq == c.at.Seq; known = known[1:] {
			if known[0].Point != c.at {
				return s, fmt.Errorf("history was rewritten: entry %d is not the one that the vault signed on %s", c.at.Seq, known[0].Time.Format(time.RFC3339))
			}
		}
		line, err := r.next()
		if err != nil {
			return s, err
		}
		if bytes.HasPrefix(line, []byte(headStart)) {
			s.Head, err = r.head(line, &c)
			if err == nil && len(known) > 0 {
				err = fmt.Errorf("the file ends with entry %d, but the vault had signed for entry %d on %s: take a newer export; if the desk has none, its history was cut",
					c.at.Seq, known[0].Seq, known[0].Time.Format(time.RFC3339))
			}
			return s, err
		}
		var e Entry
		if err := r.decode(line, &e); err != nil {
			return s, err
		}
		if err := c.add(e); err != nil {
			return s, err
		}
		if fn != nil {
			fn(e)
		}
	}
}

// header reads the first line. What it is and its version come first, for the rest may differ in another version.
func (r *reader) header() (h Header, err error) {
	line, err := r.next()
	if err != nil {
		return h, err
	}
	var is struct {
		Format  string
		Version int
	}
	switch err := json.Unmarshal(line, &is); {
	case err != nil || is.Format != exportFormat:
		return h, fmt.Errorf("this is not the first line of a %s", exportFormat)
	case is.Version > exportVersion:
		return h, fmt.Errorf("the export has version %d, which is newer than %d, the last one that this program knows: verify it with a newer one", is.Version, exportVersion)
	case is.Version < exportVersion:
		return h, fmt.Errorf("there is no version %d", is.Version)
	}
	err = r.decode(line, &h)
	return h, err
}

// head reads the last line and makes sure that it is the last one.
func (r *reader) head(line []byte, c *chain) (h Head, err error) {
	if err := r.decode(line, &h); err != nil {
		return h, err
	}
	if err := c.end(h); err != nil {
		return h, err
	}
	if _, err := r.in.ReadByte(); err == nil {
		r.line++
		return h, errors.New("the head must be the last line")
	} else if err != io.EOF {
		return h, fmt.Errorf("cannot read on: %w", err)
	}
	return h, nil
}

// next returns the next line. It is good until next is called again.
func (r *reader) next() ([]byte, error) {
	r.line++
	line, err := r.in.ReadSlice('\n')
	switch {
	case err == bufio.ErrBufferFull || len(line) > maxLine:
		return nil, fmt.Errorf("it has more than %d bytes", maxLine)
	case err == io.EOF:
		return nil, errors.New("the file is cut off: it does not end with a signed head")
	case err != nil:
		return nil, fmt.Errorf("cannot read on: %w", err)
	}
	return line, nil
}

// decode demands of a line the very bytes that a Writer gives v, which leaves no room for fields that are unknown,
// missing, repeated or spelled differently, and so for two programs that read one line in two ways.
func (r *reader) decode(line []byte, v any) error {
	r.form.Reset()
	err := json.Unmarshal(line, v)
	if err == nil {
		err = encoder(&r.form).Encode(v)
	}
	if err == nil && bytes.Equal(line, r.form.Bytes()) {
		return nil
	}
	if !utf8.Valid(line) {
		err = errors.New("it is not UTF-8")
	}
	if err == nil {
		strict := json.NewDecoder(bytes.NewReader(line))
		strict.DisallowUnknownFields()
		err = strict.Decode(v)
	}
	if err == nil {
		err = errors.New("fields are missing, repeated or out of order, or spaces or escapes differ")
	}
	return fmt.Errorf("it is not as the desk writes it: %.200w", err)
}
