package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigThatOthersCanChangeIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "desk.toml")
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o644: true, 0o664: false, 0o646: false} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := LoadConfig(path)
		if good != (err == nil) || !good && !strings.Contains(err.Error(), "chmod go-w "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
