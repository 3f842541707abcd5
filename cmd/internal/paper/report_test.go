package paper

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

func heading() Heading {
	return Heading{
		Title: "Assignments", About: "Tokens that belong to somebody", Desk: Imprint{Name: "Example Org, Security"}, Printed: testTime, Basis: "After entry 3 of the audit trail", Version: "1",
		Columns: []Column{{"token", "Token", Name}, {"user", "User", ""}, {"words", "Words", ""}},
	}
}

func report(t testing.TB, f Format, rows ...[]string) string {
	t.Helper()
	var b bytes.Buffer
	r, err := NewReport(&b, f, heading())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if err := r.Row(row...); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	rows := [][]string{{"yk-1/otp1", "alice", "a, \"b\" & <c>"}, {"yk-2/otp2", "bob", ""}}
	if got, want := report(t, CSV, rows...), "token,user,words\nyk-1/otp1,alice,\"a, \"\"b\"\" & <c>\"\nyk-2/otp2,bob,\n"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	if got, want := report(t, JSON, rows[1]), `{"api_version":"1","token":"yk-2/otp2","user":"bob","words":""}`+"\n"; got != want {
		t.Errorf("%q, not %q", got, want)
	}
	page := report(t, HTML, rows...)
	for _, want := range []string{"<h1>Assignments</h1>", "Example Org, Security", "<th scope=\"col\">User</th>", `<td class="name">yk-1/otp1</td><td>alice</td><td>a, &#34;b&#34; &amp; &lt;c&gt;</td>`, ">2 rows<", "entry 3", "2026-11-22 10:15:43 CET"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
	if found := elsewhere.FindString(page); found != "" {
		t.Errorf("the page has %q", found)
	}
	if empty := report(t, HTML); !strings.Contains(empty, "There is none.") || !strings.Contains(empty, ">0 rows<") {
		t.Error("an empty report does not say so")
	}
	if one := report(t, HTML, rows[0]); !strings.Contains(one, ">1 row<") || strings.Contains(one, "There is none.") {
		t.Error("a report of one row does not say so")
	}
	if _, err := NewReport(io.Discard, "pdf", heading()); err == nil {
		t.Error("there is a report as pdf")
	}
}

// What comes from directories and officers must not be computed by a spreadsheet.
func TestNoFormulas(t *testing.T) {
	for _, evil := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "\r=1", " =1", "\n=1", "＝1", "＋1", "－1", "＠1", "\ufeff=1", "\u00a0=1"} {
		got, err := csv.NewReader(strings.NewReader(report(t, CSV, []string{evil, evil, "x" + evil}))).ReadAll()
		if err != nil || len(got) != 2 {
			t.Fatalf("%q: %q, %v", evil, got, err)
		}
		if !strings.HasPrefix(got[1][0], "'") || !strings.HasPrefix(got[1][1], "'") || strings.HasPrefix(got[1][2], "'") {
			t.Errorf("%q became %q", evil, got[1])
		}
	}
	for _, good := range []string{"", "alice", "'tis", "1-1", "a=b", "10000001"} {
		if got := NoFormula(good); got != good {
			t.Errorf("%q became %q", good, got)
		}
	}
}

func TestHostileRows(t *testing.T) {
	row := []string{hostileText, strings.Repeat("long ", 1000), "\xff\x00"}
	page := report(t, HTML, row)
	if strings.Contains(page, "<script") || strings.Contains(page, "<img") || strings.ContainsAny(page, "\x1b\u202e\x00") {
		t.Errorf("it got through:\n%s", page)
	}
	var object map[string]string
	if err := json.Unmarshal([]byte(report(t, JSON, row)), &object); err != nil || len(object) != 4 {
		t.Errorf("%v, %v", object, err)
	}
	r, err := NewReport(io.Discard, CSV, heading())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Row("too", "few"); err == nil {
		t.Error("a row may have too few cells")
	}
}

type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errors.New("the disk is full")
	}
	return len(p), nil
}

func TestDiskFull(t *testing.T) {
	for _, f := range []Format{CSV, HTML, JSON} {
		r, err := NewReport(&full{100}, f, heading())
		for i := 0; err == nil && i < 1000; i++ {
			err = r.Row("yk-1/otp1", "alice", "words")
		}
		if err == nil {
			err = r.Close()
		}
		if err == nil {
			t.Errorf("%s: a report on a full disk is whole", f)
		}
	}
}

// A report needs as much memory for 20,000 rows as for none.
func TestConstantMemory(t *testing.T) {
	for _, f := range []Format{CSV, HTML, JSON} {
		r, err := NewReport(io.Discard, f, heading())
		if err != nil {
			t.Fatal(err)
		}
		held := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		before := held()
		for i := range 20_000 {
			if err := r.Row(fmt.Sprintf("yk-%d/otp2", i), "alice", "words"); err != nil {
				t.Fatal(err)
			}
		}
		if after := held(); after > before+256<<10 {
			t.Errorf("%s: %d KiB more after 20,000 rows", f, (after-before)>>10)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzRow(f *testing.F) {
	f.Add("=1", "alice", "<b>")
	f.Add(hostileText, "\xff", "＝")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		got, err := csv.NewReader(strings.NewReader(report(t, CSV, []string{a, b, c}))).ReadAll()
		if err != nil || len(got) != 2 || len(got[1]) != 3 {
			t.Fatalf("%q, %v", got, err)
		}
		for _, cell := range got[1] {
			if again := NoFormula(cell); again != cell && !strings.HasPrefix(cell, "'") {
				t.Errorf("%q is a formula", cell)
			}
		}
		var object, want map[string]string
		if err := json.Unmarshal([]byte(report(t, JSON, []string{a, b, c})), &object); err != nil {
			t.Fatal(err)
		}
		want = map[string]string{"api_version": "1", "token": object["token"], "user": object["user"], "words": object["words"]}
		if !reflect.DeepEqual(object, want) {
			t.Errorf("%v", object)
		}
		if page := report(t, HTML, []string{a, b, c}); strings.Count(page, "<td") != 3 || strings.Count(page, "<tr>") != 2 {
			t.Errorf("%s", page)
		}
	})
}
