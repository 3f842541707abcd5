//go:build liboath

package liboath

// #cgo LDFLAGS: -loath
// #include <stdlib.h>
// #include <liboath/oath.h>
import "C"

import (
	"fmt"
	"unsafe"
)

// Validate looks for a code from the counter on, and in as many counters after it as the window says.
func Validate(seed []byte, counter uint64, window int, code string) (found bool, err error) {
	s, c := C.CBytes(seed), C.CString(code)
	defer C.free(s)
	defer C.free(unsafe.Pointer(c))
	n := C.oath_hotp_validate((*C.char)(s), C.size_t(len(seed)), C.uint64_t(counter), C.size_t(window), c)
	if n >= 0 || n == C.OATH_INVALID_OTP {
		return n >= 0, nil
	}
	return false, fmt.Errorf("oath_hotp_validate: %s", C.GoString(C.oath_strerror(n)))
}
