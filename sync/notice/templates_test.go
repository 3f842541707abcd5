package notice

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"tokendesk/device"
	"tokendesk/vault"
)

func TestBuiltInWords(t *testing.T) {
	words, err := LoadTemplates("")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range Kinds() {
		for _, token := range []device.TokenID{"yk-10000001/otp1", "yk-10000001/otp2", "fob-2308001", "mail-7", "phone-7"} {
			n := vault.Notice{Kind: kind, User: "alice", Token: token, Successor: "bob", Reason: "under suspicion", Created: time.Now()}
			subject, body, err := words.Render(kind, factsOf(n, "security@example.org"))
			if err != nil {
				t.Errorf("%s of %s: %v", kind, token, err)
			}
			if strings.Contains(subject+body, "bob") || strings.Contains(subject+body, "suspicion") || strings.Contains(body, "<") {
				t.Errorf("%s of %s tells too much: %s", kind, token, body)
			}
			if !strings.HasPrefix(body, "Hello alice,\n\n") || !strings.HasSuffix(body, "\nsecurity@example.org\n") || strings.Contains(body, "\n\n\n") {
				t.Errorf("%s of %s: %s", kind, token, body)
			}
			if at, has := strings.Contains(body, "serial number"), token.Device().Family() != device.Mail && token.Device().Family() != device.Phone; at != has {
				t.Errorf("%s of %s: %s", kind, token, body)
			}
			for line := range strings.Lines(body) {
				if len(line) > 81 || strings.TrimRight(line, "\n ") != strings.TrimSuffix(line, "\n") {
					t.Errorf("%s of %s: %q", kind, token, line)
				}
			}
		}
	}
}

func TestTemplatesOfAnAdministrator(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"disabled.txt": "Subject: Gesperrt: {{.Serial}}\n\nHallo {{.User}}, {{if eq .Touch \"briefly\"}}kurz{{else}}lang{{end}} – {{with .Reason}}{{.}}{{end}}\n",
		"README.md":    "not a template {{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	words, err := LoadTemplates(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := factsOf(vault.Notice{User: "alice", Token: "yk-10000001/otp1", Reason: "auf Reisen", Created: time.Now()}, "x@example.org")
	subject, body, err := words.Render("disabled", f)
	if subject != "Gesperrt: 10000001" || body != "Hallo alice, kurz – auf Reisen\n" || err != nil {
		t.Errorf("%q %q %v", subject, body, err)
	}
	if subject, _, err = words.Render("enabled", f); subject != "Your login token works again" || err != nil {
		t.Errorf("%q %v", subject, err)
	}
}

