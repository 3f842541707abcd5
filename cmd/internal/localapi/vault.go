package localapi

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

func (d *Desk) vaultInit(ctx context.Context, in api.VaultInit, s []secret.Secret) (api.VaultOutcome, error) {
	by := officer(ctx)
	err := d.Keeper.Replace(ctx, func() error {
		return d.Vault.Init(vault.Setup{PIN: s[0], Recipients: in.Recipients, Identity: s[1], By: by})
	})
	return d.openNew(by, s[0], err)
}

func (d *Desk) vaultRestore(ctx context.Context, in api.VaultRestore, s []secret.Secret) (api.VaultOutcome, error) {
	by := officer(ctx)
	err := d.Keeper.Replace(ctx, func() error {
		return d.Vault.Restore(in.Backup, s[1], vault.Setup{PIN: s[0], By: by})
	})
	return d.openNew(by, s[0], err)
}

// openNew opens a vault that has just been made, unless that has failed.
func (d *Desk) openNew(by audit.Officer, pin secret.Secret, err error) (api.VaultOutcome, error) {
	if err == nil {
		err = d.Keeper.Unlock(pin, by)
	}
	return d.vaultOutcome("", err)
}

func (d *Desk) vaultUnlock(ctx context.Context, _ nothing, s []secret.Secret) (api.VaultOutcome, error) {
	if d.Keeper.IsOpen() {
		return d.vaultOutcome("it was open already", nil)
	}
	return d.vaultOutcome("", d.Keeper.Unlock(s[0], officer(ctx)))
}

type lockBody struct {
	Body *api.VaultLock
}

func (d *Desk) vaultLock(ctx context.Context, in *lockBody) (api.VaultOutcome, error) {
	return d.vaultOutcome("", d.Keeper.Lock(ctx, officer(ctx), in.Body != nil && in.Body.Force))
}

func (d *Desk) vaultChangePIN(ctx context.Context, _ nothing, s []secret.Secret) (api.VaultOutcome, error) {
	return d.vaultOutcome("", d.Keeper.Alone(func() error { return d.Vault.ChangePIN(s[0], s[1], act(ctx)) }))
}

type rotateBody struct {
	Body *api.VaultRotate
}

func (d *Desk) vaultRotate(ctx context.Context, in *rotateBody) (api.VaultOutcome, error) {
	var recipients []string
	if in.Body != nil {
		recipients = in.Body.Recipients
	}
	return d.vaultOutcome("", d.Vault.Rotate(act(ctx), recipients))
}

func (d *Desk) vaultCheck(context.Context, *nothing) (api.VaultOutcome, error) {
	return d.vaultOutcome("", d.Vault.Check())
}

func (d *Desk) vaultBackup(ctx context.Context, _ *nothing) (api.VaultOutcome, error) {
	b, err := d.Keeper.Backup(officer(ctx))
	out, err := d.vaultOutcome("", err)
	if err == nil {
		shown := backupOf(b)
		out.Backup = &shown
	}
	return out, err
}

func (d *Desk) vaultMove(ctx context.Context, in api.VaultMove, s []secret.Secret) (api.VaultOutcome, error) {
	by, pin := officer(ctx), s[0]
	switch in.Step {
	case "request":
		return d.moveRequest()
	case "out":
		return d.vaultOutcome("", d.moveOut(ctx, in, pin))
	case "in":
		err := d.Keeper.Replace(ctx, func() error { return d.Vault.MoveIn(in.File, vault.Setup{PIN: pin, By: by}) })
		return d.openNew(by, pin, err)
	}
	err := d.Keeper.Replace(ctx, func() error { return d.Vault.CancelMove(pin, act(ctx)) })
	return d.openNew(by, pin, err)
}

// moveRequest is for a board that a vault is to come to. Beside an open vault, the TPM may be in use.
func (d *Desk) moveRequest() (api.VaultOutcome, error) {
	if d.Keeper.IsOpen() {
		return d.vaultOutcome("", errors.New("this desk has a vault: a move is asked for by the board that is to get one"))
	}
	if d.Board.Parent == nil {
		return d.vaultOutcome("", errors.New(`a vault moves to a TPM: say seal = "tpm" in the configuration, or restore a backup`))
	}
	parent, err := d.Board.Parent()
	if err != nil {
		return d.vaultOutcome("", err)
	}
	fingerprint, err := d.Board.Fingerprint(parent)
	out, err := d.vaultOutcome("", err)
	out.Parent, out.Fingerprint = parent, fingerprint
	return out, err
}

