package localapi_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

// enrollBoth enrolls both slots of the key as stock, and returns their tokens' names.
func (d *desk) enrollBoth() (first, second string) {
	d.Helper()
	d.enroll()
	_, err := d.Client.Work(d.Context(), "/v1/enroll", api.Enroll{Device: string(device.YubiKeyID(keySerial)), App: "otp1", Digits: 6}, d.touch)
	d.must(nil, err)
	return string(device.SlotToken(device.YubiKeyID(keySerial), 1)), token
}

// listed are the names on the pages of a list, of so many tokens each.
func (d *desk) listed(limit int, query url.Values) (names []string) {
	d.Helper()
	query.Set("limit", fmt.Sprint(limit))
	for {
		var page api.Tokens
		d.must(nil, d.Client.Get(d.Context(), "/v1/tokens", query, &page))
		for _, t := range page.Tokens {
			names = append(names, t.ID)
		}
		if page.Next == "" {
			return names
		}
		query.Set("after", page.Next)
	}
}

func TestListByExpiry(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	first, second := d.enrollBoth()
	end := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	earlier := end.Add(-time.Hour)
	d.ordered("edit", api.Order{Tokens: []string{first}, Expires: &end})
	d.ordered("edit", api.Order{Tokens: []string{second}, Expires: &earlier})
	at := func(t time.Time) []string { return []string{t.Format(time.RFC3339)} }
	for name, c := range map[string]struct {
		query url.Values
		want  []string
	}{
		"all":                      {url.Values{}, []string{first, second}},
		"of the type":              {url.Values{"type": {"yubikey-hotp"}}, []string{first, second}},
		"by expiry":                {url.Values{"sort": {"expires"}}, []string{second, first}},
		"expiring":                 {url.Values{"expiring_before": at(end.Add(time.Second))}, []string{first, second}},
		"expiring first":           {url.Values{"expiring_before": at(end.Add(-time.Minute))}, []string{second}},
		"none yet":                 {url.Values{"expiring_before": at(time.Now())}, nil},
		"expiring, of a device":    {url.Values{"expiring_before": at(end.Add(time.Second)), "device": {"yk-10000001"}, "sort": {"expires"}}, []string{second, first}},
		"expiring, of another":     {url.Values{"expiring_before": at(end.Add(time.Second)), "device": {"yk-10000002"}}, nil},
		"expiring, of nobody here": {url.Values{"expiring_before": at(end.Add(time.Second)), "owner": {"alice"}}, nil},
		"expiring, active":         {url.Values{"expiring_before": at(end.Add(time.Second)), "status": {"active"}}, []string{first, second}},
	} {
		for _, limit := range []int{1, 100} {
			if got := d.listed(limit, maps.Clone(c.query)); !slices.Equal(got, c.want) {
				t.Errorf("%s, in pages of %d: %v, not %v", name, limit, got, c.want)
			}
		}
	}
	for query, words := range map[string]string{
		"sort=updated": "cannot be paged by updated", "sort=last_used": "cannot be paged by last_used", "sort=colour": "query.sort",
		"type=abacus": "there is no type of this code", "expiring_before=soon": "expiring_before",
	} {
		if a := d.ask(http.MethodGet, "/v1/tokens?"+query, nil, nil); a.failure(t).Code != api.Invalid || !strings.Contains(a.failure(t).Message, words) {
			t.Errorf("%s: %s", query, a.text())
		}
	}
	never := time.Time{}
	d.ordered("edit", api.Order{Tokens: []string{first}, Expires: &never})
	if got := d.listed(100, url.Values{"sort": {"expires"}}); !slices.Equal(got, []string{second}) {
		t.Errorf("after one is to live for ever: %v", got)
	}
}

const retiredType = "\n[types.yubikey-hotp]\nname = \"Touch key\"\ndescription = \"types a code\"\nretired = true\ninstead = \"a passkey\"\n"

// The administrator's words are shown, and a retired type is not enrolled any more.
func TestTypes(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	d.enroll()
	var all api.Types
	d.get("/v1/types", &all)
	if len(all.Types) != 7 || all.Types[0].Code != "yubikey-hotp" || all.Types[0].Name == "" || all.Types[0].Retired || !all.Types[0].Offered || all.Types[4].Offered || !slices.Contains(all.Types[0].Actions, "resync") {
		t.Errorf("the types: %+v", all)
	}
	var shown api.Token
	d.get("/v1/tokens/"+token, &shown)
	if shown.Type != "yubikey-hotp" || shown.TypeName != all.Types[0].Name || shown.OutOfDate != "" {
		t.Errorf("a token: %+v", shown)
	}
	d.configure("[devices]", strings.TrimSpace(retiredType)+"\n\n[devices]")
	d.get("/v1/types", &all)
	if k := all.Types[0]; k.Name != "Touch key" || k.Description != "types a code" || !k.Retired || k.Instead != "a passkey" {
		t.Errorf("the type: %+v", k)
	}
	if d.get("/v1/tokens/"+token, &shown); shown.TypeName != "Touch key" || shown.OutOfDate != "Touch key is retired: register a passkey instead" {
		t.Errorf("a token of a retired type: %+v", shown)
	}
	_, err := d.Client.Work(t.Context(), "/v1/enroll", api.Enroll{Device: string(device.YubiKeyID(keySerial)), App: "otp1", Digits: 6}, d.touch)
	d.expect(err, api.Refused, "register a passkey instead")
}

