package tpmseal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A blob: version (1 byte), then four fields, each with its length in 2 bytes, big endian.
const (
	blobVersion = 1
	maxField    = 1024 // the largest, the private part, has about 200 bytes
)

// blob is a sealed object with what is needed to load and open it.
type blob struct {
	srk     []byte // Name of the storage root key above it
	public  []byte // TPM2B_PUBLIC's content
	private []byte // TPM2B_PRIVATE's content
	// auth is the object's authorization value. It lies beside the object and keeps nobody out who has both file
	// and TPM; it only means that the object alone, and a look at the bus, are not enough to ask for it. It takes the
	// place that a PIN has in a blob of another version.
	auth []byte
}

func (b *blob) fields() []*[]byte { return []*[]byte{&b.srk, &b.public, &b.private, &b.auth} }

func (b *blob) encode() ([]byte, error) {
	out := []byte{blobVersion}
	for _, f := range b.fields() {
		if len(*f) == 0 || len(*f) > maxField {
			return nil, fmt.Errorf("a field of the sealed key has %d bytes", len(*f))
		}
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(*f))), *f...)
	}
	return out, nil
}

func decodeBlob(p []byte) (*blob, error) {
	if len(p) == 0 {
		return nil, errors.New("the sealed key is empty")
	}
	if p[0] != blobVersion {
		return nil, fmt.Errorf("the sealed key has version %d, this program knows %d", p[0], blobVersion)
	}
	p = p[1:]
	var b blob
	for _, f := range b.fields() {
		if len(p) < 2 {
			return nil, errors.New("the sealed key is cut short")
		}
		n := int(binary.BigEndian.Uint16(p))
		if p = p[2:]; n == 0 || n > maxField || n > len(p) {
			return nil, fmt.Errorf("a field of the sealed key claims %d bytes", n)
		}
		*f, p = p[:n:n], p[n:]
	}
	if len(p) != 0 {
		return nil, errors.New("the sealed key has bytes left over")
	}
	return &b, nil
}
