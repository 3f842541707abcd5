package house

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "tokendesk/"

// arrows says what each package of the module may import, besides itself and what is below it. A name that
// ends in /... stands for everything below.
var arrows = map[string][]string{
	"device":                      {"vault/secret"},
	"device/bussocket":            {"device"},
	"device/apdu":                 {"device", "vault/secret"},
	"device/devicetest":           {"device", "device/drivers", "device/keyboard", "device/otpslot", "sync/hotpscan", "vault/secret"},
	"device/drivers":              {"device", "device/management", "device/nitrokey", "device/oathapplet", "device/otpslot", "vault/secret"},
	"device/emulator":             {"device", "device/bussocket", "device/emulator/nitrokeypro", "device/emulator/smartcard", "device/emulator/vhci"},
	"device/emulator/nitrokeypro": {"device"},
	"device/emulator/smartcard":   {"device"},
	"device/emulator/vhci":        {},
	"device/keyboard":             {},
	"device/oathapplet":           {"device", "device/apdu", "device/management", "vault/secret"},
	"device/nitrokey":             {"device", "vault/secret"},
	"device/otpslot":              {"device", "device/apdu", "device/keyboard", "vault/secret"},
	"device/management":           {"device", "device/apdu"},
	"device/pcsc":                 {"device", "device/apdu", "device/usbhid"},
	"device/pcsctest":             {},
	"device/pivcard":              {"device", "device/apdu", "device/management", "device/pcsc", "vault/secret"},
	"device/trace":                {"device", "vault/secret"},
	"device/usbhid":               {"device", "device/keyboard", "udev"},
	"udev":                        {"device"},
	"vault":                       {"device", "vault/audit", "vault/secret"},
	"vault/audit":                 {"vault/secret"},
	"vault/secret":                {},
	"vault/secret/memscan":        {},
	"vault/stretch":               {"vault/secret"},
	"vault/tpmseal":               {"vault", "vault/secret", "vault/stretch"},
	"vault/passseal":              {"vault", "vault/secret", "vault/stretch"},
	"vault/vaulttest":             {"vault", "vault/audit", "vault/secret", "vault/passseal", "vault/stretch"},
	"sync":                        {"device", "vault", "vault/audit", "vault/secret", "sync/hotpscan"},
	"sync/hotpscan":               {"vault/secret"},
	"sync/hotpscan/gen":           {},
	"sync/hotpscan/liboath":       {},
	"sync/openldap":               {"device", "vault", "vault/secret", "sync"},
	"sync/notice":                 {"device", "vault", "vault/audit", "vault/secret"},
	"sync/notice/mailtest":        {},
	"sync/synctest":               {"device", "vault", "vault/secret", "sync", "sync/hotpscan"},
	"provision":                   {"device", "vault", "vault/audit", "vault/secret", "sync/hotpscan"},
	"cmd/internal/api":            {},
	"cmd/internal/client":         {"cmd/internal/api", "vault/secret"},
	"cmd/internal/keeper":         {"provision", "vault", "vault/audit", "vault/secret"},
	"cmd/internal/keys":           {"device", "device/drivers", "device/management"},
	"cmd/internal/paper":          {"vault/audit", "vault/secret"},
	"cmd/internal/localapi": {
		"cmd/internal/api", "cmd/internal/keeper", "cmd/internal/keys", "cmd/internal/paper", "device", "device/trace", "provision", "sync", "sync/notice", "vault", "vault/audit", "vault/secret",
	},
	"cmd/internal/daemon": {
		"cmd/internal/api", "cmd/internal/keeper", "cmd/internal/keys", "cmd/internal/localapi", "cmd/internal/paper", "device/...", "provision", "sync/...", "vault/...",
	},
	"cmd/internal/crash":        {"cmd/internal/api", "cmd/internal/crash/tracer", "cmd/internal/world", "device", "sync/hotpscan", "sync/synctest", "vault/..."},
	"cmd/internal/chaos":        {"cmd/internal/api", "cmd/internal/client", "cmd/internal/world", "device/...", "sync/synctest", "vault/audit"},
	"cmd/internal/crash/tracer": {},
	"cmd/internal/e2e":          {},
	"cmd/internal/flagorder":    {},
	"cmd/internal/guest":        {"cmd/internal/guest/job"},
	"cmd/internal/guest/init":   {"cmd/internal/guest/job"},
	"cmd/internal/guest/job":    {},
	"cmd/internal/house":        {},
	"cmd/internal/leftovers":    {},
	"cmd/internal/window":       {},
	"cmd/internal/world":        {"cmd/internal/api", "cmd/internal/client", "cmd/internal/window", "device", "device/bussocket", "device/pcsctest", "sync/notice/mailtest", "sync/synctest", "vault/secret", "vault/vaulttest"},
	"cmd/internal/demo":         {"cmd/internal/api", "cmd/internal/world", "device", "sync/synctest"},
	"cmd/tokendesk":             {"cmd/internal/api", "cmd/internal/client", "cmd/internal/flagorder", "cmd/internal/paper", "vault/audit", "vault/secret"},
	"cmd/tokendeskd":            {"cmd/internal/daemon"},
	"cmd/tokenemu":              {"cmd/internal/flagorder", "device", "device/bussocket", "device/emulator"},
}

