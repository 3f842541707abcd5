// Package vault keeps tokens, their secrets, the journal, the outbox, orders that wait for a second officer and the audit
// trail in one bbolt file.
//
// It exists because seeds must be of no use to whoever copies the disk, and because a change here, the work that makes
// it, the trace of who did it and what the central service has yet to hear of it must commit together or not at all.
//
// A Sealer (a TPM, a passphrase) gives out one root secret, with a PIN or without. The key derived from it wraps a data
// key; that seals seeds, access codes and the secrets of smart cards (AES-256-GCM) and authenticates everything else.
// Inventory, journal, outbox and trail stay readable JSON: they are authenticated, not secret. A ledger, sealed with every
// commit, makes one state of all entries; a counter in the TPM, raised after every commit that something follows from, makes it the latest one.
//
// It promises: an entry that was edited, moved, taken out or put back to an older state is refused, and so is an older
// copy of the whole file; a damaged file gives a named state or the right records, never a panic; no plain secret
// reaches the file; what was acknowledged is there after a crash, and nobody acts on what is not; the protection
// cannot be changed unnoticed; a vault is never made over something else; every reason for not opening has a name and a
// cure (StateError); a dead board costs nothing, because the recovery identities, proven when the vault is made, restore
// it and its backups; what was deleted is beyond reach after the next Rotate; a seed that was here once is never taken again;
// a token that was deleted leaves a tombstone (and its access code, or what manages its card, lest that be lost) and
// its certificates, which outlive it, and one that gets its name later goes on counting generations; what is compromised
// stays so.
//
// It does not promise to notice that the file was put back to an earlier moment of the same epoch: one in which nothing
// but counters and bookkeeping changed, at most a minute, or the steps of one piece of work behind the first. Without a TPM
// it does not notice an older copy at all. A software TPM's counter is rolled back with its state file. Whoever has the
// recovery identity and a backup has everything in it, whatever was rotated since.
//
// Keys, seeds, codes and PINs live in locked pages (see package secret). While the vault is open, ordinary memory holds the
// AES key schedules of its five keys, and nothing else that lasts: each key stands there twice, at both ends of a schedule,
// the first key of the sum four times. What HMAC, HKDF, Argon2, Ed25519, age, go-tpm and the OTP library compute or copy is
// erased within about a second of its last use (Forget), and by Lock before it returns, together with the schedules.
// net/http and go-ldap never get a secret. This needs GOEXPERIMENT=runtimesecret.
package vault
