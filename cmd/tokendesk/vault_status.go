package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/vault/audit"
)

// enduredWrites is how many writes a TPM's memory is rated for, roughly. None tells its own figure.
const enduredWrites = 500_000

const colourOfTrouble = text.FgRed

// states says in words what a state means, where the state's name does not.
var states = map[string]string{
	"locked":             "it waits to be unlocked",
	"absent":             "there is none yet",
	"in-use":             "another program holds its file",
	"da-lockout":         "the TPM takes no PIN for a while",
	"tpm-absent":         "no TPM answers",
	"tpm-changed":        "this is not the TPM that sealed it, or it was cleared",
	"permission":         "the desk may not use its file or the TPM",
	"rollback-suspected": "it is older than the TPM's counter says",
	"counter-lost":       "the TPM's counter is gone",
	"corrupt":            "it is damaged or was tampered with",
	"newer-format":       "a later version wrote it",
	"wrong-sealer":       "it is sealed in another way than the configuration says",
	"moved":              "it was moved to another board",
}

func vaultStatus(c *cli.Context) error {
	if _, err := arguments(c); err != nil {
		return err
	}
	v, err := getVault(c)
	if err != nil {
		return err
	}
	out := output(c)
	if out.json {
		return out.printJSON(v)
	}
	out.fields(vaultRows(out, v))
	return nil
}

// vaultRows is all that there is to say about a vault.
func vaultRows(out screen, v api.Vault) [][2]string {
	rows := vaultState(out, v)
	add := func(name, format string, args ...any) {
		rows = append(rows, [2]string{name, fmt.Sprintf(format, args...)})
	}
	if v.ID != "" {
		add("ID", "%s", v.ID)
	}
	if v.Means != "" {
		add("Protection", "%s", v.Means)
	}
	if line := guesses(out, v); line != "" {
		add(titled(v), "%s", line)
	}
	if v.Writes > 0 {
		line := fmt.Sprintf("epoch %s; %s of about %s writes to its memory used", thousands(v.Epoch), thousands(v.Writes), thousands(enduredWrites))
		if v.Writes > enduredWrites/10*8 {
			line = out.paint(text.FgYellow, line+": plan for another board")
		}
		add("TPM", "%s", line)
	} else if v.Epoch > 0 {
		add("Epoch", "%s", thousands(v.Epoch))
	}
	if len(v.Recipients) > 0 {
		var short []string
		for _, r := range v.Recipients {
			short = append(short, shortened(harmless(r)))
		}
		add("Recovery", "%s", strings.Join(short, "\n"))
	}
	if v.State == "open" || v.Backup != nil || v.Overdue != "" {
		add("Backup", "%s", backupLine(out, v))
	}
	if v.Shred != nil {
		add("Destroyed", "%s", out.paint(text.FgYellow, fmt.Sprintf(
			"seeds destroyed since %s are still in the file's unused pages, sealed; shred them now: tokendesk vault rotate", moment(*v.Shred))))
	}
	if v.AuditKey != "" {
		add("Audit", "%s under key %s", these(int(v.Acts), "1 entry", "%d entries"), fingerprint(v.AuditKey))
	}
	if v.Unlocked != "" {
		add("Memory", "%s", out.paint(text.FgYellow, v.Unlocked))
	}
	return rows
}

// vaultState is what matters first: the state, why it is so, what helps, and what waits meanwhile.
func vaultState(out screen, v api.Vault) [][2]string {
	rows := [][2]string{{"Vault", fmt.Sprintf("%s at %s", out.vaultState(v.State), v.Path)}}
	if v.State == "open" {
		return rows
	}
	if v.Problem != "" {
		rows = append(rows, [2]string{"Why", harmless(v.Problem)})
	}
	if v.Cure != "" {
		rows = append(rows, [2]string{"Cure", harmless(v.Cure)})
	}
	return append(rows, waiting(out, v)...)
}

// vaultState is a state in colour, with words where its name does not explain it.
func (s screen) vaultState(state string) string {
	colour := colourOfTrouble
	switch state {
	case "open":
		colour = text.FgGreen
	case "locked", "absent", "in-use", "moved":
		colour = text.FgYellow
	}
	line := s.paint(colour, strings.ToUpper(state))
	if state == "open" {
		line = s.paint(colour, state)
	}
	if words := states[state]; words != "" {
		line += " (" + words + ")"
	}
	return line
}

// waiting is what waits for the vault to be unlocked: who is not cut off, by name, and then the rest.
func waiting(out screen, v api.Vault) (rows [][2]string) {
	w := v.Waiting
	if w == nil {
		return nil
	}
	for _, ch := range w.CutOffs {
		who := "whoever has it"
		if ch.User != "" {
			who = harmless(ch.User)
		}
		line := fmt.Sprintf("%s CAN STILL LOG IN with %s since %s", who, harmless(ch.Token), moment(ch.Created))
		rows = append(rows, [2]string{"Cut-off", out.paint(colourOfTrouble, line)})
	}
	line := fmt.Sprintf("%s, %s, %s; read without keys and so unproven",
		these(w.Tokens, "1 token", "%d tokens"), these(w.Changes, "1 change for the central service", "%d changes for the central service"),
		these(w.Jobs, "1 piece of unfinished work", "%d pieces of unfinished work"))
	return append(rows, [2]string{"Waiting", line})
}

// secretWord is what opens the vault.
func secretWord(v api.Vault) string {
	if v.Level == "passphrase" {
		return "passphrase"
	}
	return "PIN"
}

func titled(v api.Vault) string {
	return strings.ToUpper(secretWord(v)[:1]) + secretWord(v)[1:]
}

// guesses says what the TPM bears. Its count is the chip's, and not the vault's.
func guesses(out screen, v api.Vault) string {
	switch {
	case v.Until != nil && v.Until.After(time.Now()):
		return out.paint(colourOfTrouble, fmt.Sprintf("the TPM takes none before %s, for disk encryption on the same chip neither", moment(*v.Until)))
	case v.Guesses == nil:
		return ""
	}
	line := these(*v.Guesses, "1 wrong guess is", "%d wrong guesses are") + " left; " + sharedCount
	if *v.Guesses <= 2 {
		line = out.paint(colourOfTrouble, line)
	}
	return line
}

const sharedCount = "the TPM counts those of disk encryption on the same chip, too"

func backupLine(out screen, v api.Vault) string {
	line := out.paint(text.FgYellow, "none yet: tokendesk vault backup")
	if b := v.Backup; b != nil {
		old := "just made"
		if a := ago(b.Time); a != "now" {
			old = a + " old, of " + moment(b.Time)
		}
		line = fmt.Sprintf("%s, %s: %s", old, size(b.Size), harmless(b.Name))
		if !b.There {
			line += out.paint(text.FgYellow, " (no longer there)")
		}
	}
	if v.Overdue != "" {
		line += "\n" + out.paint(colourOfTrouble, "OVERDUE: "+v.Overdue)
	}
	return line
}

// shortened is the beginning and the end of a recipient, by which people know it.
func shortened(recipient string) string {
	if len(recipient) <= 24 {
		return recipient
	}
	return recipient[:12] + "…" + recipient[len(recipient)-8:]
}

// fingerprint is that of an audit key.
func fingerprint(key string) string {
	k, err := audit.ParseKey(key)
	if err != nil {
		return harmless(key)
	}
	return k.Fingerprint()
}

// harmless replaces what could act on a terminal. What a locked vault shows is read without keys: anybody may have written it.
func harmless(words string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return unicode.ReplacementChar
		}
		return r
	}, words)
}
