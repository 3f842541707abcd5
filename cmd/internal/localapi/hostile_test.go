package localapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

// The marks stand for something secret that a caller has put in the wrong place. legalMark is also a legal name of a
// user; such a name is told back where it is unknown, and nowhere else.
const (
	mark      = "S3CR3T-mark-…/#"
	legalMark = "S3CR3T.mark"
	common    = "s3cr3t"
)

// hostile are values for any field, as JSON.
func hostile() []string {
	text, _ := json.Marshal(mark)
	return []string{
		string(text), `"` + legalMark + `"`, `["` + legalMark + `"]`, `{"` + legalMark + `":"` + legalMark + `"}`, `[[[` + string(text) + `]]]`,
		`null`, `-1`, `0.5`, `7`, `1e400`, `123456789012345678901234567890`, `18446744073709551615`, `""`,
		`"\u0000` + legalMark + `"`, `"` + legalMark + `\n\u001b[31m"`, `"` + strings.Repeat(legalMark, 500) + `"`, `"\ud800` + legalMark + `"`,
		`"yk-4294967296"`, `"yk-99999999999"`, strings.Repeat("[", 200) + strings.Repeat("]", 200),
	}
}

// TestHostileRequests sends what no program of the desk would, to every operation that the desk describes.
func TestHostileRequests(t *testing.T) {
	d := start(t, world.Options{})
	d.enroll()
	doc := d.document()
	sent := 0
	try := func(method, path string, header http.Header, body []byte, mayName bool) {
		t.Helper()
		sent++
		a := d.ask(method, path, header, body)
		about := fmt.Sprintf("%s %.200q %v %.300q: status %d %s", method, path, header, body, a.status, a.text())
		switch said := a.text(); {
		case a.header.Get(api.VersionHeader) != api.Version:
			t.Errorf("an answer without version: %s", about)
		case a.status >= http.StatusInternalServerError:
			t.Errorf("the desk blames itself: %s", about)
		case a.status >= http.StatusBadRequest:
			a.failure(t)
			fallthrough
		default:
			if mayName {
				said = strings.NewReplacer(`no user \"`+legalMark+`\"`, "", `"user":"`+legalMark+`"`, "").Replace(said)
			}
			if strings.Contains(strings.ToLower(said), common) {
				t.Errorf("the mark comes back: %s", about)
			}
		}
		if t.Failed() {
			t.FailNow() // one is enough to read
		}
		if a.status == http.StatusOK && strings.HasPrefix(path, "/v1/vault/lock") { // as it was to
			if err := d.Unlock(d.Context(), ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for method, a := range doc.Paths[path] {
			method = strings.ToUpper(method)
			paths := doc.paths(path, a)
			names := strings.Contains(path, "{user}") || strings.HasSuffix(path, "/history") // which tells whose name was unknown
			for _, p := range paths {
				try(method, p, nil, nil, names)
			}
			for _, p := range d.sane(path) {
				for _, header := range headers() {
					try(method, p, header, doc.body(a), names)
				}
				for _, other := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", legalMark} {
					try(other, p, nil, []byte(mark), false)
				}
				if a.RequestBody != nil {
					for body, mayName := range doc.bodies(a) {
						try(method, p, http.Header{"Content-Type": {"application/json"}}, []byte(body), mayName)
					}
				}
			}
		}
	}
	for _, path := range []string{
		"/", "*", "/" + legalMark, "/v1/tokens/" + legalMark, "/v1/" + url.PathEscape(mark), "//" + legalMark, "/v1/../" + legalMark, "/v1/tokens/" + legalMark + "/",
		"/v1/./status?" + legalMark, "/v1/status/", "/v1/status//" + legalMark, "/schemas/" + legalMark + ".json", "/docs?" + legalMark, "/v1%2fstatus%2f" + legalMark,
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
			if a := d.ask(method, path, nil, nil); a.status != http.StatusNotFound && a.status != http.StatusBadRequest || strings.Contains(strings.ToLower(a.text()), common) {
				t.Errorf("%s %q: status %d %s", method, path, a.status, a.text())
			} else if method != "HEAD" && a.status == http.StatusNotFound {
				a.failure(t)
			}
		}
	}
	t.Logf("%d requests", sent)
	d.aliveAndDiscreet(common)
}

// aliveAndDiscreet checks that the daemon still answers, that its log is silent about something, and that it ends in order.
func (d *desk) aliveAndDiscreet(secret string) {
	d.Helper()
	var status api.Status
	if err := d.Client.Get(d.Context(), "/v1/status", nil, &status); err != nil || status.Vault.State != "open" {
		d.Errorf("the daemon does not answer any more: %+v, %v", status, err)
	}
	log, err := os.ReadFile(filepath.Join(d.Dir, "tokendeskd.log"))
	if err != nil {
		d.Fatal(err)
	}
	for line := range strings.Lines(strings.ToLower(string(log))) {
		if strings.Contains(line, secret) {
			d.Errorf("the daemon's log has the mark: %s", line)
		}
	}
	d.http.CloseIdleConnections()
	if err := d.StopDaemon(); err != nil {
		d.Error(err)
	}
	if state, err := d.AwaitDaemonEnd(); err != nil || state.ExitCode() != 0 {
		d.Errorf("the daemon ended with %v, %v", state, err)
	}
}

