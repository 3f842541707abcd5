// Package secret holds byte strings that must never be shown: seeds, access codes, keys, passwords.
//
// A Secret prints as [redacted] through fmt and log/slog, refuses to be marshalled, and can be wiped. Its bytes are in
// pages of the kernel's that hold nothing else and are kept out of swap (mlock), core dumps (MADV_DONTDUMP) and forked
// processes (MADV_WIPEONFORK). Make, Random, Clone, Concat and ReadFile write there directly, and New wipes what it
// was given. Wipe erases at once. A Secret that nobody wipes is erased some seconds after the garbage collector found
// it, and not before, because somebody may still read what Reveal lent.
//
// The kernel limits what may be locked: 8 MiB by systemd's and Debian's defaults, which is enough for more than
// 100,000 seeds at a time. Beyond it secrets work as before, in pages that may be swapped, and Memory says so.
//
// # What Do adds
//
// What crypto packages compute from a secret is in ordinary memory: key schedules, HMAC states, what HKDF and Argon2
// keep in between. Do erases that, in programs built with GOEXPERIMENT=runtimesecret. Measured with Go 1.26:
//
//   - What Do's function allocates is erased however long it lives and wherever it is used: an AES-GCM made in Do and
//     used outside is gone after it is dropped and collected. Call runtime.GC twice to be sure of it: one cycle leaves
//     what the standard library caches for an Ed25519 key. Likewise gone are the temporaries of crypto/hkdf,
//     crypto/hmac, golang.org/x/crypto/argon2 and crypto/ed25519, of the latter if the key's first signature is made in Do.
//     Without the experiment, most of them stay until their memory is used for something else.
//   - A goroutine that Do's function starts is not covered; a Do in that goroutine is. Global variables are not covered.
//   - A call into C within Do crashes the program (golang.org/issue/78999), with SIGSEGV and without a word. So do
//     os.Setenv and, by way of libc, net's lookups and os/user, in a program that uses cgo. There the runtime calls C to
//     start a thread as well, which a timer or a deadline set in Do may need: Do keeps its goroutine on its thread
//     (runtime.LockOSThread), so that another one does it. A wait in Do costs 15 to 50 µs more for that.
//   - A garbage collection that begins waits for Do's function while that computes, and everybody else for the
//     collection: half a second of computing stopped the program for half a second. While the function itself waits, for
//     a channel or the kernel, it holds nobody up. Argon2 computes in goroutines of its own, and stops nobody.
//   - Do costs 60 ns, and up to 1 µs more for each small allocation in it. To open an AES-GCM box into the
//     memory of a Secret costs nothing more, as nothing is allocated.
//
// # What remains
//
// This does not protect against who may read the process's memory, such as root or a debugger, nor against
// hibernation, which writes locked pages to disk too, nor a host that swaps the memory of a virtual machine. Registers
// hold pieces of secrets while they are used, and the kernel or Go may save those on stacks when they interrupt;
// outside of Do such pieces stay until they are overwritten. Copies that a caller makes by string(s.Reveal()) or append,
// and that libraries make of what they are lent (encoders, LDAP, TPM and USB frames), are theirs to wipe. The race
// detector does not watch the bytes.
package secret
