// Package pcsctest gives smart card code something real to be tested against: a pcscd of its own, whose readers are
// virtual ones (vsmartcard's vpcd) that wait for cards on TCP ports.
//
// Nothing here imitates PC/SC: clients speak to Debian's pcscd by libpcsclite, which finds it by Socket in the environment
// variable PCSCLITE_CSOCK_NAME; it reads that once, at a process's first call. A card is a TCP client of one of Ports, as
// package emulator has it; vpcd listens on all addresses of the machine, and takes the first that comes. The pcscd lives in
// a mount namespace, which root may make (others in a user namespace), so that neither the machine's own pcscd nor other
// rigs are touched; and it has no drivers for USB, so that it leaves real readers alone.
//
// Two habits of vpcd differ from those of USB readers. pcscd looks for a card there 2.5 times a second, so that insertion and
// removal are seen up to 0.4 s later. A card that leaves in the midst of a command gives its client an empty answer, without
// a status word, instead of an error.
package pcsctest
