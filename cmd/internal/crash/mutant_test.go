package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant is the daemon with something in the wrong order. Crashes must show it.
type mutant struct {
	name     string
	scenario string
	only     string // the kind of calls where it shows
	every    int
	edits    []edit
	loses    string // what the loss must say
}

// edit replaces the only occurrence of a text, in a file of the module. One build has all edits: Mutant, a variable of
// package vault, says which take effect.
type edit struct{ file, old, new string }

var mutants = []mutant{
	{
		name: "the key is programmed before the seed is sealed", scenario: "enroll", only: "key", every: 6,
		loses: "the key holds a seed that the vault does not",
		edits: []edit{
			{"provision/enroll.go", "	code = secret.Random(device.AccessCodeSize)\n", `$0	if !unsealedCode.IsZero() {
		code = unsealedCode.Clone()
	}
`},
			{"provision/enroll.go", "seed := randomSeed()\n", `$0	if !unsealedSeed.IsZero() {
		seed = unsealedSeed.Clone()
	}
`},
			{"provision/enroll.go", "func enrollPlan() []step {\n", `var unsealedSeed, unsealedCode secret.Secret

func early(ctx context.Context, w *work) error {
	unsealedSeed, unsealedCode = secret.Random(seedSize), secret.Random(device.AccessCodeSize)
	return w.device.Program(ctx, device.HOTPConfig{
		Seed: unsealedSeed.Clone(), Digits: w.params.Digits, Enter: w.params.Enter, NewAccessCode: unsealedCode.Clone(),
	})
}

func enrollPlan() []step {
	plan := orderedPlan()
	if $MUTANT {
		plan[0].device, plan[0].act = true, early
	}
	return plan
}

func orderedPlan() []step {
`},
		},
	},
	{
		name: "the record is removed before the slot is erased", scenario: "undo", only: "key", every: 2,
		loses: "the key still holds a seed, and its access code is lost",
		edits: []edit{
			{"provision/resolve.go", "	err = t.Delete(ctx, code)\n", `	if $MUTANT {
		err = w.Vault.Update(func(tx *vault.Tx) error { return errors.Join(tx.DeleteJob(w.job.ID), tx.DeleteToken(w.job.Token)) })
		if err != nil {
			return false, err
		}
	}
$0`},
			{"provision/resolve.go", "		if err := tx.DeleteJob(w.job.ID); err != nil {\n", "		if $MUTANT {\n			return nil\n		}\n$0"},
		},
	},
	{
		name: "a change leaves the outbox before it is delivered", scenario: "push", only: "directory", every: 1,
		loses: "the vault gives the token to",
		edits: []edit{
			{"sync/deliver.go", "	\"errors\"\n", "$0	\"tokendesk/vault\"\n"},
			{"sync/deliver.go", "		out.seen, err = p.c.Apply(", `		if $MUTANT {
			err = p.v.Update(func(tx *vault.Tx) error { return tx.DeleteChange(a.change.Seq) })
			if err != nil {
				return err
			}
		}
$0`},
		},
	},
	{
		name: "the vault is not synced", scenario: "push", only: "vault", every: 2,
		loses: "the vault does not open",
		edits: []edit{{"vault/file.go", "NoStatistics: true,", "$0 NoSync: $MUTANT,"}},
	},
	{
		name: "the effect is let out before the TPM's counter follows", scenario: "enroll", only: "key", every: 3,
		loses: "from before the operation opens, and something of that is outside: the key holds a seed that the vault does not",
		edits: []edit{
			{"vault/session.go", "	return s.raise()\n}", `	if $MUTANT {
		var err error
		if s.owes {
			err = s.raise()
		}
		s.owes, s.counter = true, s.ledger.Epoch
		return err
	}
$0`},
			{"vault/session.go", "type session struct {", "$0\n	owes bool"},
		},
	},
	{
		name: "a new file gets its name before it is synced", scenario: "rotate", only: kindIncrement, every: 1,
		loses: "it is corrupt",
		edits: []edit{
			{"vault/create.go", "	s.db.NoSync = false\n", "	s.db.NoSync = $MUTANT\n"},
			{"vault/create.go", "	if err := s.guard(s.db.Sync)", "	if $MUTANT {\n		return nil\n	}\n$0"},
		},
	},
	{
		name: "the old seals die before the new file is in place", scenario: "rotate", only: "new vault", every: 6,
		loses: "it is rollback-suspected",
		edits: []edit{{"vault/rotate.go", "	err = createFile(v.path, true, ", `	if a := s.anchor(); a != nil && $MUTANT {
		if err := a.Increment(s.header().Anchor.Generation, s.auth); err != nil {
			return err
		}
	}
$0`}},
	},
}

// mutantVariable tells the mutated daemon which mutant it is.
const mutantVariable = "TOKENDESK_CRASH_MUTANT"

const mutantSource = `package vault

import "os"

// Mutant is the mutant that this daemon is.
var Mutant = os.Getenv("` + mutantVariable + `")
`

func TestMutants(t *testing.T) {
	t.Parallel()
	dir := buildMutants(t)
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			var said, out bytes.Buffer
			o := options{bin: dir, only: m.only, every: m.every, seed: 1, jobs: 2, first: true, log: log.New(&said, "", 0),
				environment: []string{mutantVariable + "=" + m.name}}
			err := run(t.Context(), o, m.scenario, &out)
			if err == nil || !strings.Contains(out.String(), "LOST "+m.scenario) {
				t.Fatalf("no crash shows it: %v\n%s%s", err, &said, &out)
			}
			t.Log(out.String())
			if !strings.Contains(out.String(), m.loses) {
				t.Errorf("something else is lost:\n%s", &out)
			}
		})
	}
}

// buildMutants makes the mutated daemon; the tree stays as it is.
func buildMutants(t *testing.T) (dir string) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	changed := map[string]string{filepath.Join(root, "vault", "mutant.go"): mutantSource} // by path, its text
	for _, m := range mutants {
		for _, e := range m.edits {
			path := filepath.Join(root, e.file)
			text, found := changed[path]
			if !found {
				source, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				text = string(source)
			}
			if n := strings.Count(text, e.old); n != 1 {
				t.Fatalf("%s has %q %d times: adapt the mutant", e.file, e.old, n)
			}
			changed[path] = strings.Replace(text, e.old, m.fill(e), 1)
		}
	}
	replace := map[string]string{}
	for path, text := range changed {
		replace[path] = filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(path, root+"/"), "/", "-"))
		write(t, replace[path], text)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay"), string(overlay))
	cmd := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay"), "-o", dir+"/", "tokendesk/cmd/tokendeskd")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, program := range []string{"tokendesk", "tokenemu"} {
		if err := os.Symlink(filepath.Join(bin, program), filepath.Join(dir, program)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fill is what an edit replaces its old text by: $0 stands for that, $MUTANT for the question whether it takes effect.
func (m mutant) fill(e edit) string {
	variable := "vault.Mutant"
	if strings.HasPrefix(e.file, "vault/") {
		variable = "Mutant"
	}
	return strings.NewReplacer("$0", e.old, "$MUTANT", fmt.Sprintf("%s == %q", variable, m.name)).Replace(e.new)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
