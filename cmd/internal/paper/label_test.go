package paper

import (
	"html"
	"regexp"
	"strings"
	"testing"
)

func TestLabel(t *testing.T) {
	l := Label{Desk: Imprint{"Example Org, Security", "Example Org, Security Desk, Main Street 1, Room 101, 12345 Exampletown, +1 555 0100"}, Token: "yk-10000001/otp2", Serial: "10000001"}
	page, err := l.Render()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"yk-10000001/otp2", "10000001", "Example Org, Security", "If found, please return to: Example Org, Security Desk", "size: 62mm 29mm", `aria-label="QR code: yk-10000001/otp2"`} {
		if !strings.Contains(html.UnescapeString(string(page)), want) {
			t.Errorf("the label has no %q", want)
		}
	}
	if strings.Contains(string(page), "EMULATED") {
		t.Error("the label calls the token emulated")
	}
	if found := elsewhere.FindString(string(page)); found != "" {
		t.Errorf("the label has %q", found)
	}
	bare, err := Label{Token: "yk-1/otp1", Emulated: true}.Render()
	if err != nil || !strings.Contains(string(bare), nameless) || !strings.Contains(string(bare), "EMULATED") || strings.Contains(string(bare), "If found") {
		t.Errorf("%s, %v", bare, err)
	}
}

func TestHostileLabel(t *testing.T) {
	page, err := Label{Desk: Imprint{hostileText, hostileText}, Token: hostileText, Serial: hostileText}.Render()
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(string(page), -1) {
		if found := elsewhere.FindString(tag); found != "" && !strings.HasPrefix(tag, "<svg ") { // whose label is escaped
			t.Errorf("%q in %q", found, tag)
		}
	}
	if strings.Count(string(page), `"`)%2 != 0 || strings.Contains(string(page), "\x1b") {
		t.Error("a quote or a control character got through")
	}
}
