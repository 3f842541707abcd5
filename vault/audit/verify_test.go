package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// endless gives the same bytes for ever and counts them.
type endless struct {
	text  string
	given int
}

func (e *endless) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		n += copy(b[n:], e.text[(e.given+n)%len(e.text):])
	}
	e.given += n
	return n, nil
}

func TestHugeLines(t *testing.T) {
	first := slices.Collect(bytes.Lines(export(t, testChain(t, 1), 1, 1)))[0]
	for _, start := range []string{"", string(first), string(first) + headStart, string(first) + `{"seq":1,"action":"`} {
		for _, text := range []string{"x", " ", "[", `\u001b`, "\x00"} {
			e := &endless{text: text}
			_, err := Verify(io.MultiReader(strings.NewReader(start), e), testKey(t), nil)
			if err == nil || !strings.Contains(err.Error(), "more than 8192 bytes") || e.given > 2*maxLine {
				t.Errorf("%.20q %q: %v after %d bytes", start, text, err, e.given)
			}
		}
	}
	e := &endless{text: "\n"}
	if _, err := Verify(e, testKey(t), nil); err == nil || e.given > maxLine {
		t.Errorf("%v after %d bytes", err, e.given)
	}
}

func TestLongestEntryFits(t *testing.T) {
	worst := strings.Repeat(`"`, MaxReason)
	e := Genesis(testVault, testKey(t)).Next(Act{
		Time: time.Unix(0, 1<<62+1), Epoch: 1<<64 - 1, Counter: 1<<64 - 1,
		Officer: Officer{-1 << 63, worst}, Action: worst, Object: worst, Outcome: worst, Reason: worst,
	})
	if len(e.Reason) != MaxReason {
		t.Fatal(len(e.Reason))
	}
	if got, _, err := collect(t, export(t, []Entry{e}, 1, 1)); err != nil || !slices.Equal(got, []Entry{e}) {
		t.Error(err)
	}
}

func TestReadErrorsAreToldFromDamage(t *testing.T) {
	b := export(t, testChain(t, 3), 1, 3)
	broken := errors.New("broken cable")
	for i := range len(b) + 1 {
		_, err := Verify(io.MultiReader(bytes.NewReader(b[:i]), iotest.ErrReader(broken)), testKey(t), nil)
		if !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", i, err)
		}
	}
}

func TestRandomHistoriesSurvive(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		b := make([]byte, random.IntN(1500))
		for i := range b {
			b[i] = byte(random.Uint32())
			if random.IntN(3) > 0 {
				b[i] &= 0x7f
			}
		}
		return string(b)
	}
	at := Genesis(testVault, testKey(t))
	var chain []Entry
	for range 300 {
		e := at.Next(Act{
			Time: time.Unix(0, int64(random.Uint64())), Epoch: random.Uint64(), Counter: random.Uint64(),
			Officer: Officer{int64(random.Uint64()), text()}, Action: text(), Object: text(), Outcome: text(), Reason: text(),
		})
		chain, at = append(chain, e), e.Point()
	}
	if got, _, err := collect(t, export(t, chain, 1, 300)); err != nil || !slices.Equal(got, chain) {
		t.Error(err)
	}
}

// history writes an export of n entries without holding it.
func history(t testing.TB, n int) io.ReadCloser {
	r, w := io.Pipe()
	key, at := testKey(t), Genesis(testVault, testKey(t))
	go func() {
		out, err := NewWriter(w, Header{Vault: testVault, Key: key, From: 1, To: uint64(n), Anchor: at.Hash})
		for i := 0; i < n && err == nil; i++ {
			e := at.Next(Act{Time: testTime, Officer: Officer{1000, "alice"}, Action: "token.enroll", Object: "ubhv00000001", Outcome: "done", Reason: "ticket 4711"})
			at, err = e.Point(), out.Entry(e)
		}
		if err == nil {
			err = out.Close(testHead(t, at))
		}
		w.CloseWithError(err)
	}()
	return r
}

func TestMemoryIsBounded(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const n = 10_000
	r := history(t, n)
	defer r.Close()
	var first, most int64
	s, err := Verify(r, testKey(t), func(e Entry) {
		switch {
		case e.Seq == n/10:
			first = heap()
		case e.Seq%(n/10) == 0:
			most = max(most, heap()-first)
		}
	})
	if err != nil || s.Head.Seq != n || first == 0 {
		t.Fatal(s, err)
	}
	if most > 256<<10 {
		t.Errorf("the heap grew by %d bytes", most)
	}
}

func FuzzVerify(f *testing.F) {
	golden, err := os.ReadFile("testdata/export1.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	chain := testChain(f, 4)
	f.Add(golden)
	f.Add(export(f, chain, 3, 4))
	f.Add(export(f, chain, 1, 0))
	f.Add(export(f, chain, 5, 4))
	key := testKey(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []Entry
		s, err := Verify(bytes.NewReader(b), key, func(e Entry) { got = append(got, e) }, testHead(t, Genesis(testVault, key)))
		for i, e := range got { // each is sound in itself, even in an export that is refused further on
			if i > 0 && e.Follows(got[i-1].Point()) != nil || e.Act != e.normal() {
				t.Fatalf("%+v was handed on", e)
			}
		}
		if err != nil {
			if len(err.Error()) > 1000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
				t.Fatalf("an error that acts on a terminal: %q", err)
			}
			return
		}
		var again bytes.Buffer
		w, err := NewWriter(&again, s.Header)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range got {
			if err := w.Entry(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(s.Head); err != nil || !bytes.Equal(again.Bytes(), b) {
			t.Fatalf("%v: accepted\n%s\nwhich the desk writes\n%s", err, b, again.Bytes())
		}
	})
}

// FuzzEntry is the round trip of any act through an export.
func FuzzEntry(f *testing.F) {
	f.Add(int64(0), uint64(1), uint64(2), int64(DeskUID), "desk", "token.disable", "\x1b[2J", "\u202e", "\xff")
	f.Fuzz(func(t *testing.T, nano int64, epoch, counter uint64, uid int64, name, action, object, outcome, reason string) {
		e := Genesis(testVault, testKey(t)).Next(Act{time.Unix(0, nano), epoch, counter, Officer{uid, name}, action, object, outcome, reason})
		got, _, err := collect(t, export(t, []Entry{e}, 1, 1))
		if err != nil || len(got) != 1 || got[0] != e {
			t.Fatalf("%+v became %+v, %v", e, got, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	const n = 20_000
	r := history(b, n)
	export, err := io.ReadAll(r)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(export)))
	for b.Loop() {
		if _, err := Verify(bytes.NewReader(export), testKey(b), nil); err != nil {
			b.Fatal(err)
		}
	}
	perSecond := float64(n) * float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(perSecond, "entries/s")
	fmt.Printf("figure audit_verify_entries_per_s %.0f\n", perSecond)
}
