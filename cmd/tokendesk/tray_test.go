package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/otpslot"
	"tokendesk/vault/secret"
)

// asked is a line that asks for touches of a key in a tray, for people or for programs.
var asked = regexp.MustCompile(`^● touch yk-([0-9]+) (twice|again|once more)|"key":{"device":"yk-([0-9]+)","state":"ready"}`)

// nobody is touched.
const nobody = "nobody"

// trayHand is the hand over a tray.
type trayHand struct {
	ts     *testscript.TestScript
	more   int             // touches of each key that nobody has asked for
	but    string          // a key that it leaves alone
	pull   string          // a key that it pulls when it is to be touched, and inserts again when that is noticed
	early  bool            // Ctrl-C when the first key is done
	user   string          // who plays, if not the officer
	all    string          // the only key that is touched, at once as often as it is to be
	long   map[string]bool // how a key was to be touched
	pulled bool
}

// cmdProgram puts a seed into a key behind the desk's back: program SERIAL SLOT SEED COUNTER.
func cmdProgram(ts *testscript.TestScript, _ bool, args []string) {
	s, ctx := on(ts), context.Background()
	keys, err := s.Emulator.List(ctx)
	ts.Check(err)
	slot, err := strconv.Atoi(args[1])
	ts.Check(err)
	seed, err := hex.DecodeString(args[2])
	ts.Check(err)
	counter, err := strconv.ParseUint(args[3], 10, 64)
	ts.Check(err)
	for _, k := range keys {
		if k.Serial.String() != args[0] {
			continue
		}
		report, err := bussocket.New(s.EmulatorSocket).Open(ctx, k.Port+":1.0")
		ts.Check(err)
		defer report.Close()
		otp, err := otpslot.New(report).Slot(slot)
		ts.Check(err)
		ts.Check(otp.Program(ctx, device.HOTPConfig{Seed: secret.New(seed), Digits: 6, StartCounter: counter, Enter: true}))
		return
	}
	ts.Fatalf("there is no key %s", args[0])
}

// cmdTray plays tokendesk and touches each key that a line names, as it asks for it:
//
//	tray [more N] [but SERIAL] [pull SERIAL] [early CTRL-C] [all SERIAL] [as USER] tokendesk …
//
// With all, every touch that the first line asks for, and those that follow, is of one key, for three seconds.
func cmdTray(ts *testscript.TestScript, neg bool, args []string) {
	h := &trayHand{ts: ts, long: map[string]bool{}}
	for ; len(args) > 2 && args[0] != "tokendesk"; args = args[2:] {
		switch args[0] {
		case "more":
			var err error
			h.more, err = strconv.Atoi(args[1])
			ts.Check(err)
		case "but":
			h.but = args[1]
		case "pull":
			h.pull = args[1]
		case "as":
			h.user = args[1]
		case "all":
			h.all = args[1]
		case "early":
			h.early = true
		default:
			ts.Fatalf("a tray cannot %q", args[0])
		}
	}
	if h.user != "" {
		asOther(ts, neg, append([]string{h.user}, args...), h.hears)
		return
	}
	play(ts, neg, "tokendesk", args[1:], h.hears)
}

func (h *trayHand) hears(line string, p *os.Process) {
	if h.early && strings.HasPrefix(line, "✓") {
		h.early = false
		h.ts.Check(p.Signal(syscall.SIGINT))
	}
	if h.pulled && strings.Contains(line, `"device":"yk-`+h.pull+`","state":"away"`) {
		h.pulled, h.pull = false, ""
		return
	}
	if h.all != "" {
		if strings.HasPrefix(line, "●") && h.all != nobody {
			h.touchOne(h.all, true, 2+h.more)
			h.all = nobody
		}
		return
	}
	m := asked.FindStringSubmatch(line)
	if m == nil {
		return
	}
	serial := m[1] + m[3]
	switch {
	case serial == h.but:
	case serial == h.pull:
		h.pulled = true
		h.ts.Check(on(h.ts).Emulator.Remove(context.Background(), serial))
		h.ts.Check(on(h.ts).Emulator.Insert(context.Background(), serial))
	case m[2] == "again", m[2] == "once more":
		h.touch(serial, 1)
	default:
		h.long[serial] = m[2] == "" || strings.Contains(line, "three seconds")
		if strings.Contains(line, ", and twice") { // both slots: in turns
			for range 2 {
				h.touchOne(serial, false, 1)
				h.touchOne(serial, true, 1)
			}
			return
		}
		h.touch(serial, 2+h.more)
	}
}

