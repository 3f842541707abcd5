// Package vault keeps tokens, their secrets, the journal and the outbox in one bbolt file.
//
// It exists because seeds must be of no use to whoever copies the disk, and because a change here, the
// work that makes it and what the central service has yet to hear of it must commit together or not at
// all. A Sealer (a TPM, a passphrase) seals one random secret; the key derived from it wraps versioned
// data keys; those seal seeds and access codes (AES-256-GCM) and authenticate everything else
// (HMAC-SHA256). Inventory, journal and outbox stay readable JSON: they are authenticated, not secret.
//
// It promises: a record that was edited, or moved to another key, bucket or vault, is refused; a damaged
// file gives a named state or the right records, never a panic; no plain secret reaches the file; a
// transaction that was acknowledged is there after a crash; the protection level cannot be changed
// unnoticed; a vault is never made over something else; every reason for not opening has a name and
// a cure (StateError).
//
// It does not promise to notice that the whole file, or one record, was put back to an older state of
// itself, or that a record which nothing refers to was removed. Keys live on the Go heap: they are wiped
// on Close, but a debugger or swap sees them before, and the ciphers' own copies go when the collector
// takes them.
package vault
