package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/cmd/internal/world"
)

// A mutant is the program with one thing left out. The story must not go through with it.
type mutant struct {
	name     string
	file     string // in package provision
	old, new string // every occurrence is replaced; there must be one
	fails    string // what the story must complain of
}

var mutants = []mutant{
	{
		name: "reseed left out", file: "reissue.go",
		old: "seed := p.freshSeed()",
		new: `seed, err := tx.Seed(t.ID, t.Generation)
	if err != nil {
		return err
	}`,
		fails: "this seed has been here before", // the vault itself notices
	},
	{
		name: "cut-off left out", file: "reissue.go",
		old:   "change, err := w.push(tx, t, vault.Unassign, t.Owner)",
		new:   "change, err := vault.Change{}, error(nil)",
		fails: "server 1 accepts alice's password",
	},
	{
		name: "push left out", file: "steps.go",
		old:   "if _, err := w.push(tx, t, vault.Put, t.Owner); err != nil || t.Owner == \"\" {",
		new:   "if true {",
		fails: "server 1 refuses alice's password",
	},
}

func TestStory(t *testing.T) {
	bin := t.TempDir()
	if err := world.Build(bin, false); err != nil {
		t.Fatal(err)
	}
	if out, err := tell(t, bin); err != nil {
		t.Fatalf("the story fails with the program as it is: %v\n%s", err, out)
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			mutated := t.TempDir()
			if err := world.Build(mutated, false, "-overlay", m.overlay(t)); err != nil {
				t.Fatal(err)
			}
			out, err := tell(t, mutated)
			if err == nil {
				t.Fatalf("the story does not notice:\n%s", out)
			}
			if !strings.Contains(err.Error(), m.fails) {
				t.Fatalf("the story fails, but for another reason: %v\n%s", err, out)
			}
		})
	}
}

func tell(t *testing.T, bin string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	w, err := world.Start(options(bin))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	}()
	var out bytes.Buffer
	err = (&story{w, &out}).play(ctx)
	return out.String(), err
}

// overlay has the compiler see the mutated file; the tree stays as it is.
func (m mutant) overlay(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../../provision", m.file))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%s has %q %d times: adapt the mutant", m.file, m.old, n)
	}
	changed := filepath.Join(t.TempDir(), m.file)
	if err := os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
