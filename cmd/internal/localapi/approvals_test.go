package localapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
)

// post sends JSON, and reads what comes if the status is as it should be.
func (d *desk) post(path string, in any, status int, out any) {
	d.Helper()
	body, err := json.Marshal(in)
	d.must(nil, err)
	header := http.Header{"Content-Type": {"application/json"}}
	if in == nil {
		header, body = nil, nil
	}
	a := d.ask(http.MethodPost, path, header, body)
	if a.status != status {
		d.Fatalf("%s: status %d, not %d: %s", path, a.status, status, a.text())
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		d.Fatalf("%s: %v: %s", path, err, a.body)
	}
}

func (d *desk) refused(path string, in any, status int, words ...string) {
	d.Helper()
	var e api.Error
	d.post(path, in, status, &e)
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			d.Errorf("%s: %q does not say %q", path, e.Message, w)
		}
	}
}

const policy = "\n[policy]\napprove_last_token = true\n"

func approvalPath(id uint64) string { return fmt.Sprintf("/v1/approvals/%d", id) }

// What leaves a user without an active token is asked for by one person and approved by another.
func TestAnOrderTakesTwo(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: allRoles + policy})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	officer, approver := d.by(theOfficer), d.by(theApprover)
	const disable = "/v1/tokens/actions/disable"
	order := api.Order{Tokens: []string{token}}
	officer.refused(disable, order, http.StatusConflict, "--reason")
	order.Reason = "on leave"

	var intent api.Intent
	officer.post(disable+"/preview", order, http.StatusOK, &intent)
	if e := intent.Effects; len(e) != 1 || e[0].Token != token || e[0].From != "active" || e[0].To != "disabled" || e[0].LastOf != "alice" || len(intent.Why) == 0 || intent.Permanent {
		t.Errorf("the preview: %+v", intent)
	}
	var asked, again api.Outcomes
	officer.post(disable, order, http.StatusAccepted, &asked)
	officer.post(disable, order, http.StatusAccepted, &again)
	if asked.Approval == nil || again.Approval == nil || asked.Approval.ID != again.Approval.ID || len(asked.Changes) != 0 {
		t.Fatalf("asked twice: %+v, %+v", asked, again)
	}
	a := asked.Approval
	if a.Officer != "games" || a.UID != 5 || a.Action != "disable" || a.Reason != "on leave" || len(a.Text) == 0 || !a.Expires.After(a.Created) {
		t.Errorf("the approval: %+v", a)
	}
	var shown api.Token
	d.get("/v1/tokens/"+token, &shown)
	if shown.Status != "active" {
		t.Errorf("nothing is done yet, and it is %s", shown.Status)
	}
	officer.refused(approvalPath(a.ID)+"/approve", nil, http.StatusForbidden, "this takes the role approver")

	var done api.Outcomes
	approver.post(approvalPath(a.ID)+"/approve", nil, http.StatusOK, &done)
	if len(done.Tokens) != 1 || done.Tokens[0].Status != "disabled" || len(done.Changes) != 1 || done.Changes[0].Kind != "disable" {
		t.Errorf("after the approval: %+v", done)
	}
	approver.refused(approvalPath(a.ID)+"/approve", nil, http.StatusNotFound)
	var trail strings.Builder
	for _, act := range d.acts() {
		fmt.Fprintln(&trail, act.Officer, act.Action, act.Object, act.Outcome, act.Reason)
	}
	for _, words := range []string{"games", "man", "on leave"} {
		if !strings.Contains(trail.String(), words) {
			t.Errorf("the trail does not name %s:\n%s", words, trail.String())
		}
	}
}

