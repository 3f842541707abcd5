package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// An export is JSON Lines: a Header, the entries, the signed head.
const (
	exportFormat  = "tokendesk audit export"
	exportVersion = 1
	headStart     = `{"vault":` // neither a header nor an entry begins so
)

// Header is the first line of an export.
type Header struct {
	Format  string `json:"format"`  // NewWriter sets it
	Version int    `json:"version"` // NewWriter sets it
	Vault   string `json:"vault"`
	Key     Key    `json:"key"`
	From    uint64 `json:"from"`   // the first entry, at least 1
	To      uint64 `json:"to"`     // the last entry; From-1 if there is none
	Anchor  Digest `json:"anchor"` // the hash of the entry before From, or that of Genesis
}

// chain follows an export while it is written or read.
type chain struct {
	Header
	at Point
}

func begin(h Header) (chain, error) {
	switch {
	case h.From < 1 || h.To < h.From-1:
		return chain{}, fmt.Errorf("there are no entries %d to %d", h.From, h.To)
	case h.From == 1 && h.Anchor != Genesis(h.Vault, h.Key).Hash:
		return chain{}, errors.New("the anchor is not where the history of this vault and key begins")
	}
	return chain{h, Point{h.From - 1, h.Anchor}}, checkVault(h.Vault)
}

func (c *chain) add(e Entry) error {
	if e.Seq > c.To {
		return fmt.Errorf("entry %d is more than the header announces, which is up to %d", e.Seq, c.To)
	}
	if err := e.Follows(c.at); err != nil {
		return err
	}
	c.at = e.Point()
	return nil
}

func (c *chain) end(h Head) error {
	if c.at.Seq != c.To {
		return fmt.Errorf("entries %d to %d are missing", c.at.Seq+1, c.To)
	}
	if err := h.Verify(c.Key); err != nil {
		return err
	}
	switch {
	case h.Vault != c.Vault:
		return fmt.Errorf("the head is that of vault %s, and not of %s", h.Vault, c.Vault)
	case h.Seq != c.at.Seq:
		return fmt.Errorf("the head is for entry %d, but the last one here is %d", h.Seq, c.at.Seq)
	case h.Point != c.at:
		return fmt.Errorf("the head is for another history: its entry %d is not the one here", h.Seq)
	}
	return nil
}

// Writer writes an export. It refuses what Verify would refuse.
type Writer struct {
	chain chain
	buf   *bufio.Writer
	json  *json.Encoder
}

// NewWriter begins an export. The caller closes w.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	h.Format, h.Version = exportFormat, exportVersion
	c, err := begin(h)
	if err != nil {
		return nil, fmt.Errorf("cannot export the audit: %w", err)
	}
	buf := bufio.NewWriter(w)
	out := &Writer{c, buf, encoder(buf)}
	return out, out.json.Encode(h)
}

// Entry writes the next entry.
func (w *Writer) Entry(e Entry) error {
	if err := w.chain.add(e); err != nil {
		return fmt.Errorf("cannot export the audit: %w", err)
	}
	return w.json.Encode(e)
}

// Close writes the head, which must be for the last entry, and flushes. Without it the export does not verify.
func (w *Writer) Close(h Head) error {
	if err := w.chain.end(h); err != nil {
		return fmt.Errorf("cannot export the audit: %w", err)
	}
	if err := w.json.Encode(h); err != nil {
		return err
	}
	return w.buf.Flush()
}

// encoder writes the one form that an export's lines have.
func encoder(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}
