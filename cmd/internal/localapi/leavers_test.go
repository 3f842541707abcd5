package localapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
)

// queue is what the desk tells of leavers.
func (d *desk) queue(query string) []api.Leaver {
	d.Helper()
	var found api.Leavers
	d.get("/v1/leavers"+query, &found)
	return found.Leavers
}

// Officers keep the queue; everybody may look at it.
func TestRolesOfTheQueue(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: allRoles})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	for _, who := range []account{theApprover, theAuditor, theAdministrator} {
		d.by(who).refused("/v1/leavers", api.NewLeaver{User: "alice"}, http.StatusForbidden, "this takes the role officer")
		d.by(who).refused("/v1/leavers/import", api.LeaverLines{Leavers: []api.NewLeaver{{User: "alice"}}}, http.StatusForbidden)
		d.by(who).refused("/v1/leavers/alice/settle", api.Settlement{State: "written off"}, http.StatusForbidden)
		d.by(who).refused("/v1/leavers/alice/remove", nil, http.StatusForbidden)
	}
	var added api.Added
	d.by(theOfficer).post("/v1/leavers", api.NewLeaver{User: "alice", Words: "retires"}, http.StatusOK, &added)
	l := added.Leaver
	if l.User != "alice" || l.Officer != "games" || l.Open != 1 || len(l.Tokens) != 1 || l.Tokens[0].Token != token || !l.Tokens[0].Held || !l.Tokens[0].Inserted {
		t.Errorf("added: %+v", added)
	}
	var seen api.Leavers
	if a := d.by(theAuditor).ask(http.MethodGet, "/v1/leavers", nil, nil); a.status != http.StatusOK || !strings.Contains(a.text(), `"user":"alice"`) {
		t.Errorf("an auditor sees %s", a.text())
	}
	d.by(theOfficer).post("/v1/leavers/Alice/remove", nil, http.StatusOK, &seen)
	if len(seen.Leavers) != 0 {
		t.Errorf("still there: %+v", seen)
	}
	d.by(theOfficer).refused("/v1/leavers/alice/remove", nil, http.StatusNotFound, "in the queue of leavers")
}

// What takes a second officer waits for one; what was said is kept meanwhile.
func TestSettlementWaits(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: allRoles + policy})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	late := time.Now().Add(-time.Hour)
	var added api.Added
	d.post("/v1/leavers", api.NewLeaver{User: "alice", Deadline: &late}, http.StatusOK, &added)
	if !added.Leaver.Overdue {
		t.Errorf("added: %+v", added)
	}
	d.refused("/v1/leavers/alice/settle", api.Settlement{State: "not returned"}, http.StatusConflict, "is inserted here, so it has come back")
	var waits api.Settled
	d.by(theOfficer).post("/v1/leavers/alice/settle", api.Settlement{State: "returned", Reason: "in the drawer"}, http.StatusAccepted, &waits)
	if waits.Approval == nil || len(waits.Changes) != 0 || waits.Leaver.Open != 1 || waits.Leaver.Tokens[0].State != "returned" || !strings.Contains(waits.Text, "second officer") {
		t.Fatalf("it does not wait: %+v", waits)
	}
	if next := d.queue("?overdue=true")[0].Tokens[0].Next; next != "tokendesk approvals approve 1" {
		t.Errorf("what comes next is %q", next)
	}
	var s api.Status
	if d.get("/v1/status", &s); s.Leavers != 1 || s.Overdue != 1 {
		t.Errorf("status: %d leave, %d overdue", s.Leavers, s.Overdue)
	}
	var done api.Outcomes
	d.by(theApprover).post(approvalPath(waits.Approval.ID)+"/approve", nil, http.StatusOK, &done)
	if left := d.queue(""); len(left) != 0 {
		t.Errorf("still open: %+v", left)
	}
	// The key was at hand when it was taken from her: no seed of it is anywhere else.
	if all := d.queue("?all=true"); len(all) != 1 || all[0].Tokens[0].Fact == "" || !all[0].Tokens[0].Settled || all[0].Settled == nil {
		t.Errorf("all: %+v", all)
	}
	var after api.Status
	if d.get("/v1/status", &after); after.Leavers != 0 || after.Overdue != 0 {
		t.Errorf("status: %d leave, %d overdue", after.Leavers, after.Overdue)
	}
	if a := d.recorded("returned", "done"); a.Object != token || a.Officer != "games" || a.Reason != "user alice; reason: in the drawer" {
		t.Errorf("it is recorded as %+v", a)
	}
}

