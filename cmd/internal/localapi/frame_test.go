package localapi_test

import (
	"net/http"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/vault/secret/memscan"
)

// A secret goes from the socket into locked memory, however long it is, and from nowhere else can it be read again: the vault
// refuses these before it does anything with them.
func TestFramesLeaveNothingInMemory(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	d.lock()
	long := strings.Repeat("0123456789abcdef", 1+api.FrameSize/16)[:api.FrameSize-2]
	for _, pin := range []string{goodPIN, "xx" + long[2:]} {
		_, err := d.secretly("/v1/vault/unlock", nil, pin)
		d.expect(err, api.VaultTrouble, "has no PIN")
	}
	_, err := d.secretly("/v1/vault/init", api.VaultInit{Recipients: []string{d.Recipient}}, goodPIN, "AGE-SECRET-KEY-1FOR-THIS-TEST")
	d.expect(err, api.Refused, "exists")
	hits, err := memscan.Scan(d.DaemonPID(), map[string][]byte{
		"the PIN": []byte(goodPIN), "the identity": []byte("AGE-SECRET-KEY-1FOR-THIS-TEST"), "the beginning of a long one": []byte("xx" + long[2:64]),
		"its middle": []byte(long[8000:8064]), "its end": []byte(long[len(long)-64:]), "what is there": []byte(d.Dir + "/vault.db"),
	})
	d.must(nil, err)
	if len(hits) == 0 || hits[0].Pattern != "what is there" && hits[len(hits)-1].Pattern != "what is there" {
		t.Error("the search does not find what is there")
	}
	for _, h := range hits {
		if h.Pattern != "what is there" {
			t.Error(h)
		}
	}
}

// Bodies that no client of the desk sends.
func TestHostileFrames(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	frame := func(secrets ...string) []byte {
		b := make([]byte, api.FrameSize)
		var raw [][]byte
		for _, s := range secrets {
			raw = append(raw, []byte(s))
		}
		if err := api.PutFrame(b, raw...); err != nil {
			t.Fatal(err)
		}
		return b
	}
	ours := http.Header{"Content-Type": {api.SecretType}, "Expect": {"100-continue"}}
	good := frame(legalMark)
	beyond := frame()
	beyond[0], beyond[1] = 0xff, 0xff
	noise := frame(legalMark)
	noise[len(noise)-1] = 1
	for name, c := range map[string]struct {
		header http.Header
		body   []byte
		says   string
	}{
		"nothing":            {ours, nil, "the secrets of the request are damaged"},
		"a short frame":      {ours, good[:len(good)-1], "damaged"},
		"only zeroes":        {ours, frame()[:100], "damaged"},
		"a length beyond":    {ours, beyond, "damaged"},
		"noise at the end":   {ours, noise, "damaged"},
		"a secret too many":  {ours, frame(legalMark, legalMark), "damaged"},
		"broken JSON":        {ours, append(good, `{"`+legalMark...), "not valid JSON"},
		"an unknown field":   {ours, append(frame(legalMark), `{"`+legalMark+`":1}`...), "a field that this operation does not know"},
		"huge JSON":          {ours, append(frame(legalMark), `{"pin":"`+strings.Repeat(legalMark, 9000)+`"}`...), "larger than 64 KiB"},
		"two frames":         {ours, append(frame(legalMark), frame(legalMark)...), "not valid JSON"},
		"no expectation":     {http.Header{"Content-Type": {api.SecretType}}, good, "Expect: 100-continue"},
		"another type":       {http.Header{"Content-Type": {"text/" + legalMark}, "Expect": {"100-continue"}}, good, "the content type is neither"},
		"a frame as JSON":    {http.Header{"Content-Type": {"application/json"}}, good, "not valid JSON"},
		"a PIN in JSON":      {http.Header{"Content-Type": {"application/json"}}, []byte(`{"pin":"` + legalMark + `"}`), "a field that this operation does not know"},
		"an empty frame, 1k": {ours, make([]byte, 1024), "damaged"},
	} {
		a := d.ask(http.MethodPost, "/v1/vault/unlock", c.header, c.body)
		if e := a.failure(t); e.Code != api.Invalid || !strings.Contains(e.Message, c.says) || strings.Contains(strings.ToLower(a.text()), common) {
			t.Errorf("%s: status %d, %s", name, a.status, a.text())
		}
	}
	a := d.ask(http.MethodPost, "/v1/vault/unlock?pin="+legalMark, ours, good)
	if e := a.failure(t); e.Code != api.Invalid || strings.Contains(a.text(), legalMark) {
		t.Errorf("a PIN in the query: %s", a.text())
	}
	d.aliveAndDiscreet(common)
}
