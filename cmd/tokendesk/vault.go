package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

const vaultHelp = `The vault holds every seed, sealed to this board's TPM.
lock closes it until "unlock" is given the PIN; a lockout is the TPM's own:
after too many wrong PINs it takes none for a while, nor disk encryption's.
rotate gives the vault new keys and a fresh file, so that no destroyed seed
is left in it; reseeding a token changes the seed on the key itself.
backup writes an encrypted copy, which the identity that is offline opens.
restore makes a vault of it when board or file are lost: every HOTP token
needs a resync then. move takes the vault to another board while this one
works: nothing is lost, no identity is needed, and it closes here.
check proves every record; status says what is so, also while it is locked.`

// vaultCategory holds what is done to the vault as a whole.
const vaultCategory = "Vault"

func vaultCommands() []*cli.Command {
	yes := &cli.BoolFlag{Name: "yes", Usage: "do not ask for confirmation"}
	pinFile := &cli.PathFlag{Name: "pin-file", Usage: "read the PIN from `FILE`, which must be closed to others"}
	pinInput := &cli.BoolFlag{Name: "pin-stdin", Usage: "read the PIN from standard input, a line"}
	noPIN := &cli.BoolFlag{Name: "no-pin", Usage: "have the vault open by itself on this board"}
	newPIN := []cli.Flag{noPIN, pinFile, pinInput}
	identity := &cli.PathFlag{Name: "identity", Usage: "the age identity `FILE` (AGE-SECRET-KEY-...); - is standard input"}
	recipients := &cli.StringSliceFlag{Name: "recipient", Usage: "an age recipient (age1...) that can restore the vault; may be repeated"}
	return []*cli.Command{
		{
			Name: "vault", Usage: "make, unlock, back up, restore and move the vault", Category: vaultCategory, Description: vaultHelp, Action: group,
			Subcommands: []*cli.Command{
				{Name: "status", Usage: "show how the vault is, and while it is locked what waits", Action: vaultStatus},
				{
					Name: "init", Usage: "make a vault, and prove that it can be restored", Action: vaultInit,
					Flags: append([]cli.Flag{recipients, identity,
						&cli.PathFlag{Name: "new-identity", Usage: "make the identity first, into a new `FILE`"}}, newPIN...),
				},
				{Name: "unlock", Usage: "open the vault with its PIN", Action: vaultUnlock, Flags: []cli.Flag{pinFile, pinInput}},
				{Name: "lock", Usage: "close the vault; pushes and cut-offs wait until it is unlocked", Action: vaultLock,
					Flags: []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "interrupt work with keys that is going on; resolve settles it later"}}},
				{
					Name: "change-pin", Usage: "give the vault another PIN, or none; the old one dies with its blob", Action: vaultChangePIN,
					Flags: append([]cli.Flag{&cli.PathFlag{Name: "old-pin-file", Usage: "read the PIN of now from `FILE`"}},
						noPIN, pinFile, &cli.BoolFlag{Name: "pin-stdin", Usage: "read the PIN of now, if there is one, and the new one from standard input, a line each"}),
				},
				{
					Name: "rotate", Usage: "take new keys and a fresh file: destroyed seeds are shredded", Action: vaultRotate,
					Flags: []cli.Flag{
						&cli.StringSliceFlag{Name: "recipient", Usage: "an age recipient that can restore the vault from now on, instead of those of now; may be repeated"}, yes,
					},
				},
				{Name: "check", Usage: "read all of the vault, and prove that it is whole", Action: vaultCheck},
				{
					Name: "backup", Usage: "write an encrypted backup, now", Action: vaultBackup,
					Flags: []cli.Flag{&cli.BoolFlag{Name: "list", Usage: "show the backups that were made instead"}},
				},
				{
					Name: "restore", Usage: "make a vault of a backup, with the identity from offline", ArgsUsage: "BACKUP --identity FILE", Action: vaultRestore,
					Flags: append([]cli.Flag{identity}, newPIN...),
				},
				{
					Name: "move", Usage: "take the vault to another board, while this one works", ArgsUsage: "[FILE]", Action: vaultMove,
					UsageText: moveUsage,
					Flags: []cli.Flag{
						&cli.BoolFlag{Name: "request", Usage: "on the new board: show its fingerprint, and write its request to FILE"},
						&cli.PathFlag{Name: "to", Usage: "on the old board: move to the one that has written `REQUEST`"},
						&cli.PathFlag{Name: "out", Usage: "with --to: the `FILE` that carries the vault"},
						&cli.StringFlag{Name: "fingerprint", Usage: "with --to: the new board's `FINGERPRINT`, as somebody read it on its screen; for scripts"},
						&cli.PathFlag{Name: "accept", Usage: "on the new board: take the vault from `FILE`"},
						&cli.BoolFlag{Name: "cancel", Usage: "on the old board: take the move back"},
						noPIN, pinFile, pinInput, yes,
					},
				},
			},
		},
	}
}

