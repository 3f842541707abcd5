package vault

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
)

// Whatever is in a token, it is decoded as encoding/json does it, and many without it.
func TestDecodedLikeJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	plain := 0
	for range 30_000 {
		var in Token
		fillAny(r, reflect.ValueOf(&in).Elem())
		record, err := json.Marshal(&in)
		if err != nil {
			continue
		}
		compareDecoded(t, record)
		if _, ok := plainToken(record); ok {
			plain++
		}
	}
	if plain < 100 {
		t.Errorf("only %d were plain", plain)
	}
}

func compareDecoded(t *testing.T, record []byte) {
	t.Helper()
	var want Token
	if json.Unmarshal(record, &want) != nil {
		return // which nothing that has authenticated is
	}
	if got, err := readTokenRecord(record); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: %+v, %v, want %+v", record, got, err, want)
	}
}

func FuzzPlainToken(f *testing.F) {
	for _, s := range []string{
		`{"id":"yk-1/otp2","serial":1,"firmware":{"major":5,"minor":4,"build":3},"status":"active","digits":6,"counter":18446744073709551615,"generation":1,"emulated":false,"created":"2026-01-02T03:04:05.6Z","updated":"0001-01-01T00:00:00Z"}`,
		`{}`, `{"id":"a","id":"b"}`, `{"serial":4294967296}`, `{"firmware":{"build":1}}`, `{"enter":true,"identifier":false}`, `{"owner":"\u0041"}`, `{"digits":-1}`, `{"created":"2026-01-02"}`, `{"digits":6`, `{"digits":`, `{"enter":tru`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, record []byte) { compareDecoded(t, record) })
}