// Nobody becomes two people: neither by asking and approving, nor with all roles.
func TestNobodyApprovesAlone(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: "\n[roles]\nofficers = \"games\"\napprovers = \"games\"\n" + policy})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	order := api.Order{Tokens: []string{token}, Reason: "left"}
	for _, who := range []*desk{d, d.by(theOfficer)} {
		var asked api.Outcomes
		who.post("/v1/tokens/actions/unassign", order, http.StatusAccepted, &asked)
		who.refused(approvalPath(asked.Approval.ID)+"/approve", nil, http.StatusConflict)
		var left api.Approvals
		d.get("/v1/approvals", &left)
		if len(left.Approvals) == 0 {
			t.Error("a refused approval is gone")
		}
	}
	var left api.Approvals
	d.post("/v1/approvals/2/reject", api.Reason{Reason: "still here"}, http.StatusOK, &left)
	if len(left.Approvals) != 1 || left.Approvals[0].ID != 1 {
		t.Errorf("after a rejection: %+v", left)
	}
	var shown api.Token
	if d.get("/v1/tokens/"+token, &shown); shown.Owner != "alice" {
		t.Errorf("the token is %+v", shown)
	}
}

// An approval is of exactly what was asked for.
func TestStaleApproval(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: allRoles + policy})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	var asked api.Outcomes
	d.by(theOfficer).post("/v1/tokens/actions/unassign", api.Order{Tokens: []string{token}, Reason: "left"}, http.StatusAccepted, &asked)
	words := "of the third floor"
	d.ordered("edit", api.Order{Description: &words})
	path := approvalPath(asked.Approval.ID)
	d.by(theApprover).refused(path+"/approve", nil, http.StatusConflict, "stale")
	d.by(theApprover).refused(path+"/approve", nil, http.StatusNotFound)
	d.expect(d.Client.Get(t.Context(), path, nil, new(api.Approval)), api.NotFound, "tokendesk approvals list")
	d.by(theOfficer).post("/v1/tokens/actions/unassign", api.Order{Tokens: []string{token}, Reason: "left"}, http.StatusAccepted, &asked)
	path = approvalPath(asked.Approval.ID)
	d.by(theAuditor).refused(path+"/reject", api.Reason{Reason: "no"}, http.StatusForbidden, "this takes the role approver or officer")
	var left api.Approvals
	d.by(theOfficer).post(path+"/reject", api.Reason{Reason: "has not left"}, http.StatusOK, &left)
	if len(left.Approvals) != 0 {
		t.Errorf("taken back, and still there: %+v", left)
	}
	var shown api.Token
	if d.get("/v1/tokens/"+token, &shown); shown.Owner != "alice" || shown.Description != words {
		t.Errorf("the token is %+v", shown)
	}
}

// Of two officers who want one token, one gets it, and the other is told so.
func TestTwoOfficersOneToken(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: allRoles})
	d.enroll()
	for round := range 10 {
		users := []string{"alice", "bob"}
		answers := make([]answered, len(users))
		var both sync.WaitGroup
		for i, who := range []*desk{d, d.by(theOfficer)} {
			both.Go(func() {
				body, _ := json.Marshal(api.Order{Tokens: []string{token}, User: users[i]})
				answers[i] = who.ask(http.MethodPost, "/v1/tokens/actions/assign", http.Header{"Content-Type": {"application/json"}}, body)
			})
		}
		both.Wait()
		winner := 0
		if answers[1].status == http.StatusOK {
			winner = 1
		}
		loser := answers[1-winner]
		if answers[winner].status != http.StatusOK || loser.status != http.StatusConflict {
			t.Fatalf("round %d: %s, %s", round, answers[0].text(), answers[1].text())
		}
		if e := loser.failure(t); !strings.Contains(e.Message, "belongs to "+users[winner]) && !strings.Contains(e.Message, "another officer") {
			t.Errorf("the loser is told %q", e.Message)
		}
		var shown api.Token
		if d.get("/v1/tokens/"+token, &shown); shown.Owner != users[winner] {
			t.Errorf("it belongs to %q, not %s", shown.Owner, users[winner])
		}
		d.ordered("unassign", api.Order{Reason: "again"})
	}
}

