package main

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for words, want := range map[string]time.Duration{
		"30d": 30 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "12h": 12 * time.Hour, "90m": 90 * time.Minute, "0d": 0, "1h30m": 90 * time.Minute,
	} {
		if got, err := span(words); err != nil || got != want {
			t.Errorf("%s: %v, %v", words, got, err)
		}
	}
	for _, words := range []string{"", "d", "soon", "-1d", "-1h", "3", "1.5d", "99999999d"} {
		if got, err := span(words); err == nil {
			t.Errorf("%q is %v", words, got)
		}
	}
}

func TestExpiry(t *testing.T) {
	for words, want := range map[string]time.Time{
		"never":                {},
		"2031-12-31":           time.Date(2031, 12, 31, 0, 0, 0, 0, time.Local),
		"2031-12-31T18:00":     time.Date(2031, 12, 31, 18, 0, 0, 0, time.Local),
		"2031-12-31T18:00:01Z": time.Date(2031, 12, 31, 18, 0, 1, 0, time.UTC),
	} {
		if got, err := expiry(words); err != nil || !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("%s: %v, %v", words, got, err)
		}
	}
	for _, words := range []string{"", "tomorrow", "2031-13-01", "31.12.2031", "2031"} {
		if got, err := expiry(words); err == nil {
			t.Errorf("%q is %v", words, got)
		}
	}
}
