// Package liboath is oath_hotp_validate of OATH Toolkit, for benchmarks. It is empty unless the build tag liboath is set,
// as it needs cgo and Debian's liboath-dev.
package liboath