type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	CgoFiles   []string
	Imports    []string
	Deps       []string
}

func (p goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-tags", "guest", "-json=ImportPath,Dir,GoFiles,CgoFiles,Imports,Deps"}, args...)...)
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func allowed(rules []string, name string) bool {
	for _, r := range rules {
		below, all := strings.CutSuffix(r, "/...")
		if name == r || all && (name == below || strings.HasPrefix(name, below+"/")) {
			return true
		}
	}
	return false
}

func TestArrows(t *testing.T) {
	missing := maps.Clone(arrows)
	for _, p := range list(t, "./...") {
		rules, known := arrows[p.name()]
		if !known {
			t.Errorf("package %s has no arrows: say in this test what it may import", p.name())
			continue
		}
		delete(missing, p.name())
		for _, imported := range p.Imports {
			if name, ours := strings.CutPrefix(imported, module); ours && !allowed(rules, name) {
				t.Errorf("%s must not import %s", p.name(), name)
			}
		}
	}
	for name := range missing {
		t.Errorf("package %s is gone: take its arrows out of this test", name)
	}
}

// No arrow may lead to these from a program that ships.
func TestProductionReachesNoEmulator(t *testing.T) {
	for _, p := range list(t, "./cmd/tokendesk", "./cmd/tokendeskd") {
		for _, dep := range p.Deps {
			if name, ours := strings.CutPrefix(dep, module); ours && (strings.HasPrefix(name, "device/emulator") || strings.HasSuffix(name, "test") || name == "cmd/internal/world" || name == "cmd/internal/window") {
				t.Errorf("%s contains %s", p.name(), name)
			}
			if dep == "testing" {
				t.Errorf("%s contains the testing package", p.name())
			}
		}
	}
}

// The command line is small: neither cgo, nor the vault, nor the libraries behind it.
func TestCommandLineIsSmall(t *testing.T) {
	heavy := []string{"go.etcd.io/bbolt", "github.com/karalabe/hid", "github.com/google/go-tpm", "github.com/go-ldap/ldap"}
	for _, p := range list(t, "./cmd/tokendesk") {
		for _, dep := range p.Deps {
			if slices.ContainsFunc(heavy, func(library string) bool { return strings.HasPrefix(dep, library) }) {
				t.Errorf("tokendesk contains %s", dep)
			}
		}
	}
	for _, program := range []string{"./cmd/tokendesk", "./cmd/tokenemu"} {
		cmd := exec.Command("go", "build", "-o", t.TempDir(), program)
		cmd.Dir, cmd.Env = root(t), append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s does not build without cgo: %s", program, out)
		}
	}
}

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	for _, p := range list(t, "./...") {
		var comments []string
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				comments = append(comments, file)
				begins(t, p, f)
			}
		}
		if len(comments) != 1 {
			t.Errorf("%s has %d package comments %v, not one", p.name(), len(comments), comments)
		}
	}
}

// begins checks the form that go doc expects.
func begins(t *testing.T, p goPackage, f *ast.File) {
	t.Helper()
	want := "Package " + f.Name.Name + " "
	if f.Name.Name == "main" {
		want = "Command " + filepath.Base(p.Dir) + " "
	}
	if text := f.Doc.Text(); !strings.HasPrefix(text, want) {
		t.Errorf("the comment of %s begins %.30q, not %q", p.name(), text, want)
	}
}

// The top level is fixed by the product's owner.
func TestTopLevel(t *testing.T) {
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	fixed := []string{"cmd", "device", "provision", "sync", "vault", "udev", "go.mod", "go.sum", "Makefile", "README.md"}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(fixed, e.Name()) {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}
