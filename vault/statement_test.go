package vault_test

import (
	"testing"

	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/vaulttest"
)

// What a vault signs is verified with the key of its audit trail, and names the vault as its heads do.
func TestSign(t *testing.T) {
	v := vaulttest.New(t)
	text := []byte("yk-10000001/otp2 is bob's now")
	view(t, v, func(tx *vault.Tx) error {
		s, err := tx.Sign(audit.ReceiptPage, text)
		if err != nil {
			return err
		}
		if err := tx.AuditKey().VerifyText(audit.ReceiptPage, text, s); err != nil {
			t.Error(err)
		}
		if tx.AuditKey().VerifyText(audit.ReceiptStatement, text, s) == nil {
			t.Error("it verifies as another kind")
		}
		if _, err := tx.Sign("tokendesk audit head v1", text); err == nil {
			t.Error("a vault signs what looks like a head")
		}
		return nil
	})
}
