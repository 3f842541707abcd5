package vault

import (
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Sign signs a text of a kind with the key of the audit trail: see Tx.AuditKey.
func (tx *Tx) Sign(kind audit.Kind, text []byte) (s audit.Signature, err error) {
	err = tx.withAuditSeed(func(seed secret.Secret) (err error) { s, err = audit.SignText(kind, text, seed); return err })
	return s, err
}

// withAuditSeed lends what the audit trail is signed with.
func (tx *Tx) withAuditSeed(fn func(secret.Secret) error) error {
	seed, ok, err := tx.unseal(bucketSystem, []byte(keyAudit))
	if err != nil {
		return err
	}
	if !ok {
		return corrupt("%s has lost the key of its audit trail", tx.s.path)
	}
	defer seed.Wipe()
	defer forgetSoon()
	return fn(seed)
}
