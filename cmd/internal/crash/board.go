package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// board is what swtpm itself says, asked past the desk: an independent witness of what is left in the TPM, and a way to tidy
// up. swtpm serves one client at a time: the desk must be dead, or its vault locked.
type board struct{ socket string }

const boardTimeout = 5 * time.Second

// Commands of the TPM 2.0 Library, Part 3, whose authorization is an empty password, and what their frames are made of.
const (
	plainCommand  = 0x8001 // TPM_ST_NO_SESSIONS
	authorized    = 0x8002 // TPM_ST_SESSIONS
	getCapability = 0x17A
	undefine      = 0x122 // TPM2_NV_UndefineSpace
	increment     = 0x134 // TPM2_NV_Increment
	lockReset     = 0x139 // TPM2_DictionaryAttackLockReset
	owner         = 0x40000001
	lockout       = 0x4000000A
	password      = 0x40000009
	handles       = 1          // TPM_CAP_HANDLES
	firstIndex    = 0x01800000 // of those that an owner defines
	lastIndex     = 0x01BFFFFF
	headerSize    = 10 // tag, size, code
	maxAnswer     = 64 << 10
)

// ask sends one command and returns what comes after the answer's header.
func (b board) ask(tag uint16, code uint32, words []uint32, rest ...byte) ([]byte, error) {
	conn, err := net.Dial("unix", strings.TrimPrefix(b.socket, "unix:"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(boardTimeout)); err != nil {
		return nil, err
	}
	var body []byte
	for _, w := range words {
		body = binary.BigEndian.AppendUint32(body, w)
	}
	body = append(body, rest...)
	command := binary.BigEndian.AppendUint16(nil, tag)
	command = binary.BigEndian.AppendUint32(command, uint32(headerSize+len(body)))
	command = binary.BigEndian.AppendUint32(command, code)
	if _, err := conn.Write(append(command, body...)); err != nil {
		return nil, err
	}
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	if rc := binary.BigEndian.Uint32(head[6:]); rc != 0 {
		return nil, fmt.Errorf("the TPM answers %#x to command %#x", rc, code)
	}
	size := binary.BigEndian.Uint32(head[2:])
	if size < headerSize || size > maxAnswer {
		return nil, fmt.Errorf("the TPM announces an answer of %d bytes", size)
	}
	answer := make([]byte, size-headerSize)
	_, err = io.ReadFull(conn, answer)
	return answer, err
}

// counters lists the NV indices in the owner's range. Nobody but the desk makes any.
func (b board) counters() (found []uint32, err error) {
	const most = 64
	answer, err := b.ask(plainCommand, getCapability, []uint32{handles, firstIndex, most})
	if err != nil {
		return nil, err
	}
	return parseHandles(answer)
}

// parseHandles reads a TPMI_YES_NO and a TPMS_CAPABILITY_DATA of handles (TPM 2.0 Library, Part 2, 10.10.2), and takes those
// in the owner's range.
func parseHandles(answer []byte) (found []uint32, err error) {
	const countAt = 1 + 4 // behind: whether there is more, which capability
	if len(answer) < countAt+4 {
		return nil, errors.New("the TPM's list of handles is cut short")
	}
	list := answer[countAt+4:]
	if n := binary.BigEndian.Uint32(answer[countAt:]); uint64(n)*4 != uint64(len(list)) {
		return nil, fmt.Errorf("the TPM announces %d handles and gives %d bytes", n, len(list))
	}
	for ; len(list) > 0; list = list[4:] {
		if h := binary.BigEndian.Uint32(list); h >= firstIndex && h <= lastIndex {
			found = append(found, h)
		}
	}
	return found, nil
}

// emptyPassword is an authorization area: its size, the password's handle, no nonce, no attributes, no password.
var emptyPassword = []uint32{9, password}

// clear takes all counters out.
func (b board) clear() error {
	found, err := b.counters()
	for _, h := range found {
		_, undefineErr := b.ask(authorized, undefine, append([]uint32{owner, h}, emptyPassword...), 0, 0, 0, 0, 0)
		err = errors.Join(err, undefineErr)
	}
	return err
}

// forgive has the TPM forget wrong PINs.
func (b board) forgive() error {
	_, err := b.ask(authorized, lockReset, append([]uint32{lockout}, emptyPassword...), 0, 0, 0, 0, 0)
	return err
}
