package secret_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tokendesk/vault/secret"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for text, want := range map[string]string{word: word, word + "\n": word, word + "\n\n": word + "\n", " " + word + " ": " " + word + " ", word + "\r\n": word + "\r"} {
		s, err := secret.ReadFile(put("good", text, 0o600))
		if err != nil || string(s.Reveal()) != want {
			t.Errorf("%q became %q, %v", text, s.Reveal(), err)
		}
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := put("foreign", word, 0o600)
	if err := os.Chown(foreign, 65534, -1); err != nil { // the tests run as root
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path, words string
		exposed     bool
	}{
		"group":     {put("group", word, 0o640), "chmod 600", true},
		"world":     {put("world", word, 0o604), "chmod 600", true},
		"foreign":   {foreign, "belongs to uid 65534", true},
		"empty":     {put("empty", "", 0o600), "is empty", false},
		"newline":   {put("newline", "\n", 0o600), "is empty", false},
		"huge":      {put("huge", strings.Repeat("x", 5000), 0o600), "more than 4096 bytes", false},
		"directory": {dir, "not a regular file", false},
		"fifo":      {fifo, "not a regular file", false},
		"absent":    {filepath.Join(dir, "absent"), "no such file", false},
	} {
		s, err := secret.ReadFile(c.path)
		if err == nil || !strings.Contains(err.Error(), c.words) || errors.Is(err, secret.ErrExposed) != c.exposed || !s.IsZero() {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), word) {
			t.Errorf("%s: the secret is in the error: %v", name, err)
		}
	}
}
