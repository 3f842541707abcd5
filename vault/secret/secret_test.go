package secret_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"tokendesk/vault/secret"
)

const word = "correct-horse"

func TestNeverShown(t *testing.T) {
	s := secret.New([]byte(word))
	holder := struct {
		Seed  secret.Secret
		Seeds []secret.Secret
		Any   any
		Ptr   *secret.Secret
	}{s, []secret.Secret{s}, s, &s}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%p", "%T %v", "%10.3v", "%!"} {
		args := make([]any, strings.Count(verb, "%"))
		for i := range args {
			args[i] = s
		}
		fmt.Fprintf(&out, verb+"\n", args...)
		for i := range args {
			args[i] = holder
		}
		fmt.Fprintf(&out, verb+"\n", args...)
	}
	fmt.Fprintln(&out, s, holder, fmt.Errorf("wrapped %v", s))
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
		log.Info("message", "seed", s, "holder", holder, "group", slog.GroupValue(slog.Any("seed", s)))
	}
	for _, form := range []string{word, fmt.Sprintf("%x", word), fmt.Sprintf("%X", word), fmt.Sprintf("% x", word), strings.Trim(fmt.Sprint([]byte(word)), "[]")} {
		if strings.Contains(out.String(), form) {
			t.Errorf("%q is shown in\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), secret.Redacted) {
		t.Error("nothing was printed at all")
	}
}

func TestRefusesToBeMarshalled(t *testing.T) {
	s := secret.New([]byte(word))
	holder := struct{ Seed secret.Secret }{s}
	if b, err := json.Marshal(holder); err == nil {
		t.Errorf("JSON: %s", b)
	}
	if b, err := json.Marshal(map[string]any{"x": s}); err == nil {
		t.Errorf("JSON: %s", b)
	}
	if b, err := xml.Marshal(holder); err == nil {
		t.Errorf("XML: %s", b)
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(holder); err == nil {
		t.Errorf("gob: % x", b.Bytes())
	}
}

func TestNewTakesTheBytesOver(t *testing.T) {
	b := []byte(word)
	s := secret.New(b)
	if !bytes.Equal(b, make([]byte, len(word))) {
		t.Errorf("the caller still has %q", b)
	}
	if string(s.Reveal()) != word || s.Len() != len(word) || s.IsZero() {
		t.Errorf("%q", s.Reveal())
	}
}

func TestWipe(t *testing.T) {
	s := secret.New([]byte(word))
	copied, clone, lent := s, s.Clone(), s.Reveal()
	s.Wipe()
	if !s.IsZero() || !copied.IsZero() || !bytes.Equal(lent, make([]byte, len(word))) {
		t.Error("something is left")
	}
	if string(clone.Reveal()) != word {
		t.Error("a clone was wiped as well")
	}
	s.Wipe()
	new(secret.Secret).Wipe()
}

func TestEqual(t *testing.T) {
	a, b := secret.New([]byte(word)), secret.New([]byte(word))
	if !a.Equal(b) || a.Equal(secret.New([]byte("other"))) || a.Equal(secret.Secret{}) || !(secret.Secret{}).Equal(secret.Secret{}) {
		t.Error("wrong")
	}
}

func TestRandom(t *testing.T) {
	a, b := secret.Random(20), secret.Random(20)
	if a.Len() != 20 || a.Equal(b) || a.Equal(secret.New(make([]byte, 20))) {
		t.Error("not random")
	}
}

func TestMake(t *testing.T) {
	s, err := secret.Make(len(word), func(b []byte) error { copy(b, word); return nil })
	if err != nil || string(s.Reveal()) != word {
		t.Errorf("%q, %v", s.Reveal(), err)
	}
	if _ = append(s.Reveal(), "more"...); cap(s.Reveal()) != len(word) {
		t.Error("append writes behind the secret")
	}
	var lent []byte
	bad := errors.New("bad")
	if s, err := secret.Make(len(word), func(b []byte) error { lent = b; copy(b, word); return bad }); err != bad || !s.IsZero() || !bytes.Equal(lent, make([]byte, len(word))) {
		t.Errorf("%q, %q, %v", lent, s.Reveal(), err)
	}
	func() {
		defer func() {
			if p := recover(); p != bad || !bytes.Equal(lent, make([]byte, len(word))) {
				t.Errorf("%q, %v", lent, p)
			}
		}()
		secret.Make(len(word), func(b []byte) error { lent = b; copy(b, word); panic(bad) })
	}()
	for _, n := range []int{0, -1} {
		s, err := secret.Make(n, func([]byte) error { return bad })
		if err != nil || !s.IsZero() || !secret.Random(n).IsZero() {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestConcat(t *testing.T) {
	a, b := secret.New([]byte("correct-")), secret.New([]byte("horse"))
	c := secret.Concat(a, secret.Secret{}, b)
	a.Wipe()
	b.Wipe()
	if string(c.Reveal()) != word || !secret.Concat().IsZero() || !secret.Concat(a, b).IsZero() {
		t.Errorf("%q", c.Reveal())
	}
}
