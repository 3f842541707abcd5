package tracer

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const pageSize = 4096

// writePage overwrites a page of a file as a database does.
func writePage(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "page"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{'n'}, pageSize), pageSize); err != nil {
		return err
	}
	return f.Sync()
}

func TestTearsAWrite(t *testing.T) {
	tr, dir := start(t), t.TempDir()
	page := filepath.Join(dir, "page")
	if err := os.WriteFile(page, bytes.Repeat([]byte{'o'}, 3*pageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := trace(t, tr, "page", dir, Plan{Kill: 1, Torn: true})
	if !r.Killed || !r.Torn || err == nil || r.Last().Offset != pageSize || r.Last().Size != pageSize {
		t.Fatalf("%+v %v", r, err)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(bytes.Repeat([]byte{'o'}, pageSize), bytes.Repeat([]byte{'n'}, pageSize/2), bytes.Repeat([]byte{'o'}, pageSize*3/2))
	if !bytes.Equal(got, want) {
		t.Error("the page is not torn in the middle")
	}
}

// writeUnsynced syncs the first block of a file, and not the next sixteen.
func writeUnsynced(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, "file"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range 17 {
		if _, err := f.WriteAt([]byte("new!"), int64(4*i)); err != nil {
			return err
		}
		if i == 0 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
	return os.Rename(f.Name(), f.Name()+".2") // is killed
}

func TestLosesWhatIsNotSynced(t *testing.T) {
	tr := start(t)
	lost := map[int]bool{}
	for seed := range uint64(10) {
		dir := t.TempDir()
		name := filepath.Join(dir, "file")
		if err := os.WriteFile(name, []byte(strings.Repeat("old.", 10)), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := trace(t, tr, "lose", dir, Plan{Kill: 19, Unsynced: true, Seed: seed})
		if !r.Killed || err == nil || r.Last().Name != "renameat" {
			t.Fatalf("%+v %v", r, err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if text := string(got); !strings.HasPrefix(text, "new!") || len(text) != 4*17 || 17-strings.Count(text, "new!") != r.Lost {
			t.Errorf("%d writes were lost, and %q is left", r.Lost, text)
		}
		lost[r.Lost] = true
	}
	if len(lost) < 3 || lost[17] {
		t.Errorf("always the same is lost: %v", lost)
	}
}

// renameUnsynced replaces a file three times, and syncs the directory after the first.
func renameUnsynced(dir string) error {
	for _, text := range []string{"first", "second", "third"} {
		name := filepath.Join(dir, "file.new")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			return err
		}
		if err := os.Rename(name, filepath.Join(dir, "file")); err != nil {
			return err
		}
		if text != "first" {
			continue
		}
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		if err := d.Sync(); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "end"), nil, 0o600) // is killed
}

func TestLosesNamesOfADirectoryThatIsNotSynced(t *testing.T) {
	tr := start(t)
	seen := map[string]bool{}
	for seed := range uint64(20) {
		dir := t.TempDir()
		name := filepath.Join(dir, "file")
		if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := trace(t, tr, "rename", dir, Plan{Kill: 14, Unsynced: true, Seed: seed})
		if !r.Killed || err == nil || !strings.HasSuffix(r.Last().Target, "/end") {
			t.Fatalf("%+v %v", r, err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		seen[string(got)] = true
	}
	if want := map[string]bool{"first": true, "second": true, "third": true}; !maps.Equal(seen, want) {
		t.Errorf("left was %v, not each of %v", seen, want)
	}
}

// removeUnsynced makes a file, syncs its directory, and removes it; another it makes and removes.
func removeUnsynced(dir string) error {
	for _, name := range []string{"first", "second"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			return err
		}
		if name == "first" {
			d, err := os.Open(dir)
			if err != nil {
				return err
			}
			defer d.Close()
			if err := d.Sync(); err != nil {
				return err
			}
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "end"), nil, 0o600) // is killed
}

func TestBringsBackWhatWasRemoved(t *testing.T) {
	tr := start(t)
	seen := map[string]bool{}
	for seed := range uint64(20) {
		dir := t.TempDir()
		r, err := trace(t, tr, "remove", dir, Plan{Kill: 8, Unsynced: true, Seed: seed})
		if !r.Killed || err == nil || !strings.HasSuffix(r.Last().Target, "/end") {
			t.Fatalf("%+v %v", r, err)
		}
		var names []string
		for name := range found(t, dir) {
			names = append(names, name)
		}
		slices.Sort(names)
		seen[strings.Join(names, " ")] = true
	}
	// A journal has all of what came before: never the second alone.
	if want := map[string]bool{"": true, "first": true, "second": true}; !maps.Equal(seen, want) {
		t.Errorf("left was %v, not each of %v", seen, want)
	}
}
