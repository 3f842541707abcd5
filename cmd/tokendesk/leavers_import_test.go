package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestParseLeavers(t *testing.T) {
	lines, err := parseLeavers([]byte("\ufeffdeadline;user;words\r\n2031-12-31;alice;\"a; b\"\r\n\r\n2031-12-31T18:00;bob;\n;carol;fine\n;carol;\n;;\n;\"dave;\n;eve\n;fred;a\tb\n31.12.2031;gina;\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range lines {
		line := fmt.Sprint(l.Line, " ", l.User)
		if d := l.leaver.Deadline; d != nil {
			line += " " + d.Format(time.DateTime)
		}
		if l.Problem != nil {
			line += ": " + l.Problem.Message
		} else if l.leaver.Words != "" {
			line += " " + l.leaver.Words
		}
		got = append(got, line)
	}
	want := []string{
		"2 alice 2031-12-31 23:59:59 a; b", "4 bob 2031-12-31 18:00:00", "5 carol fine", "6 carol: carol stands in line 5 already",
		"7 : it names no user", "8 : its quotation marks do not match", "9 : it has 2 columns, and the first line names 3",
		"10 fred: the words contain control characters, or are not UTF-8",
		`11 gina: a deadline is a date, such as 2031-12-31 or 2031-12-31T18:00; not "31.12.2031"`,
	}
	if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("\n%s\nnot\n%s", a, b)
	}
	for list, words := range map[string]string{
		"":                         "the first line names the columns",
		"alice\nbob\n":             "the first line names the columns",
		"user,colour\nalice,red":   "column 2 is none of user, successor, deadline, words",
		"user,words,user\na,b,c":   "column 3 is none of user, successor, deadline, words, or is there twice",
		"\"user\nalice":            "the first line names the columns",
		strings.Repeat("x", 2<<20): "longer than 1024 KiB",
		"user\n" + strings.Repeat("x\n", maxLeavers+1): "more than 5000 leavers",
	} {
		if lines, err := parseLeavers([]byte(list)); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%.20q: %d lines, %v", list, len(lines), err)
		}
	}
}

// Whatever a list holds: each of its lines has one result, and what is taken is what the API takes.
func FuzzParseLeavers(f *testing.F) {
	f.Add([]byte("user,successor,deadline,words\nalice,bob,2031-12-31,\"moves away, far\"\n"))
	f.Add([]byte("\ufeffwords;user\r\n\"a\"\"b\";carol\r\n;;\r\n"))
	f.Add([]byte("user\n\"\n\x00\n\xff\nalice\nALICE\n"))
	f.Add([]byte("user,deadline\na,9999-12-31\nb,0000-01-01\nc,2031-12-31T18:00:00+99:00\n"))
	f.Fuzz(func(t *testing.T, list []byte) {
		lines, err := parseLeavers(list)
		if err != nil {
			return
		}
		seen, last := map[string]bool{}, 1
		for _, l := range lines {
			if l.Line <= last {
				t.Fatalf("line %d after line %d", l.Line, last)
			}
			last = l.Line
			if l.Problem != nil {
				if strings.ContainsFunc(l.Problem.Message, unicode.IsControl) || !utf8.ValidString(l.Problem.Message) {
					t.Fatalf("the problem says %q", l.Problem.Message)
				}
				continue
			}
			in := l.leaver
			name := strings.ToLower(in.User)
			switch {
			case in.User == "" || !userName.MatchString(in.User) || !userName.MatchString(in.Successor) || seen[name]:
				t.Fatalf("%+v", in)
			case len(in.Words) > maxSaid || !utf8.ValidString(in.Words) || strings.ContainsFunc(in.Words, unicode.IsControl):
				t.Fatalf("the words are %q", in.Words)
			case in.Deadline != nil && !sensibleYear(*in.Deadline):
				t.Fatalf("the deadline is %v", in.Deadline)
			}
			seen[name] = true
		}
		rows := 0
		_, rest, _ := strings.Cut(strings.TrimPrefix(string(list), "\ufeff"), "\n")
		for l := range strings.SplitSeq(rest, "\n") {
			if strings.TrimSpace(l) != "" {
				rows++
			}
		}
		if rows != len(lines) {
			t.Fatalf("%d results for %d lines", len(lines), rows)
		}
	})
}
