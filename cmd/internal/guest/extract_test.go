package main

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func archive(t testing.TB, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Mode = 0o644
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }

func everything(string) bool { return true }

func TestExtract(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	a := archive(t, tar.Header{Typeflag: tar.TypeDir, Name: "./boot/"}, file("./boot/kernel"), file("./lib/a/b"), file("./etc/passwd"))
	if err := extract(a, dir, func(name string) bool { return name != "etc/passwd" }); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		got = append(got, strings.TrimPrefix(path, dir)+"="+string(text))
		return err
	})
	if want := "/boot/kernel=./boot/kernel /lib/a/b=./lib/a/b"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%q, %v", got, err)
	}
}

func TestExtractRefuses(t *testing.T) {
	for complaint, a := range map[string]*bytes.Buffer{
		"outside it":        archive(t, file("../escaped")),
		"outside it: \"/":   archive(t, file("/escaped")),
		"outside it: \"./l": archive(t, file("./lib/../../escaped")),
		"twice":             archive(t, file("./a"), file("a")),
		"file exists":       archive(t, file("a"), file("a/b")),
		"cannot read":       bytes.NewBufferString(strings.Repeat("no tar ", 200)),
		"unexpected EOF":    bytes.NewBuffer(archive(t, file("long")).Bytes()[:514]),
	} {
		parent := t.TempDir()
		err := extract(a, filepath.Join(parent, "new"), everything)
		if err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%v, not %q", err, complaint)
		}
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Errorf("%q: there are %v, %v", complaint, entries, err)
		}
	}
}

// Links and devices are left out, so no file can be written through one.
func TestExtractFollowsNoLink(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "new")
	a := archive(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: ".."}, file("lib/escaped"))
	if err := extract(a, dir, everything); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lib", "escaped")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(parent, "escaped")); err == nil {
		t.Error("a file was written through a link")
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(archive(f, file("./boot/kernel"), file("../../x")).Bytes())
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/tmp"}, file("a/b")).Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		parent := t.TempDir()
		err := extract(bytes.NewReader(text), filepath.Join(parent, "new"), everything)
		if entries, readErr := os.ReadDir(parent); readErr != nil || len(entries) != 1 {
			t.Errorf("beside the directory there are %v, %v (%v)", entries, readErr, err)
		}
	})
}
