package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tokendesk/cmd/internal/api"
)

// TestWatchedEventsFit checks what no script can: devices --watch never ends.
func TestWatchedEventsFit(t *testing.T) {
	long := api.KeyEvent{Event: "present", Time: time.Unix(0, 0), Key: api.Key{
		ID: "yk-4294967295", Model: "YubiKey", Firmware: "5.4.3", Emulated: true, Problem: strings.Repeat("two keys say they are one; ", 5),
		Slots: []api.Slot{{Status: "disabled", Owner: strings.Repeat("x", 64)}, {Status: "pending", Owner: strings.Repeat("y", 64)}},
	}}
	for _, width := range []int{narrow, wide} {
		var b strings.Builder
		printEvent(screen{Writer: &b, width: width}, long)
		lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
		for _, l := range lines {
			if utf8.RuneCountInString(l) > width {
				t.Errorf("wider than %d: %q", width, l)
			}
		}
		if len(lines) < 2 || !strings.HasSuffix(lines[0], "disabled xxxx…  pending yyyyy…  EMULATED") || !strings.HasPrefix(lines[1], indent+"two keys") {
			t.Errorf("at %d:\n%s", width, b.String())
		}
	}
	var b strings.Builder
	long.Event = "removed"
	printEvent(screen{Writer: &b, width: narrow}, long)
	if l := b.String(); !strings.HasSuffix(l, "removed  yk-4294967295\n") {
		t.Errorf("removed: %q", l)
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		words string
		width int
		want  []string
	}{
		{"", 20, []string{""}},
		{"one line", 20, []string{"one line"}},
		{"lines\n  that are there", 20, []string{"lines", "  that are there"}},
		{"between words, where it can be", 20, []string{"between words, where", "it can be"}},
		{strings.Repeat("x", 45), 20, []string{strings.Repeat("x", 20), strings.Repeat("x", 20), "xxxxx"}},
	} {
		if got := wrap(c.words, c.width); strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%q: %q, not %q", c.words, got, c.want)
		}
	}
}
