package daemon

import (
	"fmt"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/localapi"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// typicalWrites is how many writes the memory of a TPM commonly bears; few makers promise a figure.
const typicalWrites = 500_000

func (d *Daemon) checkVault(desk *localapi.Desk) []api.Finding {
	found := []api.Finding{checkMemory()}
	c := desk.Vault.Condition()
	if c.State != vault.StateOpen {
		return append(found, shut(desk, c))
	}
	if err := desk.Vault.Check(); err != nil {
		found = append(found, bad("vault", "stop the desk, keep a copy of the file, and restore the last good backup: tokendesk vault restore", "%v", err))
	} else {
		found = append(found, good("vault", "open at %s, and every record is whole; %s", desk.Vault.Path(), c.Level.Describe(c.PIN)))
	}
	found = append(found, checkRecipients(c), d.checkBackups(desk), d.checkShred(c))
	if c.Anchored {
		found = append(found, checkWrites(c))
	}
	return append(found, checkAudit(desk, c))
}

// shut says why the vault is not open, and what waits meanwhile.
func shut(desk *localapi.Desk, c vault.Condition) api.Finding {
	text, cure := desk.Vault.Path()+" is locked", "tokendesk vault unlock"
	if c.Err != nil {
		text, cure = fmt.Sprintf("%s: %v", c.State, c.Err.Err), c.Err.Cure
	} else if err := desk.Keeper.Problem(); err != nil {
		text, cure = err.Error(), "see the log"
	}
	w, err := desk.Vault.Peek()
	if err != nil {
		return bad("vault", cure, "%s", text)
	}
	cutOffs := 0
	for _, c := range w.Changes {
		if c.Kind.CutOff() {
			cutOffs++
		}
	}
	return bad("vault", cure, "%s; meanwhile %d changes wait, %d of them cut-offs, and %d jobs", text, len(w.Changes), cutOffs, len(w.Jobs))
}

func checkMemory() api.Finding {
	if problem := secret.Memory().Problem; problem != nil {
		return bad("memory", "LimitMEMLOCK=8M in the service, then restart it", "%v", problem)
	}
	return good("memory", "secrets are in memory that is never swapped")
}

func checkRecipients(c vault.Condition) api.Finding {
	if len(c.Recipients) == 0 {
		return bad("recovery", "make an identity with age-keygen, keep its file offline, and name its recipient: tokendesk vault rotate --recipient age1...",
			"nobody can restore the vault: if this board dies, every token is lost with it")
	}
	return good("recovery", "%d recovery recipient(s) can restore the vault", len(c.Recipients))
}

func (d *Daemon) checkBackups(desk *localapi.Desk) api.Finding {
	if d.Config.Backup.Dir == "" {
		return bad("backup", "name a directory in the configuration, on another disk: [backup] dir", "no backups are made: if this disk dies, every token is lost with it")
	}
	if overdue := desk.Keeper.Overdue(); overdue != "" {
		return bad("backup", "see that "+d.Config.Backup.Dir+" can be written, then: tokendesk vault backup", "a backup is due every %s, and %s", time.Duration(d.Config.Backup.Every), overdue)
	}
	return good("backup", "one is made every %s into %s", time.Duration(d.Config.Backup.Every), d.Config.Backup.Dir)
}

func (d *Daemon) checkShred(c vault.Condition) api.Finding {
	if c.Shred.IsZero() {
		return good("shredding", "no destroyed seed is left in the vault's file")
	}
	after := time.Duration(d.Config.Vault.ShredAfter)
	text := fmt.Sprintf("unused pages of the vault's file hold destroyed seeds, sealed, since %s", c.Shred.UTC().Format(time.RFC3339))
	if time.Since(c.Shred) > 2*after {
		return bad("shredding", "tokendesk vault rotate", "%s", text)
	}
	return good("shredding", "%s; they are shredded %s after that", text, after)
}

func checkWrites(c vault.Condition) api.Finding {
	const format = "%d writes to the TPM's memory so far, of %d that are typically borne"
	if c.Writes > typicalWrites/10*8 {
		return bad("tpm", "plan to move to another board: tokendesk vault move", format, c.Writes, typicalWrites)
	}
	return good("tpm", format, c.Writes, typicalWrites)
}

func checkAudit(desk *localapi.Desk, c vault.Condition) api.Finding {
	if err := desk.Keeper.Heads.Problem(); err != nil {
		return bad("audit", "see that audit.heads can be written", "the signed heads are not shipped: %v", err)
	}
	return good("audit", "%d entries; the key's fingerprint is %s", c.Acts, c.AuditKey.Fingerprint())
}