// group is the action of a command that only has others below it.
func group(c *cli.Context) error {
	if c.Args().Present() {
		return usage("there is no %s %s: see %s --help", c.Command.HelpName, c.Args().First(), c.Command.HelpName)
	}
	return cli.ShowSubcommandHelp(c)
}

const vaultPath = "/v1/vault"

func getVault(c *cli.Context) (v api.Vault, err error) {
	return v, daemon(c).Get(c.Context, vaultPath, nil, &v)
}

// askVault has the daemon do something to the vault, says what goes on if it takes a while, and shows what came of it.
func askVault(c *cli.Context, operation, doing string, in any, show func(screen, api.VaultOutcome)) error {
	return vaultOutcome(c, doing, show, func(o *api.VaultOutcome) error {
		return daemon(c).Post(c.Context, vaultPath+"/"+operation, in, o)
	})
}

// tellVault is askVault with secrets, which it wipes.
func tellVault(c *cli.Context, operation, doing string, in any, show func(screen, api.VaultOutcome), secrets ...secret.Secret) error {
	defer wipe(secrets...)
	return vaultOutcome(c, doing, show, func(o *api.VaultOutcome) error {
		return daemon(c).PostSecret(c.Context, vaultPath+"/"+operation, in, o, secrets...)
	})
}

func vaultOutcome(c *cli.Context, doing string, show func(screen, api.VaultOutcome), ask func(*api.VaultOutcome) error) error {
	var o api.VaultOutcome
	stop := working(c, doing)
	err := ask(&o)
	stop()
	if err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(o)
	}
	show(out, o)
	if o.Text != "" {
		out.say("%s", o.Text)
	}
	return nil
}

func vaultLock(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	return askVault(c, "lock", "closing the vault", api.VaultLock{Force: c.Bool("force")}, func(out screen, o api.VaultOutcome) {
		out.done("the vault is %s; open it with: tokendesk vault unlock", o.Vault.State)
		for _, r := range waiting(out, o.Vault) {
			out.wait("%s: %s", r[0], r[1])
		}
	})
}

func vaultCheck(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	return askVault(c, "check", "reading and proving every record", nil, func(out screen, o api.VaultOutcome) {
		out.done("every record of %s is whole and the latest", o.Vault.Path)
	})
}

func vaultRotate(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	names, err := recipients(c.StringSlice("recipient"))
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if err := confirm(c, "From now on only %s restore the vault; those of now still open older backups", these(len(names), "this recipient can", "these %d recipients can")); err != nil {
			return err
		}
	}
	return askVault(c, "rotate", "writing every record anew under new keys", api.VaultRotate{Recipients: names}, func(out screen, o api.VaultOutcome) {
		out.done("the vault has new keys and a fresh file; nothing of a destroyed seed is left in it")
		if o.Vault.Backups > 0 {
			out.wait("backups that were made before open as before: make a new one, and see tokendesk vault backup --list")
		}
	})
}

func vaultBackup(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	if c.Bool("list") {
		return listBackups(c)
	}
	return askVault(c, "backup", "writing the backup", nil, func(out screen, o api.VaultOutcome) {
		if o.Backup == nil {
			out.done("the backup is written")
			return
		}
		out.done("%s: %s, of epoch %s", o.Backup.Name, size(o.Backup.Size), thousands(o.Backup.Epoch))
		out.say("It is encrypted to the recovery recipients: copy it to another machine.")
	})
}

func listBackups(c *cli.Context) error {
	var found api.Backups
	if err := daemon(c).Get(c.Context, vaultPath+"/backups", nil, &found); err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(found)
	}
	if len(found.Backups) == 0 {
		out.say("No backup was made yet: tokendesk vault backup")
		return nil
	}
	var rows []row
	for _, b := range found.Backups {
		rows = append(rows, row{[]string{moment(b.Time), ago(b.Time), size(b.Size), thousands(b.Epoch), backupNote(out, b)}, harmless(b.Name)})
	}
	out.table([]string{"MADE", "AGE", "SIZE", "EPOCH", "NOTE"}, rows)
	return nil
}

func backupNote(out screen, b api.Backup) string {
	var note string
	if b.Held > 0 {
		note = out.paint(colourOfTrouble, "holds "+these(b.Held, "1 destroyed seed", "%d destroyed seeds"))
	}
	switch {
	case b.There:
		return note
	case note == "":
		return "no longer there"
	}
	return note + "; no longer there"
}

// these says how many.
func these(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return strings.Replace(many, "%d", thousands(uint64(n)), 1)
}

// ago is how long ago something was, roughly.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return these(int(d.Minutes()), "1 minute", "%d minutes")
	case d < 48*time.Hour:
		return these(int(d.Hours()), "1 hour", "%d hours")
	}
	return these(int(d.Hours()/24), "1 day", "%d days")
}

// size is a number of bytes, roughly.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%s MiB", thousands(uint64(n>>20)))
}

// thousands is a number as people read it.
func thousands(n uint64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
