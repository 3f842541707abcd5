package provision

import (
	"fmt"
	"slices"
	"strings"

	"tokendesk/vault"
)

// participles are how actions read once they are done to a token.
var participles = map[Action]string{
	ActTest: "tested", ActResync: "resynced", ActEdit: "edited", ActAssign: "assigned", ActUnassign: "unassigned", ActDisable: "disabled",
	ActEnable: "enabled", ActExpire: "expired", ActReseed: "reseeded", ActReissue: "reissued", ActWipe: "wiped",
	ActCompromise: "compromised", ActDelete: "deleted",
}

// Check refuses an action on a token as it is, with what the table says of it, and what is possible instead.
func Check(t vault.Token, a Action) error {
	_, err := check(t, a)
	return err
}

func check(t vault.Token, a Action) (Rule, error) {
	if rule, ok := ruleFor(t, a); ok {
		return rule, nil
	}
	if participles[a] == "" {
		return Rule{}, refuse("", "there is no action %q", a)
	}
	if kind := TypeOf(t.ID); !slices.Contains(kind.Actions, a) {
		return Rule{}, refuse(instead(t), "%s is of type %s, and such a token cannot be %s", t.ID, kind.Code, participles[a])
	}
	var from []vault.Status
	for _, r := range lifecycle {
		if r.Action == a {
			from = append(from, r.From...)
		}
	}
	switch fits := slices.Contains(from, t.Status); {
	case fits && t.Owner == "":
		return Rule{}, refuse(instead(t), "%s is stock: it belongs to nobody", t.ID)
	case fits:
		return Rule{}, refuse(fmt.Sprintf("to take it from them with a fresh seed: tokendesk reissue %s --to USER", t.ID), "%s belongs to %s", t.ID, t.Owner)
	case t.Status == vault.Compromised:
		return Rule{}, refuse(instead(t), "%s is compromised (%s); it never comes back", t.ID, t.Loss.Kind)
	}
	next := first(t, a)
	if next == "" {
		next = instead(t)
	}
	return Rule{}, refuse(next, "%s is %s; only %s token can be %s", t.ID, t.Status, oneOf(from), participles[a])
}

// oneOf is "an active or disabled".
func oneOf(from []vault.Status) string {
	var words []string
	for _, s := range from {
		words = append(words, string(s))
	}
	text, article := words[len(words)-1], "a "
	if n := len(words); n > 1 {
		text = strings.Join(words[:n-1], ", ") + " or " + text
	}
	if strings.IndexByte("aeiou", text[0]) >= 0 {
		article = "an "
	}
	return article + text
}

// first names what would make a possible, if one action does that makes the token active.
func first(t vault.Token, a Action) string {
	for _, r := range lifecycle {
		if now, ok := ruleFor(t, r.Action); !ok || now.Action == a || now.To != vault.Active || now.Role == "" {
			continue
		} else if _, ok := ruleFor(vault.Token{ID: t.ID, Status: now.To, Owner: t.Owner}, a); ok {
			if now.Action == ActEdit {
				return fmt.Sprintf("give it more time first: tokendesk edit %s --expires DATE", t.ID)
			}
			return fmt.Sprintf("%s it first, if it may be used again: tokendesk %s %s", now.Action, now.Action, t.ID)
		}
	}
	return ""
}

// instead names what can be done with a token.
func instead(t vault.Token) string {
	var words []string
	for _, a := range Allowed(t) {
		words = append(words, string(a))
	}
	if len(words) == 0 {
		return ""
	}
	return "what can be done with it: " + strings.Join(words, ", ")
}
