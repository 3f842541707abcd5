package audit

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"tokendesk/vault/secret"
)

const testVault = "WZ5UB6PT6ZC7JYBFNO4C3ATQLH"

// testSeed is of no use outside these tests.
func testSeed() secret.Secret { return secret.New([]byte("a seed of 32 bytes for tests....")) }

// onceKey spares the tests that verify thousands of times the making of the key.
var onceKey = sync.OnceValues(func() (Key, error) { return KeyOf(testSeed()) })

func testKey(t testing.TB) Key {
	k, err := onceKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)

// testChain is what golden values were taken of: it must not change.
func testChain(t testing.TB, n int) []Entry {
	at := Genesis(testVault, testKey(t))
	var out []Entry
	for i := range n {
		e := at.Next(Act{
			Time:    testTime.Add(time.Duration(i) * time.Minute),
			Epoch:   uint64(10 + i),
			Counter: uint64(7000 + i),
			Officer: Officer{UID: int64(1000*i + DeskUID), Name: fmt.Sprintf("officer %d <é\"\\>", i)},
			Action:  "token.disable",
			Object:  fmt.Sprintf("token %08d", i),
			Outcome: "done",
			Reason:  strings.Repeat("lost & found ", i),
		})
		out, at = append(out, e), e.Point()
	}
	return out
}

func testHead(t testing.TB, at Point) Head {
	h, err := Head{Vault: testVault, Point: at, Epoch: 99, Counter: 7099, Time: testTime.Add(time.Hour)}.Sign(testSeed())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The hashes were computed a second time, by another program, from what digest and frame say.
func TestEncodingNeverChanges(t *testing.T) {
	for name, c := range map[string][2]string{
		"genesis": {Genesis(testVault, testKey(t)).Hash.String(), "03794845e2458633c987bf295fc2709971399e7b9667f7e7aa9e178fba5f35b4"},
		"first":   {testChain(t, 1)[0].Hash.String(), "10b69e64337e58c94fd85246a25d5efa9103a9342741fda07152371b472fc112"},
		"third":   {testChain(t, 3)[2].Hash.String(), "f39aefe5bc1c850db3e59e22e444b608f3c59534bbed3082195d6f14a4470393"},
	} {
		if c[0] != c[1] {
			t.Errorf("%s is %s", name, c[0])
		}
	}
}

func TestEntryIsStoredAsJSON(t *testing.T) {
	want := testChain(t, 2)[1]
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Entry
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Fatalf("%+v became %+v, %v", want, got, err)
	}
	if err := got.Follows(testChain(t, 1)[0].Point()); err != nil {
		t.Error(err)
	}
}

// mutants calls f for each value that differs from v in one field, at any depth.
func mutants[T any](v T, f func(field string, mutant T)) {
	var walk func(path string, at func(*T) reflect.Value)
	walk = func(path string, at func(*T) reflect.Value) {
		mutant := v
		switch field := at(&mutant); {
		case field.Type() == reflect.TypeFor[time.Time]():
			field.Set(reflect.ValueOf(field.Interface().(time.Time).Add(1)))
		case field.Kind() == reflect.Struct:
			for i := range field.NumField() {
				walk(path+"."+field.Type().Field(i).Name, func(t *T) reflect.Value { return at(t).Field(i) })
			}
			return
		case field.Kind() == reflect.Array:
			field.Index(field.Len() - 1).SetUint(field.Index(field.Len()-1).Uint() ^ 1)
		case field.Kind() == reflect.Slice:
			field.SetBytes(append([]byte{field.Bytes()[0] ^ 1}, field.Bytes()[1:]...))
		case field.CanUint():
			field.SetUint(field.Uint() + 1)
		case field.CanInt():
			field.SetInt(field.Int() + 1)
		default:
			field.SetString(field.String() + "x")
		}
		f(path, mutant)
	}
	walk("", func(t *T) reflect.Value { return reflect.ValueOf(t).Elem() })
}

func TestEveryFieldOfAnEntryCounts(t *testing.T) {
	chain := testChain(t, 3)
	before, e, after := chain[0].Point(), chain[1], chain[2]
	fields := 0
	mutants(e, func(field string, mutant Entry) {
		fields++
		if mutant.Follows(before) == nil {
			t.Errorf("another %s is not noticed", field)
		}
		if field != ".Hash" && mutant.digest() == e.digest() {
			t.Errorf("%s is not in the hash", field)
		}
		mutant.Hash = mutant.digest()
		if field != ".Hash" && after.Follows(mutant.Point()) == nil {
			t.Errorf("another %s with the hash made anew is not noticed by the next entry", field)
		}
	})
	if fields != 12 {
		t.Errorf("%d fields were tried", fields)
	}
}

