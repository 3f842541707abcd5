package job

import (
	"reflect"
	"strings"
	"testing"
)

func TestLineIsParsed(t *testing.T) {
	for _, want := range []Report{
		{Event: Started},
		{Event: Output, Data: []byte("two lines\n\x00and \xff bytes\n")},
		{Event: Exited, Code: 255},
		{Event: Refused, Code: 127, Text: "no such \"file\"\n"},
		{Event: Failed, Text: "the cause"},
	} {
		line := want.Line()
		if i := strings.IndexByte(string(line), '\n'); i != len(line)-1 {
			t.Errorf("%q is not one line", line)
		}
		if got, err := Parse(line); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is parsed as %+v, %v", line, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for line, complaint := range map[string]string{
		"":                               "cannot read",
		"Kernel panic":                   "cannot read",
		`{"event":"exited","code":"7"}`:  "cannot read",
		`{"event":"exited","code":256}`:  "outside 0 to 255",
		`{"event":"exited","code":-1}`:   "outside 0 to 255",
		`{"event":"vanished"}`:           "unknown event",
		`{"event":"output","data":"%%"}`: "cannot read",
		`{}`:                             "unknown event",
	} {
		if _, err := Parse([]byte(line)); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%q: %v, not %q", line, err, complaint)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Report{Event: Output, Data: []byte("text")}.Line())
	f.Add(Report{Event: Exited, Code: 7}.Line())
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Parse(line)
		if err != nil {
			return
		}
		if r.Code < 0 || r.Code > 255 {
			t.Errorf("%q has the exit status %d", line, r.Code)
		}
		if again, err := Parse(r.Line()); err != nil || again.Event != r.Event || again.Text != r.Text || again.Code != r.Code {
			t.Errorf("%+v becomes %+v, %v", r, again, err)
		}
	})
}
