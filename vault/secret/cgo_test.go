//go:build cgo

package secret_test

import _ "runtime/cgo" // C starts the threads, as in a program that calls C