func (d *Desk) moveOut(ctx context.Context, in api.VaultMove, pin secret.Secret) error {
	fingerprint, err := d.Board.Fingerprint(in.Parent)
	if err != nil {
		return err
	}
	if plain := strings.NewReplacer(" ", "", "\n", ""); !strings.EqualFold(plain.Replace(in.Fingerprint), plain.Replace(fingerprint)) {
		return errors.New("the fingerprint is not that of the new board's request: read it on that board's own screen, and let nobody carry it with the request")
	}
	return d.Keeper.Replace(ctx, func() error {
		if d.Vault.Condition().State == vault.StateMoved {
			return d.Vault.MoveOutAgain(pin, in.File, in.Parent, fingerprint, d.Board.Wrap, act(ctx))
		}
		return d.Vault.MoveOut(in.File, in.Parent, fingerprint, d.Board.Wrap, act(ctx))
	})
}

func act(ctx context.Context) audit.Act { return audit.Act{Officer: officer(ctx)} }

// vaultOutcome tells how the vault is after an operation. What an operation refuses without a name of its own is said in
// the vault's words: they are for people, and about what was asked or about the disk.
func (d *Desk) vaultOutcome(text string, err error) (api.VaultOutcome, error) {
	if err == nil {
		return api.VaultOutcome{Vault: d.vault(), Text: text}, nil
	}
	known := d.classified(err)
	if known == nil {
		code := api.Refused
		if system := syscall.Errno(0); errors.As(err, &system) && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			code = api.VaultTrouble
		}
		known = api.Errorf(code, "%v", err)
	}
	return api.VaultOutcome{}, known
}

func (d *Desk) vaultState(context.Context, *nothing) (api.Vault, error) { return d.vault(), nil }

// vault tells how the vault is, whatever its state.
func (d *Desk) vault() api.Vault {
	c := d.Vault.Condition()
	if c.State == vault.StateOpen {
		return d.openVault(c)
	}
	waiting, err := d.Vault.Peek() // waits for an attempt to open it
	if c = d.Vault.Condition(); c.State == vault.StateOpen {
		return d.openVault(c)
	}
	out := api.Vault{State: string(c.State), Path: d.Vault.Path(), Recipients: []string{}, Unlocked: unlockedMemory()}
	switch problem := d.Keeper.Problem(); {
	case c.Err != nil:
		out.Problem, out.Cure = c.Err.Err.Error(), c.Err.Cure
		if !c.Err.Until.IsZero() {
			out.Until = &c.Err.Until
		}
		if c.State == vault.StateWrongPIN || c.State == vault.StateLockout {
			out.Guesses = &c.Err.Left
		}
	case problem != nil:
		out.Problem = problem.Error()
	default:
		out.Problem, out.Cure = d.Vault.Path()+" is locked", "unlock it: tokendesk vault unlock"
	}
	if err == nil {
		out.ID, out.PIN, out.Level, out.Means = waiting.ID, waiting.PIN, string(waiting.Level), waiting.Level.Describe(waiting.PIN)
		out.Waiting = waitingOf(waiting)
	}
	return out
}

func waitingOf(w vault.Waiting) *api.Waiting {
	out := &api.Waiting{Tokens: w.Tokens, Changes: len(w.Changes), Jobs: len(w.Jobs), CutOffs: []api.Change{}}
	for _, c := range w.Changes {
		if c.Kind.CutOff() {
			out.CutOffs = append(out.CutOffs, changeOf(c))
		}
	}
	return out
}

func (d *Desk) openVault(c vault.Condition) api.Vault {
	out := api.Vault{
		State: string(c.State), ID: c.ID, Path: d.Vault.Path(), Level: string(c.Level), PIN: c.PIN, Means: c.Level.Describe(c.PIN),
		Epoch: c.Epoch, Writes: c.Writes, Recipients: append([]string{}, c.Recipients...), AuditKey: c.AuditKey.String(), Acts: c.Acts,
		Unlocked: unlockedMemory(),
	}
	if left, until, ok := d.Vault.Guesses(); ok {
		out.Guesses = &left
		if !until.IsZero() {
			out.Until = &until
		}
	}
	if !c.Shred.IsZero() {
		out.Shred = &c.Shred
	}
	made, err := d.madeBackups()
	out.Overdue = d.Keeper.Overdue()
	if out.Backups = len(made); err == nil && len(made) > 0 {
		newest := backupOf(made[0])
		out.Backup = &newest
	}
	return out
}

func unlockedMemory() string {
	if problem := secret.Memory().Problem; problem != nil {
		return problem.Error()
	}
	return ""
}

func (d *Desk) madeBackups() (made []vault.Backup, err error) {
	err = d.Vault.View(func(tx *vault.Tx) error {
		made, err = tx.Backups()
		return err
	})
	return made, err
}

func (d *Desk) backups(context.Context, *nothing) (api.Backups, error) {
	out := api.Backups{Backups: []api.Backup{}}
	made, err := d.madeBackups()
	for _, b := range made {
		out.Backups = append(out.Backups, backupOf(b))
	}
	return out, err
}

func backupOf(b vault.Backup) api.Backup {
	return api.Backup{Name: b.Path(), Time: b.Time, Epoch: b.Epoch, Size: b.Size, There: b.There(), Held: int(b.Since)}
}
