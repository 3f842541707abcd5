//go:build goexperiment.runtimesecret

package secret

import (
	"runtime"
	"runtime/secret"
)

// do keeps its goroutine on its thread. A timer that f sets may make the runtime start a thread; in a program that uses
// cgo it calls C for that, which crashes in secret.Do (golang.org/issue/78999). For a locked goroutine another thread
// does it, outside of secret.Do (runtime.newm).
func do(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	secret.Do(f)
}

const erases = runtime.GOOS == "linux" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")
