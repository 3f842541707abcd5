// Package notice tells the holders of tokens by mail what has become of them.
//
// A notice is a record of the vault, written in the transaction of what it tells of. The queue sends it afterwards, in a loop of
// its own, so that no cut-off ever waits for a mail server: at least once, and always under the same Message-ID, by which mail
// systems drop a twin. What cannot be sent now is tried again with growing pauses, which survive restarts; what the server
// refuses for good, and what has no address, waits for an officer. A notice is sent even if what it tells of was taken back
// meanwhile: it has happened.
//
// Addresses come from a directory, which may lie, and answers from a server, which may too: neither reaches a header, an SMTP
// command or a terminal unless it is what it should be. The words are templates (see Templates), which an administrator
// can replace; they are sentences, not programs.
package notice
