package main

import (
	"fmt"
	"reflect"
	"testing"

	"tokendesk/provision"
)

// TestRulesAreThoseOfTheDesk holds the table that is printed without a daemon against the one by which the daemon acts.
func TestRulesAreThoseOfTheDesk(t *testing.T) {
	var theirs []rule
	for _, r := range provision.Lifecycle() {
		theirs = append(theirs, rule{
			action: string(r.Action), from: words(r.From), owner: string(r.Ownership), to: string(r.To), frees: r.Frees, gone: r.Gone,
			pushes: words(r.Pushes), reason: r.Reason, permanent: r.Permanent, device: r.Device, role: r.Role,
		})
	}
	if len(theirs) == 0 {
		t.Fatal("the desk has no table")
	}
	for i := range max(len(rules), len(theirs)) {
		switch {
		case i >= len(rules):
			t.Errorf("missing here: %+v", theirs[i])
		case i >= len(theirs):
			t.Errorf("unknown to the desk: %+v", rules[i])
		case !reflect.DeepEqual(rules[i], theirs[i]):
			t.Errorf("row %d is %+v, and the desk's %+v", i, rules[i], theirs[i])
		}
	}
}

func words[S ~string](all []S) (out []string) {
	for _, w := range all {
		out = append(out, string(w))
	}
	return out
}

// TestEffectsAreSaid: whoever reads the table as JSON gets words for every row.
func TestEffectsAreSaid(t *testing.T) {
	for i, r := range wireRules().Rules {
		if r.Text == "" || r.Pushes == nil || len(r.From) == 0 {
			t.Errorf("row %d: %s", i, fmt.Sprintf("%+v", r))
		}
	}
}
