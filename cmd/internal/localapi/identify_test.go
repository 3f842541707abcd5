package localapi_test

import (
	"encoding/base32"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// shows is what a fob that take has imported shows at a counter and after it.
func shows(t *testing.T, serial string, counter uint64, n int) string {
	t.Helper()
	encoded := strings.Map(func(r rune) rune { return 'A' + r - '0' }, serial) + strings.Repeat("A", 32-len(serial))
	seed, err := base32.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	s := secret.New(seed)
	defer s.Wipe()
	var codes []string
	for i := range n {
		codes = append(codes, hotpscan.Code(s, 6, counter+uint64(i)))
	}
	return `{"codes":["` + strings.Join(codes, `","`) + `"]}`
}

func (d *desk) identify(body string) answered {
	return d.ask(http.MethodPost, "/v1/identify", http.Header{"Content-Type": {"application/json"}}, []byte(body))
}

func (d *desk) identified(body string) (out api.Identified) {
	d.Helper()
	a := d.identify(body)
	if err := json.Unmarshal(a.body, &out); a.status != http.StatusOK || err != nil {
		d.Fatalf("%v: %s", err, a.text())
	}
	return out
}

// Whoever identifies a token learns what they may know of it, and of others' tokens not even how many there are.
func TestIdentify(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: twoTenants})
	d.take("", "1")
	d.take("north", "2", "3", "4")
	d.take("south", "5")
	officer, north, reviewer := d.by(theOfficer), d.by(inNorth), d.by(reviews)

	got := officer.identified(shows(t, "5", 20, 3))
	if !got.Certain || got.Token == nil || got.Token.ID != "fob-5" || got.Counter != 20 || got.Ahead != 20 || got.Searched != 5 || got.Window != 100 ||
		got.Chance > 5.1e-16 || got.Chance < 4.9e-16 || !strings.Contains(got.Next, "tokendesk resync fob-5 CODE CODE") {
		t.Errorf("%+v", got)
	}
	got = north.identified(shows(t, "3", 0, 2))
	if !got.Certain || got.Token == nil || got.Token.ID != "fob-3" || got.Ahead != 0 || got.Searched != 0 || got.Chance < 9.9e-11 || got.Chance > 1.1e-10 || got.Next != "" {
		t.Errorf("%+v", got)
	}
	a := north.identify(shows(t, "5", 3, 3))
	if err := json.Unmarshal(a.body, &got); err != nil || strings.Contains(a.text(), "fob") || strings.Contains(a.text(), "south") {
		t.Errorf("%v: %s", err, a.text())
	}
	if got := north.identified(shows(t, "5", 3, 3)); !got.Certain || !got.Hidden || got.Token != nil || got.Counter != 0 || got.Ahead != 0 || got.Searched != 0 {
		t.Errorf("%+v", got)
	}
	got = officer.identified(shows(t, "6", 0, 2))
	if got.Certain || got.More || got.Matches != 0 || got.Window != 10000 || got.Why == "" || got.Next == "" {
		t.Errorf("%+v", got)
	}
	if e := reviewer.identify(shows(t, "3", 0, 2)).failure(t); e.Code != api.Forbidden {
		t.Errorf("an approver: %+v", e)
	}
	for _, body := range []string{`{"codes":["123456"]}`, `{"codes":["123456","123456"]}`, `{"codes":["123456","12345x"]}`, `{"codes":["1","2","3","4"]}`, `{}`} {
		if a := officer.identify(body); a.failure(t).Code != api.Invalid || strings.Contains(a.text(), "12345") {
			t.Errorf("%s: %s", body, a.text())
		}
	}

	// What was looked for is on record, with the token and without the codes.
	var acts api.Acts
	if err := json.Unmarshal(officer.ask(http.MethodGet, "/v1/audit?limit=100", nil, nil).body, &acts); err != nil {
		t.Fatal(err)
	}
	var objects []string
	for _, a := range acts.Acts {
		if a.Action == "identify" {
			objects = append(objects, a.Object+" "+a.Outcome)
			if a.Object == "" && !strings.HasPrefix(a.Reason, "no token has these codes") {
				t.Errorf("%+v", a)
			}
		}
	}
	if got := strings.Join(objects[:4], ", "); got != "fob-5 done, fob-3 done, fob-5 done, fob-5 done" || len(objects) != 6 || objects[4] != " not-verified" || !strings.HasSuffix(objects[5], " forbidden") {
		t.Errorf("on record: %q", objects)
	}
}

// Many who ask at once are served one after another; who finds nothing again and again waits, and nobody else.
func TestIdentifyIsSlowedDown(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: twoTenants})
	d.take("", "1")
	officer, north := d.by(theOfficer), d.by(inNorth)
	var g sync.WaitGroup
	answers := make([]answered, 30)
	for i := range answers {
		g.Go(func() { answers[i] = officer.identify(shows(t, "7", uint64(3*i), 2)) })
	}
	g.Wait()
	taken, refused := 0, 0
	for _, a := range answers {
		if a.status == http.StatusOK {
			taken++
			continue
		}
		if e := a.failure(t); e.Code != api.Refused || !strings.Contains(e.Message, "tries in a row have failed: wait until ") {
			t.Errorf("%+v", e)
		}
		refused++
	}
	if taken < 11 || refused == 0 { // ten failures cost nothing, and the eleventh 2 seconds
		t.Errorf("%d were taken and %d refused", taken, refused)
	}
	if got := north.identified(shows(t, "7", 0, 2)); got.Matches != 0 {
		t.Errorf("%+v", got)
	}
	if got := d.identified(shows(t, "1", 0, 2)); !got.Certain {
		t.Errorf("%+v", got)
	}
}
