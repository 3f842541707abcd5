package localapi_test

import (
	"fmt"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
)

// A cut-off is given up by two people, of whom the second may approve. Until then it goes on being delivered.
func TestDiscardingACutOffTakesTwo(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: "\n[roles]\napprovers = \"" + nameOfGames + "\"\n"})
	d.configure("socket = ", "group = \"nogroup\"\nsocket = ")
	d.enroll()
	token := "/v1/tokens/" + string(device.SlotToken(device.YubiKeyID(keySerial), 2))
	d.must(nil, d.Client.Post(t.Context(), token+"/assign", api.User{User: "alice"}, new(api.Outcome)))
	var disabled api.Outcome
	d.must(nil, d.Client.Post(t.Context(), token+"/disable", nil, &disabled))
	seq := disabled.Changes[0].Seq
	path := fmt.Sprintf("/v1/outbox/%d", seq)
	discard := func(uid, gid uint32, reason string) (int, string) {
		d.open()
		return d.as(uid, gid, "outbox", "discard", fmt.Sprint(seq), "--reason", reason, "--yes")
	}
	waits := func(proposal string) {
		t.Helper()
		var c api.ChangeDetail
		d.must(nil, d.Client.Get(t.Context(), path, nil, &c))
		if c.Proposal != proposal || c.State != "ready" {
			t.Errorf("change %d is %+v", seq, c)
		}
	}
	waits("")
	d.expect(d.Client.Post(t.Context(), path+"/park", api.Reason{Reason: "later"}, new(api.Changes)), api.Refused, "cannot be put off")

	var left api.Changes
	for range 2 { // nobody becomes two by asking twice
		d.must(nil, d.Client.Post(t.Context(), path+"/discard", api.Reason{Reason: "typed the wrong name"}, &left))
		if !strings.Contains(left.Note, "until an approver other than you confirms") {
			t.Errorf("root alone: %+v", left)
		}
		waits("root wants it discarded: typed the wrong name")
	}
	if code, said := discard(nobody, nogroup, "me too"); code != 0 || !strings.Contains(said, "until an approver other") {
		t.Errorf("somebody who may not approve: exit code %d: %s", code, said)
	}
	waits("nobody wants it discarded: me too")
	d.must(nil, d.Client.Post(t.Context(), path+"/discard", api.Reason{Reason: "typed the wrong name"}, &left))
	waits("root wants it discarded: typed the wrong name")

	d.configure("group = \"nogroup\"", "group = \""+nameOfGames+"\"")
	if code, said := discard(games, gamesGroup, "seen"); code != 0 || strings.Contains(said, "disable") {
		t.Errorf("the approver: exit code %d: %s", code, said)
	}
	d.expect(d.Client.Get(t.Context(), path, nil, new(api.ChangeDetail)), api.NotFound)
	act := d.recorded("discard disable", "done")
	if act.Officer != "root" || !strings.Contains(act.Reason, "approved by games") || !strings.Contains(act.Reason, "typed the wrong name; approver: seen") {
		t.Errorf("it is recorded as %+v", act)
	}
}
