package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/text"

	"tokendesk/cmd/internal/api"
)

// printIntent shows what an order would do with which token, and whom it concerns.
func printIntent(out screen, action string, i api.Intent) {
	var rows []row
	for _, e := range i.Effects {
		after := "gone"
		if e.To != "" {
			after = standing(out, e.To, e.NewOwner)
		}
		rows = append(rows, row{[]string{e.Token, standing(out, e.From, e.Owner), after}, consequences(out, action, e)})
	}
	out.table([]string{"TOKEN", "NOW", "AFTERWARDS"}, rows)
	if i.Permanent {
		out.say("%s", out.paint(text.FgRed, "This is permanent: nothing brings it back."))
	}
	for _, why := range i.Why {
		out.say("%s %s", out.paint(text.FgYellow, "A second officer has to approve it:"), harmless(why))
	}
}

func standing(out screen, status, owner string) string {
	if status == "compromised" { // nobody will ever have it
		return out.status(status)
	}
	return out.status(status) + ", " + or(cut(owner, 24), "stock")
}

// consequences says what an effect means for whoever has the token.
func consequences(out screen, action string, e api.Effect) string {
	var lines []string
	if who := losesAccess(e); who != "" {
		words := "%s can no longer log in with it"
		if action == "disable" {
			words = "%s cannot log in with it until it is enabled"
		}
		lines = append(lines, fmt.Sprintf(words, who))
	}
	if e.LastOf != "" {
		lines = append(lines, out.paint(text.FgRed, e.LastOf+" has no other active token"))
	}
	return strings.Join(lines, "\n")
}

// losesAccess is the user who can log in before an effect and not afterwards.
func losesAccess(e api.Effect) string {
	if e.From == "active" && e.Owner != "" && (e.To != "active" || e.NewOwner != e.Owner) {
		return e.Owner
	}
	return ""
}

// becoming says in a question what becomes of one token, and of several.
var becoming = map[string][2]string{
	"unassign":   {"%s goes back to stock", "%s go back to stock"},
	"disable":    {"%s is disabled until it is enabled again", "%s are disabled until they are enabled again"},
	"compromise": {"%s is compromised, for good", "%s are compromised, for good"},
	"delete":     {"%s is deleted, for good", "%s are deleted, for good"},
	"wipe":       {"%s is erased on its device, for good", "%s are erased on their device, for good"},
	"reseed":     {"%s gets a new seed; the old one is destroyed", "%s get new seeds; the old ones are destroyed"},
}

// question asks for all that somebody will feel, in one sentence.
func question(action string, i api.Intent) string {
	words, found := becoming[action]
	if !found {
		words = [2]string{action + " %s", action + " %s"}
	}
	end := "can no longer log in with %s"
	if action == "disable" {
		end = "cannot log in with %s meanwhile"
	}
	q, them := "", "it"
	if len(i.Effects) == 1 {
		q = fmt.Sprintf(words[0], i.Effects[0].Token)
	} else {
		q, them = fmt.Sprintf(words[1], fmt.Sprintf("%d tokens", len(i.Effects))), "them"
	}
	var who []string
	for _, e := range i.Effects {
		if user := losesAccess(e); user != "" && !slices.Contains(who, user) {
			who = append(who, user)
		}
	}
	switch {
	case len(who) > 3:
		q += fmt.Sprintf(": %d users "+end, len(who), them)
	case len(who) > 0:
		q += fmt.Sprintf(": %s "+end, listed(who), them)
	}
	if len(i.Why) > 0 {
		q += ", once a second officer has approved it"
	}
	return q
}

// listed joins names as a sentence does.
func listed(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