// What a token goes through is in its history, also when it is gone.
func TestHistoryOfAToken(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	first, second := d.enrollBoth()
	d.ordered("assign", api.Order{User: "alice"})
	d.ordered("compromise", api.Order{Loss: "stolen", Reason: "on the train"})
	var shown api.Token
	d.get("/v1/tokens/"+second, &shown)
	if l := shown.Loss; shown.Status != "compromised" || l == nil || l.Kind != "stolen" || l.Words != "on the train" || l.Owner != "alice" || shown.Owner != "" {
		t.Errorf("a stolen token: %+v, %+v", shown, shown.Loss)
	}
	if !slices.Contains(shown.Actions, "wipe") || slices.Contains(shown.Actions, "enable") {
		t.Errorf("it is offered %v", shown.Actions)
	}
	_, err := d.order("enable", api.Order{})
	d.expect(err, api.Refused, "never comes back")
	var intent api.Intent
	d.must(nil, d.Client.Post(t.Context(), "/v1/tokens/actions/delete/preview", api.Order{Tokens: []string{second}}, &intent))
	if e := intent.Effects; !intent.Permanent || len(e) != 1 || e[0].To != "" || e[0].From != "compromised" {
		t.Errorf("the preview: %+v", intent)
	}
	if out := d.ordered("delete", api.Order{}); len(out.Tokens) != 0 || len(out.Changes) != 1 || out.Changes[0].Kind != "remove" || !out.Changes[0].CutOff {
		t.Errorf("a delete: %+v", out)
	}
	d.expect(d.Client.Get(t.Context(), "/v1/tokens/"+second, nil, &shown), api.NotFound)

	var acts []string
	before := ""
	for {
		q := url.Values{"limit": {"2"}}
		if before != "" {
			q.Set("before", before)
		}
		var page api.Acts
		d.must(nil, d.Client.Get(t.Context(), "/v1/tokens/"+second+"/history", q, &page))
		for _, a := range page.Acts {
			if a.Object != second {
				t.Errorf("%+v is about another one", a)
			}
			acts = append(acts, a.Action+" "+a.Outcome)
		}
		if page.Next == 0 {
			break
		}
		before = fmt.Sprint(page.Next)
	}
	want := []string{"delete done", "enable refused", "compromise done", "assign done"}
	if len(acts) < len(want) || !slices.Equal(acts[:len(want)], want) || !strings.HasPrefix(acts[len(acts)-1], "enroll") {
		t.Errorf("the history: %v", acts)
	}
	if other := d.listed(100, url.Values{}); !slices.Equal(other, []string{first}) {
		t.Errorf("left: %v", other)
	}
}

// All tokens of an order, or none.
func TestOrderIsAllOrNone(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	first, second := d.enrollBoth()
	d.ordered("disable", api.Order{Tokens: []string{second}})
	_, err := d.order("disable", api.Order{Tokens: []string{first, second}})
	d.expect(err, api.Refused, second+" is disabled")
	if a := d.recorded("disable", "refused"); a.Object != first+" and 1 more" {
		t.Errorf("it is recorded as %+v", a)
	}
	var shown api.Token
	if d.get("/v1/tokens/"+first, &shown); shown.Status != "active" {
		t.Errorf("the first one is %s", shown.Status)
	}
	d.ordered("enable", api.Order{Tokens: []string{second}})
	out := d.ordered("disable", api.Order{Tokens: []string{second, first}})
	if len(out.Tokens) != 2 || len(out.Changes) != 2 || out.Tokens[0].Status != "disabled" || out.Tokens[1].Status != "disabled" {
		t.Errorf("both at once: %+v", out)
	}
	for _, c := range []struct {
		o     api.Order
		code  api.Code
		words string
	}{
		{api.Order{Tokens: []string{"yk-99999999/otp1"}}, api.NotFound, "no such token"},
		{api.Order{Tokens: []string{}}, api.Invalid, "body.tokens"},
		{api.Order{Tokens: []string{first}, Reason: strings.Repeat("ü", 150)}, api.Invalid, "at most 200 bytes"},
		{api.Order{Tokens: []string{first}, Reason: "two\nlines"}, api.Invalid, "words in one line"},
	} {
		_, err := d.order("enable", c.o)
		d.expect(err, c.code, c.words)
	}
	_, err = d.order("expire", api.Order{Tokens: []string{first}})
	d.expect(err, api.Refused, "expires by itself")
	_, err = d.order("wipe", api.Order{Tokens: []string{first}})
	d.expect(err, api.Invalid, "path.action")
}

// The table is what the runner goes by.
func TestLifecycleIsTold(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	var table api.Lifecycle
	d.get("/v1/lifecycle", &table)
	i := slices.IndexFunc(table.Rules, func(r api.LifecycleRule) bool { return r.Action == "compromise" })
	if i < 0 {
		t.Fatalf("%+v", table)
	}
	if r := table.Rules[i]; r.To != "compromised" || !r.Permanent || !r.Reason || r.Role != "officer" || !slices.Equal(r.Pushes, []string{"unassign", "disable"}) || r.Text == "" {
		t.Errorf("the rule for compromise: %+v", r)
	}
}
