package stretch

import (
	"bytes"
	"encoding/hex"
	"testing"

	"tokendesk/vault/secret"
)

// A vault that is not derived as it was made does not open: neither the encoding nor the derivation may change.
func TestGolden(t *testing.T) {
	r := Recipe{Params: Params{Time: 2, Memory: 19 << 10, Threads: 1}, Salt: [SaltSize]byte([]byte("0123456789abcdef"))}
	if got, want := hex.EncodeToString(r.Encode()), "0000000200004c000130313233343536373839616263646566"; got != want {
		t.Errorf("encoded %s, want %s", got, want)
	}
	got := hex.EncodeToString(r.Derive(secret.New([]byte("1234")), 32).Reveal())
	if want := "04b4192ae9efb1712fd2b7e8bd67909763a235a7c45a3982b2f6cd59b6ae2f3d"; got != want {
		t.Errorf("derived %s, want %s", got, want)
	}
}

func TestDeriveDependsOnEverything(t *testing.T) {
	r, err := New(Minimum())
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(Minimum())
	if err != nil {
		t.Fatal(err)
	}
	dearer := r
	dearer.Time++
	pin := func() secret.Secret { return secret.New([]byte("1234")) }
	key := r.Derive(pin(), 56)
	if key.Len() != 56 || !key.Equal(r.Derive(pin(), 56)) {
		t.Error("the same PIN and recipe give another key")
	}
	for name, k := range map[string]secret.Secret{
		"salt": other.Derive(pin(), 56), "costs": dearer.Derive(pin(), 56), "PIN": r.Derive(secret.New([]byte("1235")), 56),
	} {
		if key.Equal(k) {
			t.Errorf("another %s gives the same key", name)
		}
	}
}

func TestParamsAreBounded(t *testing.T) {
	low, high := Minimum(), Maximum()
	for _, p := range []Params{low, high, Default()} {
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []Params{
		{},
		{low.Time - 1, low.Memory, low.Threads}, {low.Time, low.Memory - 1, low.Threads}, {low.Time, low.Memory, low.Threads - 1},
		{high.Time + 1, low.Memory, low.Threads}, {low.Time, high.Memory + 1, low.Threads}, {low.Time, low.Memory, high.Threads + 1},
	} {
		if _, err := New(p); err == nil {
			t.Errorf("accepted %+v", p)
		}
		if _, err := Decode(Recipe{Params: p}.Encode()); err == nil {
			t.Errorf("decoded %+v", p)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Recipe{Params: Default()}.Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err == nil && (r.Validate() != nil || !bytes.Equal(r.Encode(), b)) {
			t.Errorf("decoded %x as %+v", b, r)
		}
	})
}