func (h *trayHand) touch(serial string, times int) { h.touchOne(serial, h.long[serial], times) }

func (h *trayHand) touchOne(serial string, long bool, times int) {
	_, err := on(h.ts).Emulator.Touch(context.Background(), serial, long, times)
	h.ts.Check(err)
}

var trayResult = api.Tray{
	Ended: "no touch came in time: no key was touched for 1m0s",
	Tokens: []api.TrayToken{
		{Token: "yk-10000001/otp2", Owner: "alice", State: "resynced", From: 2, To: 35, Surplus: 1},
		{Token: "yk-10000002/otp1", State: "failed", Codes: 2, From: 7, Problem: api.Errorf(api.NotVerified, "yk-10000002/otp1: found at +4021, \"beyond\"")},
		{Token: "yk-10000003/otp2", Owner: "carol", State: "untouched", From: 9},
	},
	Changes: []api.Change{{Token: "yk-10000001/otp2", Kind: "advance", State: "confirmed"}},
}

func TestTrayAsCSV(t *testing.T) {
	var out bytes.Buffer
	app := cli.NewApp()
	app.Writer = &out
	if err := writeTray(cli.NewContext(app, nil, nil), trayResult); err != nil {
		t.Fatal(err)
	}
	const want = `token,owner,result,from,to,problem,kind,surplus
yk-10000001/otp2,alice,resynced,2,35,,,1
yk-10000002/otp1,,failed,,,"yk-10000002/otp1: found at +4021, ""beyond""",not-verified,0
yk-10000003/otp2,carol,untouched,,,,,0
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}

func TestTrayIsOfUseOnlyIfSomethingWasResynced(t *testing.T) {
	one := func(state, ended string) api.Tray {
		return api.Tray{Tokens: []api.TrayToken{{Token: "yk-1/otp2", State: "resynced"}, {Token: "yk-2/otp2", State: state}}, Ended: ended}
	}
	for name, c := range map[string]struct {
		tray api.Tray
		fine bool
	}{
		"all":                       {one("resynced", ""), true},
		"ended by the officer":      {one("untouched", ""), true},
		"nobody touched it":         {one("untouched", "no touch"), false},
		"one failed":                {one("failed", ""), false},
		"nothing, and ended":        {api.Tray{Tokens: []api.TrayToken{{State: "untouched"}}}, false},
		"everything goes wrong":     {trayResult, false},
		"resynced, but not so many": {one("resynced", "no touch"), true},
	} {
		if err := unresynced(c.tray); (err == nil) != c.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The live table never has more lines than it takes off the screen again.
func TestLiveTrayClearsWhatItHasDrawn(t *testing.T) {
	var screenText bytes.Buffer
	v := &trayView{out: screen{Writer: &screenText, width: 40, terminal: true}, live: true, keys: map[string]api.CapturedKey{}}
	v.take(api.CaptureEvent{Capture: "1", Tokens: []api.TrayToken{
		{Token: "yk-10000001/otp2", Owner: "alice", State: "waiting"}, {Token: "yk-10000001/otp1", State: "waiting"},
	}})
	v.take(api.CaptureEvent{Note: "the central service's counter could not be read, only the vault's was used"})
	v.take(api.CaptureEvent{Key: &api.CapturedKey{Device: "yk-10000001", State: "ready"}})
	v.take(api.CaptureEvent{Token: &api.TrayToken{Token: "yk-10000001/otp2", Owner: "alice", State: "touched", Codes: 4}})
	v.clear()
	lines, most := 0, 0
	for i, part := range strings.Split(screenText.String(), "\x1b[") {
		if i > 0 && strings.HasSuffix(part, "A") {
			up, err := strconv.Atoi(strings.TrimSuffix(part, "A"))
			if err != nil || up != lines {
				t.Fatalf("it goes up %d of %d lines: %v", up, lines, err)
			}
			lines = 0
			continue
		}
		if drawn, ok := strings.CutPrefix(part, "J"); ok {
			part = drawn
		}
		lines += strings.Count(part, "\n")
		most = max(most, lines)
		if words := strings.Join(strings.Fields(part), " "); i > 5 && part != "" && !strings.Contains(words, "no two fit yet") {
			t.Errorf("the last table: %q", words)
		}
	}
	if lines != 0 || most < 5 {
		t.Errorf("%d lines are left of %d", lines, most)
	}
}
