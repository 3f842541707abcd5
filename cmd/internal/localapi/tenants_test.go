package localapi_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/client"
	"tokendesk/cmd/internal/world"
	"tokendesk/vault/secret"
)

const twoTenants = "\n[roles]\nofficers = \"games\"\napprovers = \"man\"\n[tenants.north]\nofficers = \"news\"\napprovers = \"lp\"\nauditors = \"lp\"\n[tenants.south]\nofficers = \"mail\"\n" +
	"[policy]\napprove_compromise_over = 1\n[types.mail]\noffered = true\n"

var (
	inNorth = aStranger        // an officer there
	inSouth = theAdministrator // an officer there
	reviews = theAuditor       // an approver and auditor of north
)

// take imports a fob of each serial for a tenant.
func (d *desk) take(tenant string, serials ...string) {
	d.Helper()
	lines := "serial,secret\n"
	for _, s := range serials {
		lines += s + "," + strings.Map(func(r rune) rune { return 'A' + r - '0' }, s) + strings.Repeat("A", 32-len(s)) + "\n"
	}
	var got api.Imported
	c := client.Client{Socket: d.Socket}
	if err := c.PostSecret(d.Context(), "/v1/import", api.Import{Tenant: tenant}, &got, secret.New([]byte(lines))); err != nil {
		d.Fatal(err)
	}
	for _, line := range got.Lines {
		if line.Error != "" {
			d.Fatalf("%+v", line)
		}
	}
}

func (d *desk) names(query string) []string {
	d.Helper()
	a := d.ask(http.MethodGet, "/v1/tokens"+query, nil, nil)
	var page api.Tokens
	if err := json.Unmarshal(a.body, &page); a.status != http.StatusOK || err != nil {
		d.Fatalf("%v: %s", err, a.text())
	}
	out := []string{}
	for _, t := range page.Tokens {
		out = append(out, t.ID)
	}
	return out
}

func (d *desk) on(action, tokens string, more ...string) answered {
	body := `{"tokens":["` + strings.ReplaceAll(tokens, " ", `","`) + `"]` + strings.Join(more, "") + `}`
	return d.ask(http.MethodPost, "/v1/tokens/actions/"+action, http.Header{"Content-Type": {"application/json"}}, []byte(body))
}

