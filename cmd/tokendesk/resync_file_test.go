package main

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
)

func TestParseResyncs(t *testing.T) {
	lines, err := parseResyncs([]byte("\ufeff# note\r\n\r\nTOKEN;a;b\r\nyk-1/otp2; 123456 ;234567;\r\nyk-1/otp2;ubhe12345678123456;234567\r\nfob-1;12345678;23456789;34567890\r\n" +
		"yk-1/otp2;123456\r\nyk-1/OTP3;123456;234567\r\nyk-1/otp2;1;2;3;4\r\nyk-1/otp2;12345a;123456\r\n\"yk-1/otp2;1\r\ntoken;123456;234567\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		line    int
		token   string
		codes   string
		problem string
	}{
		{4, "yk-1/otp2", "123456 234567", ""},
		{5, "yk-1/otp2", "123456 234567", ""},
		{6, "fob-1", "12345678 23456789 34567890", ""},
		{7, "yk-1/otp2", "", "it needs two or three consecutive codes"},
		{8, "", "", "it begins with no token"},
		{9, "yk-1/otp2", "", "it needs two or three consecutive codes"},
		{10, "yk-1/otp2", "", "a code has 6 to 8 digits"},
		{11, "", "", "its quotation marks do not match"},
		{12, "", "", "it begins with no token"},
	}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d", len(lines), len(want))
	}
	for i, w := range want {
		l := lines[i]
		switch {
		case l.Line != w.line || l.Token != w.token:
			t.Errorf("line %d of %q, want %+v", l.Line, l.Token, w)
		case w.problem == "" && (l.Problem != nil || strings.Join(l.codes, " ") != w.codes):
			t.Errorf("line %d: %q, %v", l.Line, l.codes, l.Problem)
		case w.problem != "" && (l.Problem == nil || !strings.Contains(l.Problem.Message, w.problem)):
			t.Errorf("line %d: %v, want %q", l.Line, l.Problem, w.problem)
		}
	}
	if _, err := parseResyncs([]byte(strings.Repeat("fob-1,123456,234567\n", api.MaxResyncLines))); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
	for name, list := range map[string]string{
		"too many": strings.Repeat("fob-1,123456,234567\n", api.MaxResyncLines+1), "too long": strings.Repeat("#", maxLeaverList+1),
	} {
		if _, err := parseResyncs([]byte(list)); err == nil || !strings.Contains(err.Error(), "in parts") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever is in a file, what is sent is a token and codes, problems repeat nothing of it, and the results are a table.
func FuzzParseResyncs(f *testing.F) {
	f.Add([]byte("token,code,code\nyk-1/otp2,123456,234567\n"))
	f.Add([]byte("fob-1;\"123456\";234567;\n#\n\"\n,,,\n"))
	f.Add([]byte("\ufeffyk-1/otp2\t123456\x00,\xff\n"))
	f.Fuzz(func(t *testing.T, list []byte) {
		lines, err := parseResyncs(list)
		if err != nil {
			return
		}
		last := 0
		for _, l := range lines {
			if l.Line <= last || l.Line > bytes.Count(list, []byte("\n"))+1 {
				t.Fatalf("line %d after %d", l.Line, last)
			}
			last = l.Line
			if l.Token != "" {
				if _, err := pathOf(l.Token); err != nil {
					t.Fatalf("%q is sent as a token", l.Token)
				}
			}
			if l.Problem != nil {
				if !strings.HasPrefix(l.Problem.Message, "it ") && !strings.HasPrefix(l.Problem.Message, "its ") && !strings.HasPrefix(l.Problem.Message, "a code ") {
					t.Fatalf("the problem is %q", l.Problem.Message)
				}
				continue
			}
			if len(l.codes) < 2 || len(l.codes) > 3 {
				t.Fatalf("%d codes", len(l.codes))
			}
			for _, code := range l.codes {
				if len(code) < 6 || len(code) > 8 || strings.Trim(code, "0123456789") != "" {
					t.Fatalf("%q is sent as a code", code)
				}
			}
		}
		var out bytes.Buffer
		if err := writeResynced(&out, lines); err != nil {
			t.Fatal(err)
		}
		if rows, err := csv.NewReader(&out).ReadAll(); err != nil || len(rows) != len(lines)+1 {
			t.Fatalf("%d rows of %d lines: %v", len(rows), len(lines), err)
		}
	})
}