func TestNeighbouringTextsDoNotRunTogether(t *testing.T) {
	at := Genesis(testVault, testKey(t))
	seen := map[Digest]bool{}
	all := []Act{
		{Action: "ab"}, {Action: "a", Object: "b"}, {Object: "ab"}, {Object: "a", Outcome: "b"},
		{Outcome: "ab"}, {Outcome: "a", Reason: "b"}, {Reason: "ab"}, {Officer: Officer{Name: "ab"}}, {Officer: Officer{Name: "a"}, Action: "b"},
	}
	for _, a := range all {
		seen[at.Next(a).Hash] = true
	}
	if len(seen) != len(all) {
		t.Errorf("%d hashes of %d acts", len(seen), len(all))
	}
}

func TestChainBelongsToOneVaultAndKey(t *testing.T) {
	key := testKey(t)
	other := key
	other[0] ^= 1
	if g := Genesis(testVault, key); g == Genesis("another", key) || g == Genesis(testVault, other) {
		t.Error("two vaults begin alike")
	}
}

func TestTextsAreMadeHarmless(t *testing.T) {
	long := strings.Repeat("é", 200)
	for in, want := range map[string]string{
		"":                         "",
		"plain é 漢 🔑 \"<&>\\":      "plain é 漢 🔑 \"<&>\\",
		"a\x1b[2Jb\r\n\tc\x00\x7f": "a\ufffd[2Jb\ufffd\ufffd\ufffdc\ufffd\ufffd",
		"c1 \u009b31m":             "c1 \ufffd31m",
		"bidi \u202egnp.exe\u2066": "bidi \ufffdgnp.exe\ufffd",
		"lines \u2028\u2029":       "lines \ufffd\ufffd",
		"bytes \xff\xc3":           "bytes \ufffd\ufffd",
		strings.Repeat("x", 256):   strings.Repeat("x", 256),
		strings.Repeat("x", 257):   strings.Repeat("x", 253) + "…",
		long:                       long[:252] + "…",
	} {
		e := Genesis(testVault, testKey(t)).Next(Act{Action: in, Object: in, Outcome: in, Officer: Officer{Name: in}})
		for _, got := range []string{e.Action, e.Object, e.Outcome, e.Officer.Name} {
			if got != want {
				t.Errorf("%q became %q", in, got)
			}
		}
		if again := clean(want, MaxText); again != want || len(want) > MaxText || !utf8.ValidString(want) {
			t.Errorf("%q is not settled: %q", want, again)
		}
	}
	e := Genesis(testVault, testKey(t)).Next(Act{Reason: strings.Repeat("y", 2000)})
	if len(e.Reason) != MaxReason || !strings.HasSuffix(e.Reason, "y…") {
		t.Errorf("a reason of %d bytes", len(e.Reason))
	}
}

func TestTimesAreInstants(t *testing.T) {
	at := Genesis(testVault, testKey(t))
	want := at.Next(Act{Time: testTime})
	for _, same := range []time.Time{testTime.In(time.FixedZone("", 3600)), testTime.Local()} {
		if got := at.Next(Act{Time: same}); got != want {
			t.Errorf("%v became %v", same, got)
		}
	}
	for _, strange := range []time.Time{{}, time.Unix(1<<40, 0), time.Now()} {
		e := at.Next(Act{Time: strange})
		if err := e.Follows(at); err != nil {
			t.Errorf("%v: %v", strange, err)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Errorf("%v: %v", strange, err)
		}
	}
	// Both have the same Unix nanoseconds, modulo 2⁶⁴.
	forged := want
	forged.Time = time.Unix(0, want.Time.UnixNano()).Add(1<<63 - 1).Add(1<<63 - 1).Add(2).UTC()
	if forged.digest() != want.digest() || forged.Follows(at) == nil {
		t.Error("a time centuries later is not noticed")
	}
}

func TestPlaceInTheChain(t *testing.T) {
	chain := testChain(t, 4)
	for i := range chain {
		for j := range chain {
			if err := chain[j].Follows(chain[i].Point()); (err == nil) != (j == i+1) {
				t.Errorf("entry %d after %d: %v", j+1, i+1, err)
			}
		}
	}
	last := Point{Seq: 1<<64 - 1}
	if last.Next(Act{}).Follows(last) == nil {
		t.Error("the sequence begins again")
	}
}

func TestDigestHasOneForm(t *testing.T) {
	want := Genesis(testVault, testKey(t)).Hash
	text := want.String()
	for in, good := range map[string]bool{text: true, strings.ToUpper(text): false, text[1:]: false, text + "00": false, "": false, "x" + text[1:]: false} {
		var d Digest
		if err := d.UnmarshalText([]byte(in)); (err == nil) != good || good != (d == want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// The command line verifies exports on machines that have nothing of the desk, so this package stays small.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			if path == "C" || strings.Contains(path, ".") || strings.HasPrefix(path, "tokendesk/") && path != "tokendesk/vault/secret" {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
}