func TestWrongTemplates(t *testing.T) {
	deep := strings.Repeat("{{if .User}}", 500) + strings.Repeat("{{end}}", 500)
	for text, want := range map[string]string{
		"":                           `its first line must begin with "Subject: "`,
		"Hello":                      `its first line must begin with "Subject: "`,
		"Subject: x":                 "it has no text below its subject",
		"Subject: x\n \n":            "it has no text below its subject",
		"Subject: \n\ny":             "the subject must be one line of 1 to 150 bytes",
		"Subject: {{.Nothing}}\n\ny": "can't evaluate field Nothing",
		"Subject: x\n\n{{.Seed}}":    "can't evaluate field Seed",
		"Subject: x\n\n{{.User":      "unclosed action",
		"Subject: x\n\n{{end}}":      "unexpected {{end}}",
		"Subject: x\n\n{{range 1000000000}}{{end}}":                                 "a template can name facts and choose by if and with, and nothing more",
		"Subject: x\n\n{{printf \"%1000000000d\" 1}}":                               "a template can use and, or, not, eq, ne, not printf",
		"Subject: x\n\n{{if (len .User)}}{{end}}":                                   "not len",
		"Subject: x\n\n{{with print .User}}{{end}}":                                 "not print",
		"Subject: x\n\n{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}": "a template cannot define others",
		"Subject: x\n\n{{block \"a\" .}}{{end}}":                                    "a template cannot define others",
		"Subject: x\n\n{{template \"text\"}}":                                       "a template can name facts and choose by if and with, and nothing more",
		"Subject: x\n\n{{call .User}}":                                              "not call",
		"Subject: x\n\n{{.User.Name}}":                                              "can't evaluate field Name",
		"Subject: x\n\n{{(.User).Name}}":                                            "can't evaluate field Name",
		"Subject: x\n\n{{eq .User 1}}":                                              "incompatible types",
		"Subject: x\n\n\x1b[2J":                                                     "it contains control characters or is not UTF-8",
		"Subject: x\n\n\xff":                                                        "it contains control characters or is not UTF-8",
		"Subject: x\r\ry\n\nz":                                                      "the subject must be one line of 1 to 150 bytes",
		"Subject: {{\"a\\nBcc: b\"}}\n\nz":                                          "the subject must be one line of 1 to 150 bytes",
		"Subject: x\n\n{{\"\\x00\"}}":                                               "the text contains control characters",
		"Subject: " + strings.Repeat("x", 200) + "\n\ny":                            "the subject must be one line of 1 to 150 bytes",
		"Subject: x\n\n" + strings.Repeat("y", maxTemplate):                         "it has more than 16384 bytes",
		"Subject: x\n\n" + strings.Repeat("{{.Reason}}", 1400):                      "it makes a text of more than 65536 bytes",
		"Subject: x\n\n" + deep + "{{range .User}}{{end}}":                          "a template can name facts and choose by if and with, and nothing more",
	} {
		if err := (&Templates{kinds: map[string]words{}}).add("disabled", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %s", text, err, want)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "dissabled.txt")
	if err := os.WriteFile(path, []byte("Subject: x\n\ny"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := "template \"" + path + "\": there is no notice of that name; there are compromised, disabled, enabled, expired, invitation, reissued, unassigned"
	if _, err := LoadTemplates(dir); err == nil || err.Error() != want {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "disabled.txt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTemplates(dir); err == nil || !strings.HasSuffix(err.Error(), "it is not a file") {
		t.Error(err)
	}
	if _, err := LoadTemplates(filepath.Join(dir, "absent")); err == nil || !strings.HasPrefix(err.Error(), "cannot read the templates: ") {
		t.Error(err)
	}
}

// A template that is taken makes a decent mail of whatever a directory or an officer has written, or none.
func FuzzTemplate(f *testing.F) {
	for _, kind := range Kinds() {
		text, err := builtIn.ReadFile("templates/" + kind + ".txt")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), "alice", "words")
	}
	f.Add("Subject: {{.User}}\n\n{{if and .Reason (not (eq .User \"a\"))}}{{$x := .User}}{{$x}}{{end}}", "a\r\nBcc: b", "\x00")
	f.Add("Subject: x\n\n{{range 9}}{{end}}{{printf \"%9d\" 1}}", "a", "b")
	f.Fuzz(func(t *testing.T, text, user, reason string) {
		words := &Templates{kinds: map[string]words{}}
		if words.add("disabled", text) != nil {
			return
		}
		subject, body, err := words.Render("disabled", factsOf(vault.Notice{User: user, Reason: reason, Successor: user, Token: "yk-1/otp2", Created: time.Now()}, "a@example.org"))
		if err != nil {
			return
		}
		if subject == "" || len(subject) > maxSubject || strings.ContainsFunc(subject, unicode.IsControl) || len(body) > maxText || strings.ContainsFunc(body, isForbidden) {
			t.Errorf("%q %q", subject, body)
		}
	})
}

func TestAddresses(t *testing.T) {
	for _, good := range []string{"alice@example.org", "a.b+c@mail-1.example.org", "o'neill@xn--bcher-kva.example", "a@localhost", strings.Repeat("a", 240) + "@example.org"} {
		if err := CheckAddress(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", "alice", "@example.org", "alice@", "alice@example.org ", " alice@example.org", "alice@example.org\n", "alice@example.org\r\nBcc: bob@example.org",
		"Alice <alice@example.org>", "alice@example.org, bob@example.org", `"alice bob"@example.org`, `"a> ORCPT=x"@example.org`, "alice@[127.0.0.1]", "a..b@example.org",
		".a@example.org", "alice@-example.org", "alice@example..org", "älice@example.org", "alice@exämple.org", "alice@example.org\x00", "a@b@c", "<alice@example.org>",
		strings.Repeat("a", 250) + "@example.org",
	} {
		if CheckAddress(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	for text, want := range map[string]string{"desk@example.org": "desk@example.org", "Token desk <desk@example.org>": "desk@example.org"} {
		if a, err := ParseSender(text); err != nil || a.Address != want {
			t.Errorf("%s: %v, %v", text, a, err)
		}
	}
	for _, bad := range []string{"", "desk", "a@example.org, b@example.org", "x\n <a@example.org>", `"a b"@example.org`} {
		if a, err := ParseSender(bad); err == nil {
			t.Errorf("%q is %v", bad, a)
		}
	}
}

func TestKinds(t *testing.T) {
	if want := []string{"compromised", "disabled", "enabled", "expired", "invitation", "reissued", "unassigned"}; !slices.Equal(Kinds(), want) {
		t.Error(Kinds())
	}
}
