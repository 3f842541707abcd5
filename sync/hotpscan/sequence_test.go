package hotpscan_test

import (
	"slices"
	"strings"
	"testing"

	"tokendesk/sync/hotpscan"
)

func TestParseSequence(t *testing.T) {
	q, err := hotpscan.ParseSequence([]string{"00000001", "99999999", "12345678"})
	if err != nil || q.Digits() != 8 || q.Len() != 3 {
		t.Errorf("%d codes of %d digits, %v", q.Len(), q.Digits(), err)
	}
	for want, codes := range map[string][]string{
		"no code":                        nil,
		"17 codes are too many":          slices.Repeat([]string{"123456"}, 17),
		"code 1 has 5 digits":            {"12345"},
		"code 1 has 9 digits":            {"123456789"},
		"code 2 has 7 digits, but":       {"123456", "1234567"},
		"code 2 has 12 digits":           {"123456", "123456123456"},
		"code 2 is not made of":          {"123456", ""},
		"code 1 is not made of":          {"+12345", "123456"},
		"code 1 is not made of the dig":  {" 123456"},
		"code 3 is not made of":          {"123456", "123456", "1234²6"},
		"code 1 is not made of the digi": {"cccccc"},
	} {
		_, err := hotpscan.ParseSequence(codes)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", codes, err)
		}
		for _, c := range codes {
			if err != nil && c != "" && strings.Contains(err.Error(), c) {
				t.Errorf("%v repeats a code", err)
			}
		}
	}
}

func FuzzParseSequence(f *testing.F) {
	f.Add("755224 287082")
	f.Add("")
	f.Add("00000000 99999999 ")
	f.Add("٣٤٥٦٧٨")
	f.Add(strings.Repeat("123456 ", 20))
	f.Fuzz(func(t *testing.T, text string) {
		codes := strings.Split(text, " ")
		q, err := hotpscan.ParseSequence(codes)
		if err != nil {
			for _, c := range codes {
				if len(c) >= 6 && strings.Trim(c, "0123456789") == "" && strings.Contains(err.Error(), c) {
					t.Fatalf("%v repeats a code", err)
				}
			}
			return
		}
		if q.Len() != len(codes) || q.Len() > hotpscan.MaxCodes || q.Digits() < 6 || q.Digits() > 8 {
			t.Fatalf("%q: %d codes of %d digits", text, q.Len(), q.Digits())
		}
		for _, c := range codes {
			if len(c) != q.Digits() || strings.Trim(c, "0123456789") != "" {
				t.Fatalf("%q is no code of %d digits", c, q.Digits())
			}
		}
		s := hotpscan.NewScanner(q, hotpscan.SHA1) // and it can be looked for
		defer s.Wipe()
		s.Each([]byte("12345678901234567890"), 0, 20, func(n uint64) bool {
			if got := hotpscan.Code(rfcSeed(), q.Digits(), n); got != codes[0] {
				t.Fatalf("%q is found where %s is", codes, got)
			}
			return true
		})
	})
}
