package trace_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"tokendesk/device"
	"tokendesk/device/drivers"
	"tokendesk/device/trace"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

// With -record the traces of scenarios are written anew: after a driver was changed on purpose. Those of real devices, which
// tokendesk trace record has written, are in testdata/real, and stay.
var record = flag.Bool("record", false, "write the traces of emulated tokens under testdata anew")

// ours are the drivers that traces are of.
var ours = trace.Drivers{OverReport: drivers.OverReport, OverCard: drivers.OverCard}

// replay replays in time that passes only while everybody waits.
func replay(t *testing.T, tr *trace.Trace) {
	t.Helper()
	if err := tr.Replay(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
}

// TestTraces replays every trace through the drivers.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.trace")
	if err != nil {
		t.Fatal(err)
	}
	fromHardware, err := filepath.Glob("testdata/real/*.trace")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, file := range slices.Concat(files, fromHardware) {
		kept = append(kept, strings.TrimSuffix(filepath.Base(file), ".trace"))
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tr, err := trace.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { replay(t, tr) })
			codesFit(t, tr)
		})
	}
	for _, s := range scenarios {
		if !slices.Contains(kept, s.name) && !*record {
			t.Errorf("there is no trace %s: go test -run TestRecord -record", s.name)
		}
	}
	for _, name := range kept[:len(files)] {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == name }) {
			t.Errorf("nothing records the trace %s any more", name)
		}
	}
}

// codesFit checks that the codes in a trace are of the seeds that it says were programmed.
func codesFit(t *testing.T, tr *trace.Trace) {
	t.Helper()
	seeds := map[string]string{"rfc4226": "12345678901234567890", "rfc2202-2": "Jefe", "rfc2202-5": strings.Repeat("\x0c", 20)}
	var p trace.Operation
	next := uint64(0)
	for _, s := range tr.Steps {
		code, ok := strings.CutPrefix(s.Outcome, "code ")
		switch {
		case s.Verb == trace.Program && s.Outcome == "ok":
			p, next = s.Operation, s.Counter
		case ok:
			seed := secret.New([]byte(seeds[p.Seed]))
			end := next + 10
			for ; next < end && hotpscan.Code(seed, p.Digits, next) != code; next++ {
			}
			if next == end {
				t.Errorf("%s is no code of %s", code, p)
			}
			next++
		}
	}
}

// TestRecord records every scenario now, and replays that at once, from a file.
func TestRecord(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now, err := s.record(t).Trace()
				if err != nil {
					t.Fatal(err)
				}
				if got := outcomes(now); !slices.Equal(got, s.want) {
					t.Fatalf("the steps came to\n%q, not\n%q", got, s.want)
				}
				text := now.Bytes()
				again, err := trace.Parse(text)
				if err != nil {
					t.Fatalf("%v in\n%s", err, text)
				}
				replay(t, again)
				if *record {
					if err := os.WriteFile(filepath.Join("testdata", s.name+".trace"), text, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

func outcomes(tr *trace.Trace) (all []string) {
	for _, s := range tr.Steps {
		all = append(all, s.Outcome)
	}
	return all
}

// A driver that does anything else is refused at the very call.
func TestDifferences(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lines := recordedLines(t, s)
				for n, line := range lines {
					for _, instead := range spoil(line) {
						differs := (*trace.DifferError)(nil)
						err := changed(t, lines, n, instead).Replay(t.Context(), ours)
						if !errors.As(err, &differs) || len(instead) == 1 && differs.Line != n+1 {
							t.Errorf("line %d, %q instead of %q: %v", n+1, instead, line, err)
						}
					}
				}
			})
		})
	}
}

// spoil makes a line say that the driver did something else, or more, or less, or that more came out of it.
func spoil(line string) (instead [][]string) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "set", "apdu": // another first byte
		other := "f"
		if rest[0] == 'f' {
			other = "0"
		}
		return [][]string{{verb + " " + other + rest[1:]}, {line, line}, {}}
	case "draw":
		return [][]string{{line + "00"}, {}}
	case "is":
		return [][]string{{"is something else"}}
	}
	return nil
}

func recordedLines(t *testing.T, s scenario) []string {
	t.Helper()
	now, err := s.record(t).Trace()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(now.Bytes()), "\n")
}

// changed is a trace with other lines in the place of one.
func changed(t *testing.T, lines []string, n int, instead []string) *trace.Trace {
	t.Helper()
	text := strings.Join(slices.Concat(lines[:n], instead, lines[n+1:]), "\n")
	tr, err := trace.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return tr
}

// How often a driver has looked whether a device is ready does not matter.
func TestLooks(t *testing.T) {
	runs := regexp.MustCompile(`^(get [0-9a-f]+) x[0-9]+$`)
	found := 0
	for _, s := range scenarios {
		synctest.Test(t, func(t *testing.T) {
			lines := recordedLines(t, s)
			for n, line := range lines {
				var others [][]string
				if m := runs.FindStringSubmatch(line); m != nil {
					others = [][]string{{m[1] + " x2"}, {m[1] + " x9999"}}
				}
				if strings.HasPrefix(line, "key ") { // it may take a while
					others = [][]string{{"key -", line}}
				}
				for _, instead := range others {
					found++
					if err := changed(t, lines, n, instead).Replay(t.Context(), ours); err != nil {
						t.Errorf("%s: %q instead of %q: %v", s.name, instead, line, err)
					}
				}
			}
		})
	}
	if found < 20 {
		t.Errorf("only %d runs of looks were found", found)
	}
}

func TestUnpublished(t *testing.T) {
	r := trace.NewRecorder(trace.Header{Token: "yk-12345678/otp2", Vendor: device.YubicoVendor, Product: 0x0407})
	for _, o := range []trace.Operation{
		{Verb: trace.Program, Seed: "mine", Digits: 6},
		{Verb: trace.Program, Digits: 6},
		{Verb: trace.Program, Seed: "rfc4226", New: "mine"},
		{Verb: trace.Delete, Current: "mine"},
		{Verb: trace.Unlock, Current: "rfc4226"},
		{Verb: "format"},
	} {
		if _, err := r.Do(t.Context(), nil, o); err == nil { // with a token of nil it would not survive asking
			t.Errorf("%s was recorded", o)
		}
	}
	now, err := r.Trace()
	if err != nil || len(now.Steps) != 1 {
		t.Fatalf("%v, %+v", err, now)
	}
}
