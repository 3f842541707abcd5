package hotpscan

import "golang.org/x/sys/cpu"

//go:generate go run ./gen

// kernels are those that this processor can run, best first.
var kernels = available()

func available() (list []kernel) {
	if cpu.X86.HasAVX512F && cpu.X86.HasAVX512VBMI2 { // VBMI2 has VPSHLDVD
		list = append(list, kernel{"avx512", 16, newTables(16), searchAVX512})
	}
	if cpu.X86.HasAVX2 {
		list = append(list, kernel{"avx2", 8, newTables(8), searchAVX2})
	}
	return list
}

//go:noescape
func searchAVX512(s *state, t *tables, blocks int) (block int, hits uint32)

//go:noescape
func searchAVX2(s *state, t *tables, blocks int) (block int, hits uint32)
