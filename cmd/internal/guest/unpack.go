package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// unpackKernel writes the ELF image that is compressed in a bzImage. The guest's processor, emulated, would take
// four of its seven seconds to do the same at every boot.
func unpackKernel(ctx context.Context, from, to string) error {
	image, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	compressed, size, err := payload(image)
	if err != nil {
		return fmt.Errorf("cannot read the kernel %s: %w", from, err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	xz := program(ctx, "xz", "--decompress", "--stdout")
	xz.Stdin, xz.Stdout = bytes.NewReader(compressed), out
	if err := finish(xz); err != nil {
		return err
	}
	if info, err := out.Stat(); err != nil || info.Size() != int64(size) {
		return fmt.Errorf("the unpacked kernel has not the %d bytes it should have", size)
	}
	return nil
}

// Offsets in a bzImage, all little-endian. Documentation/x86/boot.rst of the kernel.
const (
	setupSectorsAt  = 0x1f1 // 1 byte: sectors of 512 bytes before the protected-mode code, without the first
	magicAt         = 0x202
	versionAt       = 0x206 // 2 bytes
	payloadOffsetAt = 0x248 // 4 bytes, from the protected-mode code
	payloadLengthAt = 0x24c // 4 bytes
	headerEnd       = 0x250

	firstVersionWithPayload = 0x0208
)

var xzMagic = []byte("\xfd7zXZ\x00")

// payload finds the compressed kernel, and its size in bytes when it is unpacked.
func payload(image []byte) (compressed []byte, size uint32, err error) {
	if len(image) < headerEnd || string(image[magicAt:magicAt+4]) != "HdrS" ||
		binary.LittleEndian.Uint16(image[versionAt:]) < firstVersionWithPayload {
		return nil, 0, errors.New("it is no bzImage that tells its payload")
	}
	sectors := uint64(image[setupSectorsAt])
	if sectors == 0 {
		sectors = 4 // boot.rst: for old loaders' sake
	}
	begin := (sectors+1)*512 + uint64(binary.LittleEndian.Uint32(image[payloadOffsetAt:]))
	end := begin + uint64(binary.LittleEndian.Uint32(image[payloadLengthAt:]))
	if end > uint64(len(image)) {
		return nil, 0, errors.New("its payload ends beyond it")
	}
	compressed = image[begin:end]
	if len(compressed) < len(xzMagic)+4 || !bytes.HasPrefix(compressed, xzMagic) {
		return nil, 0, errors.New("it is not compressed with xz")
	}
	last := len(compressed) - 4 // the kernel's build appends the size
	return compressed[:last], binary.LittleEndian.Uint32(compressed[last:]), nil
}
