// Command gen writes the search kernels of package hotpscan, kernel_amd64.s: go generate ./sync/hotpscan.
//
// A kernel computes the HOTP values of one seed for consecutive counters, one per lane, and stops at the first block of
// lanes with a hit. HMAC-SHA-1 of a counter is two blocks, from the two midstates of the seed: the inner one of the counter,
// the outer one of the inner hash. Of the first, the schedule is nearly the same in all lanes, and taken from tables
// (kernel.go); in the second many words are constant, which the generator carries through the schedule as numbers (sha1.go).
// What differs between AVX-512 and AVX2 is in a file each.
package main

import (
	"fmt"
	"os"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

func main() {
	if err := run("kernel_amd64.s"); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	text, err := generate()
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// generate returns the assembly.
func generate() ([]byte, error) {
	file, err := kernels()
	if err != nil {
		return nil, err
	}
	return printer.NewGoAsm(printer.Config{Name: "go generate ./sync/hotpscan", Pkg: "hotpscan"}).Print(file)
}

// kernels are both kernels with registers assigned.
func kernels() (*ir.File, error) {
	c := build.NewContext()
	c.ConstraintExpr("amd64")
	c.Package("tokendesk/sync/hotpscan")
	wide, narrow := newAVX512(c), newAVX2(c)
	search(c, "searchAVX512", wide)
	search(c, "searchAVX2", narrow)
	wide.numbers.define(c)
	narrow.numbers.define(c)
	file, err := c.Result()
	if err != nil {
		return nil, err
	}
	return file, pass.Compile.Execute(file)
}
