package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// testHeader announces the entries from to to of a chain; from may be one more than to.
func testHeader(t testing.TB, chain []Entry, from, to int) Header {
	h := Header{Vault: testVault, Key: testKey(t), From: uint64(from), To: uint64(to), Anchor: Genesis(testVault, testKey(t)).Hash}
	if from > 1 {
		h.Anchor = chain[from-2].Hash
	}
	return h
}

func export(t testing.TB, chain []Entry, from, to int) []byte {
	var out bytes.Buffer
	h := testHeader(t, chain, from, to)
	w, err := NewWriter(&out, h)
	if err != nil {
		t.Fatal(err)
	}
	end := Point{h.From - 1, h.Anchor}
	for _, e := range chain[from-1 : to] {
		if err := w.Entry(e); err != nil {
			t.Fatal(err)
		}
		end = e.Point()
	}
	if err := w.Close(testHead(t, end)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func collect(t testing.TB, b []byte, known ...Head) ([]Entry, Summary, error) {
	var got []Entry
	s, err := Verify(bytes.NewReader(b), testKey(t), func(e Entry) { got = append(got, e) }, known...)
	return got, s, err
}

// refused demands an error that says words.
func refused(t *testing.T, name string, b []byte, words string, known ...Head) {
	t.Helper()
	_, s, err := collect(t, b, known...)
	if err == nil || !strings.Contains(err.Error(), words) || !reflect.DeepEqual(s, Summary{}) {
		t.Errorf("%s: %v, want %q", name, err, words)
	}
}

func TestExportNeverChanges(t *testing.T) {
	want, err := os.ReadFile("testdata/export1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	chain := testChain(t, 3)
	if got := export(t, chain, 1, 3); !bytes.Equal(got, want) {
		t.Errorf("the export is now\n%s", got)
	}
	if got, _, err := collect(t, want); err != nil || !slices.Equal(got, chain) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEveryPartOfAHistoryVerifies(t *testing.T) {
	const n = 6
	chain := testChain(t, n)
	for from := 1; from <= n+1; from++ {
		for to := from - 1; to <= n; to++ {
			b := export(t, chain, from, to)
			got, s, err := collect(t, b)
			if err != nil || !slices.Equal(got, chain[from-1:to]) {
				t.Fatalf("%d to %d: %v", from, to, err)
			}
			if s.Before() != uint64(from-1) || s.To != uint64(to) || s.Head.Seq != uint64(to) || s.Vault != testVault || len(s.Unchecked) != 0 {
				t.Errorf("%d to %d: %+v", from, to, s)
			}
			if partial := strings.Contains(s.String(), "before are not in this file"); partial != (from > 1) {
				t.Errorf("%d to %d: %s", from, to, s)
			}
			if _, err := Verify(iotest.OneByteReader(bytes.NewReader(b)), testKey(t), nil); err != nil {
				t.Errorf("%d to %d, byte by byte: %v", from, to, err)
			}
		}
	}
}

func TestSummaryIsSaid(t *testing.T) {
	chain := testChain(t, 5)
	_, s, err := collect(t, export(t, chain, 3, 5), testHead(t, chain[0].Point()), testHead(t, chain[1].Point()))
	want := "vault " + testVault + ": 3 entries from 3 on are as the desk wrote them, under its head of 2026-03-04T06:06:07Z" +
		"; entries 1 to 2 before are not in this file; known heads for entries before this file, not checked: 1"
	if err != nil || s.String() != want {
		t.Errorf("%s, %v", s, err)
	}
}

func TestLinesAreDamaged(t *testing.T) {
	chain := testChain(t, 6)
	for _, b := range [][]byte{export(t, chain, 1, 6), export(t, chain, 3, 6), export(t, chain, 1, 0)} {
		lines := slices.Collect(bytes.Lines(b))
		with := func(lines ...[]byte) []byte { return bytes.Join(lines, nil) }
		for i := range lines {
			refused(t, "removed", with(slices.Delete(slices.Clone(lines), i, i+1)...), "line ")
			refused(t, "truncated", with(lines[:i]...), "")
			for j := range lines {
				refused(t, "repeated", with(slices.Insert(slices.Clone(lines), j, lines[i])...), "line ")
				if i == j {
					continue
				}
				swapped := slices.Clone(lines)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				refused(t, "swapped", with(swapped...), "line ")
				swapped[i] = lines[i]
				refused(t, "replaced", with(swapped...), "line ")
			}
			refused(t, "empty line", with(slices.Insert(slices.Clone(lines), i, []byte("\n"))...), "line ")
		}
	}
}

// No other bytes verify than those that the desk wrote.
func TestBytesAreDamaged(t *testing.T) {
	good := export(t, testChain(t, 2), 1, 2)
	tried := 0
	try := func(bad []byte, what string, at int) {
		tried++
		if _, _, err := collect(t, bad); err == nil {
			t.Errorf("%s at byte %d was not noticed", what, at)
		}
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			try(bad, "a flipped bit", i)
		}
		for _, c := range []byte("\n 0\"\xff") {
			if bad := bytes.Clone(good); bad[i] != c {
				bad[i] = c
				try(bad, "another character", i)
			}
			try(slices.Insert(bytes.Clone(good), i, c), "one more character", i+1)
		}
		try(slices.Delete(bytes.Clone(good), i, i+1), "a missing character", i)
		try(good[:i], "the end", i)
	}
	try(append(bytes.Clone(good), 0), "one more character", len(good))
	t.Logf("%d damaged exports of %d bytes", tried, len(good))
}

func TestOtherFormsOfTheSameAreRefused(t *testing.T) {
	good := string(export(t, testChain(t, 3), 1, 3))
	for name, c := range map[string]struct{ old, new, words string }{
		"not an export":       {`"tokendesk audit export"`, `"tokendesk"`, "line 1: this is not the first line"},
		"newer":               {`"version":1`, `"version":2,"more":[]`, "line 1: the export has version 2, which is newer than 1"},
		"version 0":           {`"version":1`, `"version":0`, "there is no version 0"},
		"unknown in header":   {`"version":1`, `"version":1,"more":1`, `line 1: it is not as the desk writes it: json: unknown field "more"`},
		"unknown in entry":    {`{"seq":2`, `{"more":1,"seq":2`, `line 3: it is not as the desk writes it: json: unknown field "more"`},
		"unknown in officer":  {`{"uid":999`, `{"more":1,"uid":999`, `line 3: it is not as the desk writes it: json: unknown field "more"`},
		"unknown in head":     {`,"signature"`, `,"more":1,"signature"`, `line 5: it is not as the desk writes it: json: unknown field "more"`},
		"hostile field":       {`{"seq":2`, `{"` + strings.Repeat("x", 4000) + `\u001b":1,"seq":2`, "line 3: it is not"},
		"repeated":            {`"uid":999`, `"uid":999,"uid":999`, "line 3: it is not as the desk writes it: fields are missing, repeated"},
		"repeated with case":  {`"uid":999`, `"UID":0,"uid":999`, "line 3: it is not as the desk writes it: fields are missing, repeated"},
		"missing":             {`"reason":"",`, ``, "line 2: it is not as the desk writes it: fields are missing"},
		"case":                {`"seq":2`, `"Seq":2`, "line 3: it is not"},
		"space":               {`"seq":2`, `"seq": 2`, "line 3: it is not"},
		"escape":              {`"done"`, `"d\u006fne"`, "line 2: it is not"},
		"zone":                {`05:06:07.123456789Z`, `06:06:07.123456789+01:00`, "line 2: entry 1 holds a text or a time"},
		"UTC by number":       {`05:06:07.123456789Z`, `05:06:07.123456789+00:00`, "line 2: it is not"},
		"not UTF-8":           {`"token.disable"`, "\"token.\xffdisable\"", "line 2: it is not as the desk writes it: it is not UTF-8"},
		"CRLF":                {"}\n{\"seq\":3", "}\r\n{\"seq\":3", "line 3: it is not"},
		"no object":           {`{"seq":2`, `[{"seq":2`, "line 3: it is not"},
		"null":                {`{"uid":999`, `null,"x":{"uid":999`, "line 3: it is not"},
		"fraction":            {`"seq":2`, `"seq":2.0`, "line 3: it is not"},
		"changed":             {`"token 00000001"`, `"token 00000002"`, "line 3: entry 2 was changed"},
		"control character":   {`"done"`, `"\u001b[2J"`, "line 2: entry 1 holds a text"},
		"too long":            {`"done"`, `"` + strings.Repeat("x", 257) + `"`, "line 2: entry 1 holds a text"},
		"vault":               {`"vault":"W`, `"vault":"X`, "line 1: the anchor"},
		"no vault":            {`"vault":"` + testVault, `"vault":"`, "line 1: "},
		"from 0":              {`"from":1`, `"from":0`, "line 1: there are no entries 0 to 3"},
		"from 5":              {`"from":1`, `"from":5`, "line 1: there are no entries 5 to 3"},
		"from 2":              {`"from":1`, `"from":2`, "line 2: entry 1 stands where the one after 1 belongs"},
		"to 2":                {`"to":3`, `"to":2`, "line 4: entry 3 is more than the header announces"},
		"to 4":                {`"to":3`, `"to":4`, "line 5: entries 4 to 4 are missing"},
		"more":                {"==\"}\n", "==\"}\n\n", "line 6: the head must be the last line"},
		"no line end":         {"==\"}\n", "==\"}", "line 5: the file is cut off"},
		"line of white space": {`{"seq":2`, strings.Repeat(" ", maxLine) + `{"seq":2`, "line 3: it has more than 8192 bytes"},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if bad == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		refused(t, name, []byte(bad), c.words)
	}
	refused(t, "empty", nil, "line 1: the file is cut off")
	_, _, err := collect(t, []byte(strings.Replace(good, `{"seq":2`, `{"`+strings.Repeat(`\u001b`, 1000)+`":1,"seq":2`, 1)))
	if err == nil || len(err.Error()) > 300 || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("an error that acts on a terminal, or fills it: %q", err)
	}
}

func TestOtherKeyIsRefused(t *testing.T) {
	other := testKey(t)
	other[5] ^= 1
	for _, key := range []Key{other, {}} {
		_, err := Verify(bytes.NewReader(export(t, testChain(t, 2), 1, 2)), key, nil)
		if err == nil || !strings.Contains(err.Error(), "line 1: it belongs to another audit key, "+testKey(t).Fingerprint()+", and not to "+key.Fingerprint()) {
			t.Error(err)
		}
	}
}

// What only the holder of the signing key can make.
func TestHeadMustFitTheEntries(t *testing.T) {
	chain := testChain(t, 3)
	good := export(t, chain, 1, 3)
	sign := func(change func(*Head)) Head {
		h := testHead(t, chain[2].Point())
		change(&h)
		h, err := h.Sign(testSeed())
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for name, c := range map[string]struct {
		head  Head
		words string
	}{
		"earlier":         {testHead(t, chain[1].Point()), "the head is for entry 2, but the last one here is 3"},
		"later":           {sign(func(h *Head) { h.Seq = 4 }), "the head is for entry 4, but the last one here is 3"},
		"another history": {sign(func(h *Head) { h.Hash[0] ^= 1 }), "the head is for another history"},
		"another vault":   {sign(func(h *Head) { h.Vault = "other" }), "the head is that of vault other"},
	} {
		line, err := json.Marshal(c.head)
		if err != nil {
			t.Fatal(err)
		}
		bad := append(bytes.Clone(good[:bytes.LastIndex(good, []byte(headStart))]), append(line, '\n')...)
		refused(t, name, bad, "line 5: "+c.words)
		w, err := NewWriter(new(bytes.Buffer), testHeader(t, chain, 1, 3))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range chain {
			if err := w.Entry(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(c.head); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("the writer takes %s: %v", name, err)
		}
	}
}

func TestKnownHeads(t *testing.T) {
	chain := testChain(t, 5)
	full, part, early := export(t, chain, 1, 5), export(t, chain, 3, 5), export(t, chain, 1, 3)
	known := []Head{testHead(t, Genesis(testVault, testKey(t)))}
	for _, e := range chain {
		known = append(known, testHead(t, e.Point()))
	}
	rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
	known = append(known, known...)
	before := slices.Clone(known)
	if _, s, err := collect(t, full, known...); err != nil || len(s.Unchecked) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if !reflect.DeepEqual(known, before) {
		t.Error("the caller's heads were put in another order")
	}
	if _, s, err := collect(t, part, known...); err != nil || len(s.Unchecked) != 4 || s.Unchecked[3].Seq != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	refused(t, "an older file", early, "the file ends with entry 3, but the vault had signed for entry 4", known...)

	// The holder of the key writes entry 2 anew, and all that follow.
	other := slices.Clone(chain)
	for i := 1; i < len(other); i++ {
		act := other[i].Act
		act.Object = "another token"
		other[i] = other[i-1].Point().Next(act)
	}
	rewritten := export(t, other, 1, 5)
	if _, _, err := collect(t, rewritten, testHead(t, chain[0].Point())); err != nil {
		t.Errorf("what came before is the same: %v", err)
	}
	for i := 1; i < len(chain); i++ {
		refused(t, "rewritten", rewritten, "history was rewritten", testHead(t, chain[i].Point()))
	}
	refused(t, "rewritten before the file", export(t, other, 3, 5), "line 1: history was rewritten: entry 2", testHead(t, chain[1].Point()))

	refused(t, "an older file with another head", bytes.Replace(early, []byte(`"epoch":99`), []byte(`"epoch":98`), 1), "signature is wrong", known...)

	forged := testHead(t, chain[2].Point())
	forged.Epoch++
	refused(t, "forged", full, "the known head for entry 3 is of no use", forged)
}

func TestWriterRefuses(t *testing.T) {
	chain := testChain(t, 3)
	for name, h := range map[string]Header{
		"no vault":      {Key: testKey(t), From: 2, To: 3},
		"from 0":        {Vault: testVault, Key: testKey(t), To: 3},
		"from 0 to all": {Vault: testVault, Key: testKey(t), To: 1<<64 - 1},
		"from past to":  {Vault: testVault, Key: testKey(t), From: 5, To: 3},
		"wrong anchor":  {Vault: testVault, Key: testKey(t), From: 1, To: 3},
	} {
		var out bytes.Buffer
		if _, err := NewWriter(&out, h); err == nil || out.Len() != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	w, err := NewWriter(new(bytes.Buffer), testHeader(t, chain, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Entry(chain[1]); err == nil {
		t.Error("the second entry came first")
	}
	if err := w.Entry(chain[0]); err != nil {
		t.Error(err)
	}
	if err := w.Close(testHead(t, chain[0].Point())); err == nil {
		t.Error("closed before its end")
	}
	if err := w.Entry(chain[1]); err != nil {
		t.Error(err)
	}
	if err := w.Entry(chain[2]); err == nil {
		t.Error("an entry past the end")
	}
	if err := w.Close(testHead(t, chain[1].Point())); err != nil {
		t.Error(err)
	}
}

// fullDisk takes left bytes.
type fullDisk struct{ left int }

var errFull = errors.New("full")

func (d *fullDisk) Write(b []byte) (int, error) {
	if len(b) > d.left {
		return 0, errFull
	}
	d.left -= len(b)
	return len(b), nil
}

func TestWriterReportsAFullDisk(t *testing.T) {
	chain := testChain(t, 100)
	size := len(export(t, chain, 1, 100))
	write := func(left int) error {
		w, err := NewWriter(&fullDisk{left}, testHeader(t, chain, 1, 100))
		if err != nil {
			return err
		}
		for _, e := range chain {
			if err := w.Entry(e); err != nil {
				return err
			}
		}
		return w.Close(testHead(t, chain[99].Point()))
	}
	for left := 0; left < size; left += 997 {
		if err := write(left); !errors.Is(err, errFull) {
			t.Fatalf("with room for %d of %d bytes: %v", left, size, err)
		}
	}
	if err := write(size); err != nil {
		t.Error(err)
	}
}
