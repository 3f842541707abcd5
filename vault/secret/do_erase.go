//go:build goexperiment.runtimesecret

package secret

import (
	"runtime"
	"runtime/secret"
)

func do(f func()) { secret.Do(f) }

const erases = runtime.GOOS == "linux" && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64")