// Each of several is taken or not by itself; what is wrong with one is said of that one.
func TestImportOfLeavers(t *testing.T) {
	d := start(t, world.Options{})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	far := time.Now().AddDate(500, 0, 0)
	var out api.LeaverResults
	d.post("/v1/leavers/import", api.LeaverLines{Leavers: []api.NewLeaver{
		{User: "ALICE", Successor: "bob"}, {User: "nobody"}, {User: "carol", Successor: "Carol"}, {User: "bob", Deadline: &far}, {User: "carol"}, {User: "bob", Successor: "mary"},
	}}, http.StatusOK, &out)
	var problems []string
	for _, r := range out.Results {
		words := ""
		if r.Problem != nil {
			words = string(r.Problem.Code) + " " + r.Problem.Message
		}
		problems = append(problems, words)
	}
	want := []string{"", `refused no user "nobody"`, "refused nobody is their own successor", "refused the deadline is too far away", "", "refused the central service does not know the successor"}
	if !slices.EqualFunc(problems, want, strings.HasPrefix) || len(problems[0]+problems[4]) > 0 {
		t.Errorf("%q", problems)
	}
	if a := out.Results[0].Added; a == nil || a.Leaver.User != "alice" || a.Leaver.Successor != "bob" || len(a.Leaver.Tokens) != 1 {
		t.Errorf("alice: %+v", a)
	}
	if a := out.Results[4].Added; a == nil || a.Leaver.Settled == nil || !slices.Equal(a.Notes, []string{"carol has no token of this desk: nothing is to come back"}) {
		t.Errorf("carol: %+v", a)
	}
	d.refused("/v1/leavers/import", api.LeaverLines{Leavers: []api.NewLeaver{}}, http.StatusUnprocessableEntity)
}

// A user is shown with what can be done, what could be added, and whom the tokens came from.
func TestUserIsShown(t *testing.T) {
	d := start(t, world.Options{})
	var u api.UserTokens
	if d.get("/v1/users/alice", &u); !u.Known || len(u.Tokens) != 0 || len(u.Handovers) != 0 || u.Leaver != nil || len(u.Types) == 0 || u.Types[0].Problem != "" {
		t.Errorf("before: %+v", u)
	}
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	var added api.Added
	d.post("/v1/leavers", api.NewLeaver{User: "alice", Successor: "bob"}, http.StatusOK, &added)
	d.await("the central service has it", func() bool {
		d.get("/v1/users/alice", &u)
		return len(u.Tokens) == 1 && u.Tokens[0].Waiting == 0
	})
	it := u.Tokens[0]
	if it.Token != token || !it.Ours || it.Desk == nil || it.There == nil || !it.There.Enabled || it.There.Owner != "alice" || !slices.Contains(it.Actions, "reissue") {
		t.Errorf("her token: %+v", it)
	}
	if u.Leaver == nil || u.Leaver.Successor != "bob" || u.Leaver.Open != 1 {
		t.Errorf("she leaves: %+v", u.Leaver)
	}
	if len(u.Handovers) != 1 || u.Handovers[0].Kind != "assigned" || u.Handovers[0].To != "alice" || u.Handovers[0].Act == 0 || u.Handovers[0].Proof.Text != "no code of it was asked for" {
		t.Errorf("the chain of custody: %+v", u.Handovers)
	}
	i := slices.IndexFunc(u.Types, func(t api.UserType) bool { return t.Code == "yubikey-hotp" })
	if i < 0 || !strings.Contains(u.Types[i].Problem, "takes 1 token per user") {
		t.Errorf("the types: %+v", u.Types)
	}
	if slices.ContainsFunc(u.Types, func(t api.UserType) bool { return t.Code == "mail" }) { // which nobody sends here
		t.Errorf("the types: %+v", u.Types)
	}
	var links api.Handovers
	if d.get("/v1/tokens/"+token+"/handovers?limit=1", &links); len(links.Handovers) != 1 || links.Next != 0 || links.Handovers[0].ID != u.Handovers[0].ID {
		t.Errorf("of the token: %+v", links)
	}
	d.get("/v1/users/nobody", &u)
	if i := slices.IndexFunc(u.Types, func(t api.UserType) bool { return t.Code == "yubikey-hotp" }); u.Known || i < 0 || !strings.Contains(u.Types[i].Problem, `no user "nobody"`) {
		t.Errorf("nobody: %+v", u)
	}
	d.configure("[devices]", strings.TrimSpace(retiredType)+"\n\n[devices]")
	if d.get("/v1/users/bob", &u); slices.ContainsFunc(u.Types, func(t api.UserType) bool { return t.Code == "yubikey-hotp" }) {
		t.Errorf("a retired type can be added: %+v", u.Types)
	}
}

// A token that was deleted is told from one that never was, while it is still there.
func TestDeletedIsTold(t *testing.T) {
	d := start(t, world.Options{})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	d.await("the outbox is empty", func() bool {
		var c api.Changes
		d.get("/v1/outbox", &c)
		return len(c.Changes) == 0
	})
	d.configure("retry_min = \"200ms\"\nretry_max = \"2s\"", "retry_min = \"1h\"\nretry_max = \"1h\"")
	d.Slapd.Stop()
	if out := d.ordered("delete", api.Order{Reason: "scrapped"}); len(out.Changes) != 1 || out.Changes[0].State != "waiting" {
		t.Fatalf("%+v", out)
	}
	if err := d.Slapd.Start(); err != nil {
		t.Fatal(err)
	}
	var diff api.Drift
	d.get("/v1/drift", &diff)
	if len(diff.Rows) != 1 {
		t.Fatalf("%+v", diff)
	}
	if r := diff.Rows[0]; r.Deleted == nil || r.Deleted.Generation != 1 || r.Token != token || r.Desk != nil {
		t.Errorf("the row is %+v", r)
	}
	var u api.UserTokens
	d.get("/v1/users/alice", &u)
	if len(u.Tokens) != 1 || u.Tokens[0].Deleted == nil || !u.Tokens[0].Ours || u.Tokens[0].Token != token || len(u.Tokens[0].Actions) != 0 {
		t.Errorf("of alice: %+v", u.Tokens)
	}
}
