package trace_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tokendesk/device/trace"
)

const (
	top     = "tokendesk trace 1\ntoken yk-12345678/otp2\nreports 1050:0407 emulated\n"
	cardTop = "tokendesk trace 1\ntoken nk-00005d19/oath:a\ncard\nnote it is pulled\n"
	opened  = "do open\nis ok\n"
)

func TestParse(t *testing.T) {
	for _, text := range []string{
		top + opened,
		"# a comment\r\n\r\n" + strings.ReplaceAll(top+opened, "\n", "\r\n"),
		top + opened + "do code within=2s\nkey -\nkey 0000\nkey ! gone\nis fails gone\n",
		top + opened + "do describe\nget 000504030000000000 x12\nset 000504030000000000 ! other\nis fails other",
		cardTop + "do open\napdu 00a40400 9000\napdu 00a4 6a82 ff\napdu 00a40400 ! mute\ndraw 0102\nis fails mute\n",
	} {
		if _, err := trace.Parse([]byte(text)); err != nil {
			t.Errorf("%v in\n%s", err, text)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, why := range map[string]string{
		"":                          "line 1 of the trace: it ends before anything was done",
		"tokendesk trace 2\n":       `line 1 of the trace: this is version "2"`,
		"hello":                     "line 1 of the trace: this is no trace",
		"\xff":                      "it is not text",
		strings.Repeat("#", 5<<20):  "at most 4194304 bytes",
		top:                         "it ends before anything was done",
		"tokendesk trace 1\ncard\n": "line 2 of the trace: the second line says whose it is",
		"tokendesk trace 1\ntoken yk-12345678/piv\ncard\n":              "is not programmed with a seed",
		"tokendesk trace 1\ntoken yk-12345678/otp1\nreports 1050:9999":  "line 3 of the trace: the third line says",
		"tokendesk trace 1\ntoken yk-12345678/otp1\nreports 1050:00407": "line 3 of the trace: the third line says",
		top + "do describe\n":                                            "the first step, and no other, opens",
		top + opened + "do open\n":                                       "the first step, and no other, opens",
		top + "do open\n":                                                "in the middle of a step",
		top + opened + "is ok\n":                                         "line 6 of the trace: a step begins with what is asked",
		top + opened + "do format\n":                                     `"format" is nothing that can be asked`,
		top + opened + "do \n":                                           "nothing is asked",
		top + opened + "do program seed=3132 digits=6\n":                 `"3132" is no published seed: those are rfc4226`,
		top + opened + "do program digits=6\n":                           `"" is no published seed`,
		top + opened + "do delete current=010203040506\n":                `"010203040506" is no published password`,
		top + opened + "do delete seed=rfc4226\n":                        `delete takes no "seed"`,
		top + opened + "do program seed=rfc4226 digits=x\n":              `"x" is no value of digits`,
		top + opened + "do code within=2h\n":                             "2h0m0s is no time to wait",
		top + opened + "do code\nkey -\nis \n":                           "does not say what the step came to",
		top + opened + "do code\nwait 5\n":                               `"wait" is no call`,
		top + opened + "do code\napdu 00a40400 9000\n":                   "there is no apdu on this kind of device",
		cardTop + "do open\nget 000504030000000000\n":                    "there is no get on this kind of device",
		cardTop + "do open\napdu 00a40400 900\n":                         "four digits",
		cardTop + "do open\napdu zz 9000 00\n":                           `"zz" is not bytes`,
		cardTop + "do open\napdu 00A4 9000\n":                            `"00A4" is not bytes`,
		cardTop + "do open\napdu 00a4 9000 00 00\n":                      `"00" is too much`,
		cardTop + "do open\napdu 00a4 ! tired\n":                         `"tired" is no name of an error`,
		top + opened + "do code\nset 00\n":                               "reports of this device have 9 bytes",
		top + opened + "do code\nget 000504030000000000 x1\n":            `"x1" is not how often`,
		top + opened + "do code\nget 000504030000000000 x9999999\n":      `"x9999999" is not how often`,
		top + opened + "do code\nkey " + strings.Repeat("00", 65) + "\n": "not so long",
	} {
		if _, err := trace.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%v, not %s, in\n%.300s", err, why, text)
		}
	}
}

// Whatever can be read is written as it can be read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(top + opened + "do code within=2s\nkey -\nkey 0000\nkey ! gone\nis fails gone\n"))
	f.Add([]byte(cardTop + "do open\napdu 00a40400 9000\napdu 00a4 6a82 ff\napdu 00a40400 ! mute\ndraw 0102\nis fails mute\n"))
	f.Add([]byte(top + opened + "do program seed=rfc4226 digits=8 counter=16 identifier enter new=code-a current=code-b\nis fails firmware 2.1.0\n"))
	files, err := filepath.Glob("testdata/*.trace")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		first, err := trace.Parse(text)
		if err != nil {
			return
		}
		written := first.Bytes()
		second, err := trace.Parse(written)
		if err != nil {
			t.Fatalf("%v in\n%s", err, written)
		}
		if again := second.Bytes(); !bytes.Equal(again, written) {
			t.Fatalf("it is\n%s\nthe second time, and was\n%s", again, written)
		}
	})
}