// sane are paths that lead to the operation: with the enrolled token and with one that nobody knows.
func (d *desk) sane(path string) []string {
	token := string(device.SlotToken(device.YubiKeyID(keySerial), 2))
	path = strings.NewReplacer("{seq}", "1", "{id}", "1", "{action}", "assign", "{user}", "carol", "{report}", "stock", "{sha256}", strings.Repeat("0", 64)).Replace(path)
	known := strings.NewReplacer("{device}/{application}", token, "{device}", string(device.YubiKeyID(keySerial))).Replace(path)
	if known == path {
		return []string{path}
	}
	return []string{known, strings.NewReplacer("{device}/{application}", "yk-99999999/otp1", "{device}", "yk-99999999").Replace(path)}
}

// paths are those of one operation with hostile values in its path and its query.
func (doc document) paths(path string, a *action) (all []string) {
	values := []string{
		mark, legalMark, "\x00" + legalMark, "\r\nX-" + legalMark + ": 1", "..", ".", "%", "-1", "0", "1e9", "18446744073709551616",
		"yk-4294967296", "yk-1\n" + legalMark, strings.Repeat("9", 40), strings.Repeat(legalMark, 500), "otp3", "*", "\xff" + legalMark,
	}
	plain := path
	for _, p := range a.Parameters {
		if p.In == "path" {
			plain = strings.ReplaceAll(plain, "{"+p.Name+"}", fmt.Sprint(doc.example(p.Schema)))
		}
	}
	for _, value := range values {
		all = append(all, plain+"?"+legalMark+"="+url.QueryEscape(value), plain+"?"+url.QueryEscape(value), plain+"?%zz"+legalMark+";"+legalMark)
		for _, p := range a.Parameters {
			if p.In == "query" {
				all = append(all, plain+"?"+p.Name+"="+url.QueryEscape(value), plain+"?"+p.Name+"="+url.QueryEscape(value)+"&"+p.Name+"="+legalMark)
				continue
			}
			one := strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(value))
			for _, other := range a.Parameters {
				one = strings.ReplaceAll(one, "{"+other.Name+"}", fmt.Sprint(doc.example(other.Schema)))
			}
			all = append(all, one)
		}
	}
	return all
}

func headers() (all []http.Header) {
	for _, value := range []string{legalMark, "text/" + legalMark, "multipart/form-data; boundary=" + legalMark, "application/x-www-form-urlencoded", "application/cbor", "application/json; charset=" + legalMark} {
		all = append(all, http.Header{"Content-Type": {value}}, http.Header{"Accept": {value}})
	}
	return append(all, http.Header{legalMark: {legalMark}}, http.Header{"Accept-Encoding": {legalMark}},
		http.Header{"Authorization": {"Bearer " + legalMark}}, http.Header{"Cookie": {legalMark + "=" + legalMark}}, http.Header{"If-Match": {legalMark}})
}

// body is one that obeys the description, and has no effect: it names a key that is not inserted.
func (doc document) body(a *action) []byte {
	if a.RequestBody == nil {
		return nil
	}
	b, _ := json.Marshal(doc.example(a.RequestBody.Content["application/json"].Schema))
	return b
}

// bodies are hostile ones of one operation, with whether they use the mark as a user's name.
func (doc document) bodies(a *action) map[string]bool {
	valid := string(doc.body(a))
	all := map[string]bool{
		"": false, mark: false, "{": false, `{"` + legalMark: false, `{"` + legalMark + `"`: false, "\x00" + legalMark: false, "\xef\xbb\xbf" + valid + legalMark: false,
		`"` + legalMark + `"`: false, `["` + legalMark + `"]`: false, "[]": false, "null": false, "1": false, "true": false, "\"\xff" + legalMark + `"`: false,
		valid + legalMark: false, valid + valid: false, valid[:len(valid)-1]: false, valid[:len(valid)-1] + `,"` + legalMark + `":"` + legalMark + `"}`: false,
		`{"` + legalMark + `":{"` + legalMark + `":1}}`: false, `{"` + strings.Repeat(legalMark, 500) + `":1}`: false,
		strings.Repeat(`{"`+legalMark+`":`, 5000):                               false,
		strings.Repeat("[", 20000) + strings.Repeat("]", 20000):                 false,
		`{"codes":["` + strings.Repeat(legalMark, 1<<20/len(legalMark)) + `"]}`: false,
		strings.Repeat(" ", 1<<20):                                              false, string(bytes.Repeat([]byte{0}, 1<<20)): false,
	}
	fields := doc.resolve(a.RequestBody.Content["application/json"].Schema).Properties
	for name, field := range fields {
		for _, value := range hostile() {
			if b := replace(valid, name, value); b != "" {
				all[b] = name == "user"
			}
			all[strings.TrimSuffix(valid, "}")+`,"`+name+`":`+value+"}"] = name == "user" // a second time
			if field.Items != nil {
				all[replace(valid, name, "["+value+"]")] = false
				all[replace(valid, name, "["+value+","+value+","+value+"]")] = false
				all[replace(valid, name, "["+strings.Repeat(value+",", 100)+value+"]")] = false
			}
		}
	}
	return all
}

// replace gives one field of a JSON object another value.
func replace(object, field, value string) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(object), &fields) != nil {
		return ""
	}
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(fields)) {
		old := string(fields[name])
		if name == field {
			old = value
		}
		fmt.Fprintf(&b, "%s%q:%s", map[bool]string{true: "{", false: ","}[i == 0], name, old)
	}
	return b.String() + "}"
}
