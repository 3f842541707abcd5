package vault

import "tokendesk/vault/secret"

// Sealer protects the one secret that everything in a vault hangs from. There are two: tpmseal and passseal.
// Implementations are safe for concurrent use and name their failures with a StateError.
type Sealer interface {
	// Kind is the word that the header keeps ("tpm", "passphrase"); another kind does not open the vault.
	Kind() string
	// Level is what protection this sealer gives here and now.
	Level() Level
	// Seal returns what only Unseal can open again.
	Seal(s secret.Secret) (blob []byte, err error)
	// Unseal opens a blob. Blobs come from the file, so they may be anything.
	Unseal(blob []byte) (secret.Secret, error)
}
