// Package house holds the tests of the house itself: which package may import which, that every one of
// them says what it is for, and that no production program can reach an emulated token except through
// the bus socket.
package house
