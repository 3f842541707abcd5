package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/secret"
)

const pinModes = `With a PIN, the vault stays closed after each start until somebody unlocks it: a stolen board is not enough.
Without one (--no-pin), it opens by itself: any process with the TPM and the file can open it.`

func vaultInit(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	file := c.Path("identity")
	switch fresh := c.Path("new-identity"); {
	case (file == "") == (fresh == ""):
		return usage("name the identity that can restore the vault: --identity FILE, as age-keygen makes it, or --new-identity FILE to make one")
	case fresh != "":
		file = fresh
	}
	names, err := recipients(c.StringSlice("recipient"))
	if err != nil {
		return err
	}
	v, err := getVault(c)
	if err != nil {
		return err
	}
	if v.State != "absent" {
		return api.Errorf(api.Refused, "there is a vault at %s, and it is %s: nothing is put over it; tokendesk vault status tells more", v.Path, v.State)
	}
	if c.IsSet("new-identity") {
		if err := newIdentity(file); err != nil {
			return err
		}
	}
	identity, err := readIdentity(c, file)
	if err != nil {
		return err
	}
	defer identity.Wipe()
	own, err := recipientsOf(identity)
	if err != nil {
		return err
	}
	for _, name := range own {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	p, err := firstPIN(c)
	if err != nil {
		return remainingIdentity(c, err)
	}
	err = tellVault(c, "init", "making the vault, and restoring it on trial", api.VaultInit{Recipients: names}, func(out screen, o api.VaultOutcome) {
		out.done("the vault is made at %s, and was restored on trial with the identity", o.Vault.Path)
		out.say("%s", takeOffline(file))
		if o.Vault.State != "open" {
			out.wait("it is %s: tokendesk vault unlock", o.Vault.State)
		}
	}, p, identity)
	return remainingIdentity(c, err)
}

// firstPIN asks for the PIN of a vault that is to be made, and explains what that decides.
func firstPIN(c *cli.Context) (secret.Secret, error) {
	if errs := screenOn(c.App.ErrWriter); errs.terminal {
		errs.say("%s", pinModes)
	}
	return newPIN(c, "PIN or passphrase") // which of them it is called, the configuration knows
}

func takeOffline(file string) string {
	if file == "-" {
		file = "the identity"
	}
	return fmt.Sprintf("Take %s offline now: onto a medium that is locked away, and off this machine (shred -u). "+
		"Who has it and a backup has every seed; without it, a broken board takes all tokens along.", file)
}

// remainingIdentity says that an identity that was just made is still there after a failure.
func remainingIdentity(c *cli.Context, err error) error {
	known := (*api.Error)(nil)
	if file := c.Path("new-identity"); file != "" && errors.As(err, &known) {
		return api.Errorf(known.Code, "%s; the new identity is kept: go on with --identity %s", known.Message, file)
	}
	return err
}

func vaultUnlock(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	v, err := getVault(c)
	if err != nil {
		return err
	}
	out := output(c)
	if given := c.IsSet("pin-file") || c.Bool("pin-stdin"); given && !out.json && (!v.PIN || v.State == "open") {
		out.wait("the %s that was given was not looked at", secretWord(v))
	}
	if v.State == "open" {
		if out.json {
			return out.printJSON(api.VaultOutcome{Vault: v})
		}
		out.done("the vault is open already")
		return nil
	}
	p, err := presentPIN(c, v)
	if err != nil {
		return err
	}
	err = tellVault(c, "unlock", "opening the vault", nil, func(out screen, o api.VaultOutcome) {
		out.done("the vault is %s", o.Vault.State)
		if w := v.Waiting; w != nil && len(w.CutOffs) > 0 {
			out.wait("%s pushed now: tokendesk outbox", these(len(w.CutOffs), "1 cut-off is", "%d cut-offs are"))
		}
	}, p)
	return guessed(c, err)
}

// presentPIN asks for the PIN that the vault has, unless it has none or the TPM takes none now.
func presentPIN(c *cli.Context, v api.Vault) (p secret.Secret, err error) {
	if v.Until != nil && v.Until.After(time.Now()) {
		return p, api.Errorf(api.VaultTrouble, "the TPM takes no PIN before %s: too many were wrong, of the vault or of disk encryption on the same chip; nothing was tried", moment(*v.Until))
	}
	if !v.PIN {
		return p, nil
	}
	errs := screenOn(c.App.ErrWriter)
	if v.Guesses != nil && errs.terminal {
		errs.say("%s", guesses(errs, v))
	}
	p, _, err = pin(c, titled(v))
	if err == nil && p.IsZero() {
		err = usage("the %s is empty; nothing was tried", secretWord(v))
	}
	return p, err
}

// guessed adds to a refusal of a PIN, which says how many more may be tried, what else is counted with it.
func guessed(c *cli.Context, err error) error {
	known := (*api.Error)(nil)
	if !errors.As(err, &known) || known.Code != api.VaultTrouble {
		return err
	}
	if v, askErr := getVault(c); askErr != nil || v.Guesses == nil {
		return err
	}
	return api.Errorf(known.Code, "%s; %s", known.Message, sharedCount)
}

func vaultChangePIN(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	if c.Bool("pin-stdin") && c.IsSet("old-pin-file") {
		return usage("with --pin-stdin both PINs come from standard input")
	}
	v, err := getVault(c)
	if err != nil {
		return err
	}
	var old secret.Secret
	if file := c.Path("old-pin-file"); file != "" && v.PIN {
		old, err = secretFile(file)
	} else if c.IsSet("pin-file") && v.PIN {
		err = usage("name the file of the PIN of now with --old-pin-file, too")
	} else {
		old, err = presentPIN(c, v)
	}
	if err != nil {
		return err
	}
	defer old.Wipe()
	p, err := newPIN(c, secretWord(v))
	if err != nil {
		return err
	}
	err = tellVault(c, "change-pin", "sealing the vault anew", nil, func(out screen, o api.VaultOutcome) {
		if !o.Vault.PIN {
			out.done("the vault has no PIN any more, and opens by itself on this board")
			return
		}
		out.done("the vault has a new %s; the old one opens nothing here any more", secretWord(o.Vault))
	}, old, p)
	return guessed(c, err)
}

func vaultRestore(c *cli.Context) error {
	args, err := arguments(c, "backup")
	if err != nil {
		return err
	}
	file := c.Path("identity")
	if file == "" {
		return usage("name the identity that opens the backup: --identity FILE, or - for standard input")
	}
	backup, err := filepath.Abs(args[0])
	if err != nil {
		return usage("cannot tell where %s is: %v", args[0], err)
	}
	identity, err := readIdentity(c, file)
	if err != nil {
		return err
	}
	defer identity.Wipe()
	if _, err := recipientsOf(identity); err != nil {
		return err
	}
	p, err := firstPIN(c)
	if err != nil {
		return err
	}
	return tellVault(c, "restore", "restoring every record", api.VaultRestore{Backup: backup}, func(out screen, o api.VaultOutcome) {
		out.done("the vault is restored at %s, with new keys and an ID of its own", o.Vault.Path)
		out.wait("the counters are as old as the backup: every HOTP token is to be resynced before use, with tokendesk resync; tokendesk list shows which")
		out.wait("changes for the central service that waited then are parked, but for cut-offs: look at them with tokendesk outbox")
		if o.Vault.AuditKey != "" {
			out.wait("its audit key is %s: it must be that of the lost vault, for whoever knows a recipient can make a backup", fingerprint(o.Vault.AuditKey))
		}
		out.say("%s", takeOffline(file))
	}, p, identity)
}
