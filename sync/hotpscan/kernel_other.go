//go:build !amd64

package hotpscan

// kernels is empty: the base is all there is.
var kernels []kernel