// Whoever has a role in a tenant sees and does what is about its tokens, and does not learn that there are others.
func TestTenants(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: twoTenants})
	d.take("", "1")
	d.take("north", "2", "3", "4")
	d.take("south", "5")
	officer, north, south, reviewer := d.by(theOfficer), d.by(inNorth), d.by(inSouth), d.by(reviews)

	for _, c := range []struct {
		who  *desk
		want string
	}{{officer, "fob-1 fob-2 fob-3 fob-4 fob-5"}, {north, "fob-2 fob-3 fob-4"}, {south, "fob-5"}, {reviewer, "fob-2 fob-3 fob-4"}} {
		if got := strings.Join(c.who.names(""), " "); got != c.want {
			t.Errorf("one sees %q, not %q", got, c.want)
		}
	}
	if got := north.names("?tenant=south"); len(got) > 0 {
		t.Errorf("north sees %q of south", got)
	}
	for _, query := range []string{"?limit=1", "?limit=1&after=fob-1", "?limit=1&tenant=south", "?limit=3&text=fob", "?limit=1&after=fob-4", "?limit=1&status=active&after=fob-2"} {
		a := north.ask(http.MethodGet, "/v1/tokens"+query, nil, nil)
		var page api.Tokens
		if err := json.Unmarshal(a.body, &page); err != nil {
			t.Fatal(err)
		}
		if last := len(page.Tokens) - 1; page.Next != "" && (last < 0 || page.Tokens[last].ID != page.Next) || strings.Contains(string(a.body), "fob-5") || strings.Contains(string(a.body), `fob-1"`) {
			t.Errorf("%s: %s", query, a.text())
		}
	}

	// Of others' tokens nothing is said, whatever is asked for, and nothing is done.
	const hidden = "no such token in the inventory"
	for _, path := range []string{"/v1/tokens/fob-5/token", "/v1/tokens/fob-5/token/history", "/v1/tokens/fob-1/token", "/v1/tokens/fob-5/token/handovers", "/v1/tokens/fob-5/token/receipt", "/v1/tokens/fob-5/token/label"} {
		if e := north.ask(http.MethodGet, path, nil, nil).failure(t); e.Code != api.NotFound || !strings.HasPrefix(e.Message, hidden) {
			t.Errorf("%s: %+v", path, e)
		}
	}
	for _, tokens := range []string{"fob-5", "fob-2 fob-5", "fob-1"} {
		for _, a := range []answered{north.on("disable", tokens), north.on("disable/preview", tokens)} {
			if e := a.failure(t); e.Code != api.NotFound || !strings.HasPrefix(e.Message, hidden) {
				t.Errorf("north disables %s: %+v", tokens, e)
			}
		}
	}
	for _, verb := range []string{"test", "resync", "reissue", "reseed", "wipe", "resolve"} {
		body := map[string]string{"test": `{"codes":["123456"]}`, "resync": `{"codes":["123456","123456"]}`, "reissue": `{"user":"bob"}`}[verb]
		if body == "" {
			body = "{}"
		}
		a := north.ask(http.MethodPost, "/v1/tokens/fob-5/token/"+verb, http.Header{"Content-Type": {"application/json"}}, []byte(body))
		if !strings.Contains(string(a.body), hidden) {
			t.Errorf("north and %s: %s", verb, a.text())
		}
	}
	if a := north.on("disable", "fob-2"); a.status != http.StatusOK {
		t.Errorf("north disables its own: %s", a.text())
	}
	if e := reviewer.on("enable", "fob-2").failure(t); e.Code != api.NotFound && e.Code != api.Forbidden {
		t.Errorf("an auditor enables: %+v", e)
	}

	// What is of the whole desk takes a role for the whole desk.
	doc := d.document()
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for method, op := range doc.Paths[path] {
			if op.Tenants || !slices.Contains(op.Roles, "officer") {
				continue
			}
			method = strings.ToUpper(method)
			a := north.ask(method, d.sane(path)[len(d.sane(path))-1], http.Header{"Content-Type": {"application/json"}}, doc.body(op))
			if e := a.failure(t); e.Code != api.Forbidden || !strings.Contains(e.Message, "of the whole desk") {
				t.Errorf("%s %s for an officer of north: %s", method, path, a.text())
			}
		}
	}

	// An approval is seen, and given, where all of it is.
	lost := `,"loss":"lost"`
	if a := north.on("compromise", "fob-3 fob-4", lost); a.status != http.StatusAccepted {
		t.Fatalf("two at a time: %s", a.text())
	}
	if a := officer.on("compromise", "fob-1 fob-5", lost); a.status != http.StatusAccepted {
		t.Fatalf("two at a time: %s", a.text())
	}
	for _, c := range []struct {
		who   *desk
		first bool
		both  bool
	}{{officer, true, true}, {north, true, false}, {reviewer, true, false}, {south, false, false}} {
		got := string(c.who.ask(http.MethodGet, "/v1/approvals", nil, nil).body)
		if strings.Contains(got, `"id":1,`) != c.first || strings.Contains(got, `"id":2,`) != c.both {
			t.Errorf("approvals: %s", got)
		}
	}
	for _, c := range []struct {
		who  *desk
		path string
	}{{reviewer, "/v1/approvals/2/approve"}, {reviewer, "/v1/approvals/2/reject"}, {north, "/v1/approvals/2/reject"}, {south, "/v1/approvals/1/reject"}} {
		a := c.who.ask(http.MethodPost, c.path, http.Header{"Content-Type": {"application/json"}}, []byte(`{"reason":"no"}`))
		if strings.HasSuffix(c.path, "approve") {
			a = c.who.ask(http.MethodPost, c.path, nil, nil)
		}
		if e := a.failure(t); e.Code != api.NotFound && e.Code != api.Forbidden {
			t.Errorf("%s: %s", c.path, a.text())
		}
	}
	if a := reviewer.ask(http.MethodPost, "/v1/approvals/1/approve", nil, nil); a.status != http.StatusOK {
		t.Errorf("the approver of north: %s", a.text())
	}

	// What an officer of one tenant adds is that tenant's; others say whose it is, and only they can change it.
	add := func(who *desk, more string) answered {
		return who.ask(http.MethodPost, "/v1/register", http.Header{"Content-Type": {"application/json"}}, []byte(`{"type":"mail","address":"a@example.org"`+more+`}`))
	}
	if a := add(north, ""); !strings.Contains(string(a.body), `"tenant":"north"`) {
		t.Errorf("an officer of north adds %s", a.text())
	}
	for _, bad := range []answered{add(north, `,"tenant":"south"`), add(officer, `,"tenant":"east"`), north.on("edit", "fob-2", `,"tenant":"south"`), officer.on("edit", "fob-2", `,"tenant":"east"`)} {
		bad.failure(t)
	}
	if a := officer.on("edit", "fob-2", `,"tenant":"south"`); a.status != http.StatusOK {
		t.Errorf("%s", a.text())
	}
	if got := strings.Join(south.names(""), " "); got != "fob-2 fob-5" {
		t.Errorf("south has %q", got)
	}

	// Of one that is gone, only its tenant learns.
	if a := south.on("delete", "fob-5"); a.status != http.StatusOK {
		t.Errorf("%s", a.text())
	}
	if e := north.ask(http.MethodGet, "/v1/tokens/fob-5/token", nil, nil).failure(t); strings.Contains(e.Message, "deleted") {
		t.Errorf("north learns of it: %+v", e)
	}
	if e := south.ask(http.MethodGet, "/v1/tokens/fob-5/token", nil, nil).failure(t); !strings.Contains(e.Message, "it was deleted") {
		t.Errorf("south: %+v", e)
	}
	if a := officer.on("delete", "fob-1"); a.status != http.StatusOK {
		t.Errorf("%s", a.text())
	}
	for _, name := range []string{"fob-1", "fob-2", "fob-3"} { // deleted, south's, and compromised
		a := north.ask(http.MethodGet, "/v1/tokens/"+name+"/token/history", nil, nil)
		if (name == "fob-3") != (a.status == http.StatusOK) {
			t.Errorf("the history of %s for north: %s", name, a.text())
		}
	}
	if a := north.ask(http.MethodGet, "/v1/status", nil, nil); a.status != http.StatusOK || strings.Contains(string(a.body), "fob-") || !strings.Contains(string(a.body), `"tokens":{}`) {
		t.Errorf("the status for north: %s", a.text())
	}
}
