package localapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

const (
	keySerial device.Serial = 10000001
	patience                = 20 * time.Second
)

var bin string

func TestMain(m *testing.M) { os.Exit(world.RunTests(m, &bin)) }

// desk is a world with one identified key.
type desk struct {
	*testing.T
	*world.World
	http *http.Client
}

func start(t *testing.T, o world.Options) *desk {
	t.Helper()
	t.Parallel()
	o.Bin = bin
	o.Keys = []string{"serial=" + keySerial.String() + ",fw=5.4.3"}
	w, err := world.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		logs := w.Logs()
		if strings.Contains(logs, "DATA RACE") || strings.Contains(logs, "panic") {
			t.Errorf("the daemon's log tells of a fault:\n%s", logs)
		}
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	})
	d := &desk{T: t, World: w, http: &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.Socket)
		}, ExpectContinueTimeout: patience},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	t.Cleanup(d.http.CloseIdleConnections)
	if err := w.AwaitKeys(d.Context(), keySerial); err != nil {
		t.Fatal(err)
	}
	return d
}

// answered is all of an answer, or of its beginning if it would never end.
type answered struct {
	status int
	header http.Header
	body   []byte
}

// text is everything in which a caller's words could come back.
func (a answered) text() string {
	var b bytes.Buffer
	a.header.Write(&b)
	b.Write(a.body)
	return b.String()
}

// failure is the error that an answer consists of.
func (a answered) failure(t *testing.T) api.Error {
	t.Helper()
	var e api.Error
	strict := json.NewDecoder(bytes.NewReader(a.body))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&e); err != nil || e.Code == "" || e.Message == "" || a.header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d without an error of the desk: %v: %s %s", a.status, err, a.header, a.body)
	}
	return e
}

// ask sends a request and reads its answer; of one in lines only up to where it waits for somebody.
func (d *desk) ask(method, path string, header http.Header, body []byte) answered {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://tokendesk/", bytes.NewReader(body))
	if err != nil {
		d.Fatal(err)
	}
	r.URL.Opaque = path // goes out as it is
	for name, values := range header {
		r.Header[name] = values
	}
	response, err := d.http.Do(r)
	if err != nil {
		d.Fatalf("%s %.200q: %v", method, path, err)
	}
	defer response.Body.Close()
	a := answered{status: response.StatusCode, header: response.Header}
	if response.Header.Get("Content-Type") != "application/x-ndjson" {
		if a.body, err = io.ReadAll(response.Body); err != nil {
			d.Fatalf("%s %.200q: %v", method, path, err)
		}
		return a
	}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		a.body = append(append(a.body, lines.Bytes()...), '\n')
		if method == http.MethodGet || bytes.Contains(lines.Bytes(), []byte(`"kind":"touch"`)) {
			break
		}
	}
	return a
}

// enroll enrolls the key as stock.
func (d *desk) enroll() {
	d.Helper()
	_, err := d.Client.Work(d.Context(), "/v1/enroll", api.Enroll{Device: string(device.YubiKeyID(keySerial)), App: "otp2", Digits: 6}, d.touch)
	if err != nil {
		d.Fatal(err)
	}
}

func (d *desk) touch(p api.Progress) {
	if p.Kind != "touch" {
		return
	}
	if err := d.Press(d.Context(), keySerial, p.Slot == 2); err != nil {
		d.Error(err)
	}
}

// token is the token of the enrolled key.
var token = string(device.SlotToken(device.YubiKeyID(keySerial), 2))

// order has something done with that token, unless the order names others.
func (d *desk) order(action string, o api.Order) (out api.Outcomes, err error) {
	d.Helper()
	if o.Tokens == nil {
		o.Tokens = []string{token}
	}
	err = d.Client.Post(d.Context(), "/v1/tokens/actions/"+action, o, &out)
	return out, err
}

func (d *desk) ordered(action string, o api.Order) api.Outcomes {
	d.Helper()
	out, err := d.order(action, o)
	d.must(nil, err)
	return out
}
