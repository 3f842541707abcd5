package hotpscan_test

import (
	"os"
	"strings"
	"testing"
	"time"
)

// others is more turns, of builds with tags.
var others []turn

// multiply is a chain of multiplications, each of which waits for the one before.
//
//go:noinline
func multiply(x, y uint64, times int) uint64 {
	for range times {
		x *= y
	}
	return x
}

// clock is the processor's clock in Hz just now: a multiplication takes 3 cycles on all with AVX-512.
func clock() float64 {
	const times = 20000
	begin := time.Now()
	if multiply(3, 5, times) == 0 {
		panic("an odd number never becomes 0")
	}
	return 3 * times / time.Since(begin).Seconds()
}

// micro is how many operations an instruction of the AVX-512 kernel's loop is, on the ports that only vectors of 512 bits
// use, of which a core has two (0 and 5). Loads and copies of registers need none of them; scalar instructions have ports
// of their own.
var micro = map[string]int{
	"VPADDD": 1, "VPADDD.BCST": 1, "VPXORD": 1, "VPXORD.BCST": 1, "VPTERNLOGD": 1, "VPTERNLOGD.BCST": 1, "VPANDD.BCST": 1,
	"VPROLD": 1, "VPRORVD": 1, "VPSLLD": 1, "VPSHLDVD": 1, "VPBLENDMD": 1, "VPTESTMD": 1, "VPCMPUD": 1, "KMOVW": 1,
	"VPMULLD.BCST": 2,
	"VPBROADCASTD": 0, "VMOVDQU32": 0, "VMOVDQA32": 0, "TESTL": 0, "JNZ": 0, "INCQ": 0, "CMPQ": 0, "JGE": 0, "JMP": 0, "ADDL": 0, "MOVL": 0, "BSFQ": 0, "SHLQ": 0,
}

// loop is the instructions between two labels of a kernel.
func loop(tb testing.TB, function string) (list []string) {
	tb.Helper()
	text, err := os.ReadFile("kernel_amd64.s")
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "TEXT ·"+function+"(SB)")
	_, rest, ok2 := strings.Cut(rest, "\nloop:\n")
	body, _, ok3 := strings.Cut(rest, "\ndone:\n")
	if !ok || !ok2 || !ok3 {
		tb.Fatalf("%s has no loop", function)
	}
	for line := range strings.Lines(body) {
		if words := strings.Fields(line); len(words) > 0 {
			list = append(list, words[0])
		}
	}
	return list
}

// atLeast is how many cycles a block of 16 counters takes at least.
func atLeast(tb testing.TB) float64 {
	tb.Helper()
	sum := 0
	for _, name := range loop(tb, "searchAVX512") {
		n, known := micro[name]
		if !known {
			tb.Fatalf("it is not known what %s costs: add it to micro", name)
		}
		sum += n
	}
	return float64(sum) / 2
}

func TestPortLimitIsCounted(t *testing.T) {
	// 160 rounds of two rotations, a function and four sums, less sums with words that are constant; two schedules.
	if cycles := atLeast(t); cycles < 500 || cycles > 800 {
		t.Errorf("%v cycles for a block", cycles)
	}
}