// A cut-off is given up by two people, of whom the second may approve. Until then it goes on being delivered.
func TestDiscardingACutOffTakesTwo(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: allRoles})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	seq := d.ordered("disable", api.Order{Reason: "typed the wrong name"}).Changes[0].Seq
	path := fmt.Sprintf("/v1/outbox/%d", seq)
	officer, approver := d.by(theOfficer), d.by(theApprover)
	d.expect(d.Client.Post(t.Context(), path+"/park", api.Reason{Reason: "later"}, new(api.Changes)), api.Refused, "cannot be put off")

	var asked, again api.Changes
	officer.post(path+"/discard", api.Reason{Reason: "wrong name"}, http.StatusAccepted, &asked)
	officer.post(path+"/discard", api.Reason{Reason: "wrong name, again"}, http.StatusAccepted, &again)
	if asked.Approval == nil || again.Approval == nil || asked.Approval.ID != again.Approval.ID || !strings.Contains(asked.Note, "tokendesk approvals approve") {
		t.Fatalf("asked twice: %+v, %+v", asked, again)
	}
	var waits api.ChangeDetail
	if d.get(path, &waits); waits.State != "ready" {
		t.Errorf("the change is %+v", waits)
	}
	approve := approvalPath(asked.Approval.ID) + "/approve"
	officer.refused(approve, nil, http.StatusForbidden, "this takes the role approver")

	// Root has all roles, and may approve what it has not asked for itself.
	d.post(path+"/discard", api.Reason{Reason: "typo"}, http.StatusAccepted, &again)
	d.refused(approvalPath(again.Approval.ID)+"/approve", nil, http.StatusConflict)

	var done api.Outcomes
	approver.post(approve, nil, http.StatusOK, &done)
	d.expect(d.Client.Get(t.Context(), path, nil, new(api.ChangeDetail)), api.NotFound)
	if a := d.recorded("discard disable", "done"); a.Officer != "games" || !strings.Contains(a.Reason, "approved by man") || !strings.Contains(a.Reason, "wrong name") {
		t.Errorf("it is recorded as %+v", a)
	}
	approver.refused(approvalPath(again.Approval.ID)+"/approve", nil, http.StatusConflict, "stale")
	var left api.Approvals
	if d.get("/v1/approvals", &left); len(left.Approvals) != 0 {
		t.Errorf("still there: %+v", left)
	}
}

// Whether a user has another token is asked of the central service, too; if that cannot tell, there is none. A compromise
// waits for nobody.
func TestLastTokenIsCountedCentrally(t *testing.T) {
	d := start(t, world.Options{Config: "\n[policy]\napprove_last_token = true\n"})
	first, second := d.enrollBoth()
	d.ordered("assign", api.Order{User: "alice"})
	_, err := d.order("unassign", api.Order{})
	d.expect(err, api.Refused, "it leaves alice without an active token", "--reason")
	d.Slapd.Stop()
	_, err = d.order("unassign", api.Order{})
	d.expect(err, api.Refused, "the central service cannot tell of others")
	if out := d.ordered("unassign", api.Order{Reason: "left"}); out.Approval == nil || len(out.Tokens) != 0 {
		t.Errorf("while the central service is away: %+v", out)
	}
	if out := d.ordered("disable", api.Order{Tokens: []string{first}}); out.Approval != nil || len(out.Tokens) != 1 {
		t.Errorf("a token of the stock: %+v", out)
	}
	out := d.ordered("compromise", api.Order{Loss: "lost"})
	if out.Approval != nil || len(out.Tokens) != 1 || out.Tokens[0].ID != second || out.Tokens[0].Status != "compromised" {
		t.Errorf("a compromise: %+v", out)
	}
	for _, c := range out.Changes {
		if !c.CutOff || c.State != "waiting" {
			t.Errorf("its change %+v", c)
		}
	}
}
