package secret_test

import (
	"errors"
	"runtime"
	"testing"

	"tokendesk/vault/secret"
)

func TestDo(t *testing.T) {
	called, boom := 0, errors.New("boom")
	func() {
		defer func() {
			if p := recover(); p != boom {
				t.Errorf("the panic became %v", p)
			}
		}()
		secret.Do(func() {
			secret.Do(func() { called++ })
			panic(boom)
		})
	}()
	if called != 1 {
		t.Errorf("called %d times", called)
	}
}

// kept is what Do's function allocates and the holder keeps.
var kept []byte

func copiedInDo() (s secret.Secret, err error) {
	secret.Do(func() {
		s = secret.Random(size)
		kept = append([]byte(nil), s.Reveal()...)
	})
	return s, nil
}

func collect() {
	kept = nil
	runtime.GC()
	runtime.GC()
}

func TestWhatDoErases(t *testing.T) {
	h := start(t, "copied in Do")
	pid := h.cmd.Process.Pid
	exposed := 0
	for _, hit := range h.scan(pid) {
		if !hit.Protected() {
			exposed++
		}
	}
	if exposed != size/16 {
		t.Errorf("%d parts of the copy are found, not %d", exposed, size/16)
	}
	h.order('w')
	if left := h.scan(pid); secret.Erases() && len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// lend returns what a Secret lent that nobody has any more.
//
//go:noinline
func lend() (lent []byte, copied string) {
	s := secret.Random(size)
	return s.Reveal(), string(s.Reveal())
}

func TestLentBytesStayForAWhile(t *testing.T) {
	lent, copied := lend()
	for range 3 {
		runtime.GC()
	}
	if string(lent) != copied {
		t.Error("the bytes were erased while somebody read them")
	}
}
