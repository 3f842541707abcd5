package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tokendesk/cmd/internal/api"
)

// sign prints what bob signs for his token, and proves it without the desk; with one letter changed that must fail.
func (s *story) sign(ctx context.Context, token string) error {
	receipt := filepath.Join(s.Dir, "receipt.html")
	var v api.Vault
	if err := s.ask(ctx, &v, "vault", "status"); err != nil {
		return err
	}
	for _, args := range [][]string{{"receipt", token, "--output", receipt}, {"receipt", "verify", receipt, "--key", v.AuditKey}} {
		if err := s.desk(ctx, args...); err != nil {
			return err
		}
	}
	page, err := os.ReadFile(receipt)
	if err != nil {
		return err
	}
	verify := s.Command(ctx, "tokendesk", "receipt", "verify", "-", "--key", v.AuditKey)
	verify.Stdin = strings.NewReader(strings.Replace(string(page), "reissued to bob", "reissued to rob", 1))
	out, err := verify.CombinedOutput()
	if refused := (*exec.ExitError)(nil); !errors.As(err, &refused) || refused.ExitCode() != api.NotVerified.ExitCode() {
		return fmt.Errorf("with one letter changed the receipt is not refused: %v: %s", err, out)
	}
	s.fact("the same with one letter changed", "%s", strings.Join(strings.Fields(string(out)), " "))
	return nil
}
