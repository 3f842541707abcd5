package localapi_test

import (
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

// reissue asks for it, and touches the key.
func (d *desk) reissue(r api.Reissue) (api.Outcome, error) {
	d.Helper()
	return d.Client.Work(d.Context(), "/v1/tokens/"+token+"/reissue", r, d.touch)
}

func TestReissueIsAskedForInItsShapes(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	other := string(device.SlotToken(device.YubiKeyID(keySerial), 1))
	alice := "alice"
	for words, r := range map[string]api.Reissue{
		"either replaced by another one, or waits": {User: "bob", With: other, WithoutDevice: true},
		"only asked when another one replaces it":  {User: "bob", Old: "lost"},
		"body.old":  {With: other, Old: "mislaid"},
		"body.with": {With: "yk-1/OTP3"},
		"body.reason: expected at most 200 bytes": {User: "bob", Reason: strings.Repeat("é", 101)},
		"body.words: expected at most 200 bytes":  {With: other, Old: "other", Words: strings.Repeat("é", 101)},
		"body.user":                               {User: "bob the builder"},
		"body.codes":                              {User: "bob", Codes: []string{"1", "2", "3"}},
		"body.digits":                             {With: other, Digits: 7},
		"body.owner":                              {User: "bob", Owner: new(string(make([]byte, 65)))},
	} {
		_, err := d.reissue(r)
		d.expect(err, api.Invalid)
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
	for words, r := range map[string]api.Reissue{
		"a reissue needs a new owner":              {},
		"takes a reason":                           {User: "bob", ContinueOffline: true},
		"belongs to alice by now, and that is not": {User: "carol", Owner: new("bob")},
		"so two codes":                             {User: "bob", Codes: []string{"123456", "123457"}},
	} {
		_, err := d.reissue(r)
		if words == "so two codes" { // which are for another type
			words = "is verified by codes of its new seed"
		}
		d.expect(err, api.Refused)
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q does not say %q", err, words)
		}
	}
	// Without the device it is a success that says what is left to do.
	out, err := d.reissue(api.Reissue{User: "bob", WithoutDevice: true, Owner: &alice})
	d.must(nil, err)
	want := "alice is cut off; insert yk-" + keySerial.String() + " and run tokendesk resolve " + token + " to reseed it for bob"
	if out.Text != want || out.Token == nil || out.Token.Owner != "" || !strings.Contains(out.Token.Unfinished, "waits for the device") || len(out.Changes) != 1 {
		t.Errorf("%+v, %+v", out, out.Token)
	}
	for _, r := range []api.Resolve{
		{Undo: true, ContinueOffline: true, Reason: "x"}, {Undo: true, Codes: []string{"1", "2"}}, {ContinueOffline: true, Codes: []string{"1", "2"}, Reason: "x"},
	} {
		_, err := d.Client.Work(d.Context(), "/v1/tokens/"+token+"/resolve", r, d.touch)
		d.expect(err, api.Invalid)
	}
	_, err = d.Client.Work(d.Context(), "/v1/tokens/"+token+"/resolve", api.Resolve{ContinueOffline: true, Reason: "x"}, d.touch)
	d.expect(err, api.Refused)
	out, err = d.Client.Work(d.Context(), "/v1/tokens/"+token+"/resolve", api.Resolve{}, d.touch)
	d.must(nil, err)
	if out.Text != "" || out.Token.Owner != "bob" || out.Token.Generation != 2 {
		t.Errorf("%+v, %+v", out, out.Token)
	}
	// The outcome of a replacement is about what comes.
	out, err = d.reissue(api.Reissue{With: other, Old: "damaged"})
	d.must(nil, err)
	if out.Token.ID != other || out.Token.Owner != "bob" || len(out.Changes) != 4 {
		t.Errorf("%+v, %+v", out, out.Token)
	}
	if a := d.recorded("compromise", "done"); a.Object != token || !strings.Contains(a.Reason, "user bob; reason: damaged") {
		t.Errorf("%+v", a)
	}
}

// A retired type comes in nobody's place; what is in the inventory already can.
func TestReplacementByARetiredType(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: retiredType})
	_, err := d.Client.Work(d.Context(), "/v1/tokens/yk-1/otp1/reissue", api.Reissue{User: "bob", With: token}, d.touch)
	d.expect(err, api.Refused)
	if !strings.Contains(err.Error(), "a passkey") {
		t.Errorf("%v", err)
	}
	_, err = d.Client.Work(d.Context(), "/v1/tokens/yk-1/otp1/reissue", api.Reissue{User: "bob"}, d.touch)
	d.expect(err, api.NotFound)
}
