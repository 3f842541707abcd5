package vault

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"tokendesk/vault/audit"
)

// fillAny gives every field of v some value, or leaves it zero.
func fillAny(r *rand.Rand, v reflect.Value) {
	texts := []string{"", "alice", "yk-1/otp2", `"<&>\`, "Zoë", "a\x00b", "\xff", "  ", "0123456789 ~"}
	times := []time.Time{{}, time.Unix(0, 0).UTC(), time.Date(2026, 11, 22, 12, 0, 0, 120, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("x", 3600)), time.Now()}
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(times[r.IntN(len(times))]))
	case r.IntN(4) == 0:
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fillAny(r, v.Field(i))
		}
	case v.Kind() == reflect.Array:
		for i := range v.Len() {
			fillAny(r, v.Index(i))
		}
	case v.Kind() == reflect.String:
		n := len(texts)
		if r.IntN(8) > 0 { // else nearly nothing would be plain
			n = 3
		}
		v.SetString(texts[r.IntN(n)])
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(r.Int64() >> r.IntN(63))
	case v.CanUint():
		v.SetUint(r.Uint64() >> r.IntN(64))
	default:
		panic("no way to fill a " + v.Type().String())
	}
}

// Whatever is in them, records are encoded as encoding/json does it, and some of each without it.
func TestEncodedLikeJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	plain := map[string]int{}
	for range 30_000 {
		for _, p := range []any{&Token{}, &Change{}, &audit.Entry{}} {
			fillAny(r, reflect.ValueOf(p).Elem())
			rec := p
			if _, ok := p.(*Token); !ok {
				rec = reflect.ValueOf(p).Elem().Interface()
			}
			want, wantErr := json.Marshal(rec)
			got, err := encodeJSON([]byte("before"), rec)
			if (err != nil) != (wantErr != nil) || err == nil && string(got) != "before"+string(want) {
				t.Fatalf("%T: %s, %v\nwant %s, %v", rec, got, err, want, wantErr)
			}
			w := object{b: []byte("{")}
			switch rec := rec.(type) {
			case *Token:
				w.token(rec)
			case Change:
				w.change(&rec)
			case audit.Entry:
				w.entry(&rec)
			}
			if !w.failed {
				plain[reflect.TypeOf(rec).String()]++
			}
		}
	}
	if len(plain) != 3 {
		t.Errorf("none of some records was plain: %v", plain)
	}
	for name, n := range plain {
		if n < 100 {
			t.Errorf("only %d of %s were plain", n, name)
		}
	}
}
