package hotpscan_test

import (
	"crypto/sha1"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
	"tokendesk/vault/secret/memscan"
)

// role is the variable that makes the test program the process whose memory is looked at: it names a kernel.
const role = "HOTPSCAN_TEST_KERNEL"

func TestMain(m *testing.M) {
	if kernel := os.Getenv(role); kernel != "" {
		if err := scan(kernel); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// scan searches with a seed from standard input, and says it; wipes its scanner when told to, and says it.
func scan(kernel string) error {
	if _, err := hotpscan.Force(kernel); err != nil {
		return err
	}
	seed, err := secret.Make(20, func(b []byte) error { _, err := io.ReadFull(os.Stdin, b); return err })
	if err != nil {
		return err
	}
	q, err := hotpscan.ParseSequence([]string{hotpscan.Code(seed, 6, 777)})
	if err != nil {
		return err
	}
	s := hotpscan.NewScanner(q, hotpscan.SHA1)
	found := false
	secret.Do(func() {
		s.Each(seed.Reveal(), 0, 10_000, func(n uint64) bool { found = found || n == 777; return true })
	})
	if !found {
		return errors.New("the code is not found")
	}
	collect()
	fmt.Println("searched")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	s.Wipe()
	seed.Wipe()
	collect()
	fmt.Println("wiped")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// collect has what was allocated in secret.Do erased.
func collect() {
	runtime.GC()
	runtime.GC()
}

// traces is what a search leaves where it is not wiped: pieces of the seed, of the padded keys and of the midstates, as the
// standard library and as kernels have them. Scan does not count what the map refers to.
func traces(t *testing.T, seed []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{"seed": seed[:16]}
	for name, pad := range map[string]byte{"inner": 0x36, "outer": 0x5c} {
		block := make([]byte, sha1.BlockSize)
		for i := range block {
			block[i] = pad
			if i < len(seed) {
				block[i] ^= seed[i]
			}
		}
		h := sha1.New()
		h.Write(block)
		exported, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		state := exported[4:][:sha1.Size]
		var words, round []byte
		for i := 0; i < len(state); i += 4 {
			w := binary.BigEndian.Uint32(state[i:])
			words = binary.NativeEndian.AppendUint32(words, w)
			if i < 8 { // after one round more two words are rotated
				w = bits.RotateLeft32(w, 30)
			}
			round = binary.NativeEndian.AppendUint32(round, w)
		}
		out[name+" padded key"], out[name+" midstate"] = block[:16], state
		out[name+" midstate in words"], out[name+" midstate after rounds"] = words, round[:12]
	}
	return out
}

func TestNothingIsLeftInMemory(t *testing.T) {
	if !secret.Erases() {
		t.Fatal("build this with GOEXPERIMENT=runtimesecret, as the Makefile does")
	}
	for _, kernel := range runnable() {
		t.Run(kernel, func(t *testing.T) {
			seed := randomBytes(20)
			s := start(t, kernel)
			look := func() []memscan.Hit {
				t.Helper()
				hits, err := memscan.Scan(s.cmd.Process.Pid, traces(t, seed))
				if err != nil {
					t.Fatal(err)
				}
				return hits
			}
			s.tell(seed, "searched")
			found := map[string]bool{}
			for _, h := range look() {
				found[h.Pattern] = true
				if !h.Protected() {
					t.Error("while it searches: ", h)
				}
			}
			if !found["seed"] || kernel != "base" && !(found["inner midstate in words"] && found["outer midstate in words"]) {
				t.Errorf("what should be there is not seen: %v", found)
			}
			s.tell([]byte{'w'}, "wiped")
			for _, h := range look() {
				t.Error("wiped: ", h)
			}
		})
	}
}

// searcher is the test's view of the process that searches.
type searcher struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

func start(t *testing.T, kernel string) *searcher {
	t.Helper()
	s := &searcher{t: t, cmd: exec.Command("/proc/self/exe")}
	s.cmd.Env = append(os.Environ(), role+"="+kernel)
	s.cmd.Stderr = os.Stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if s.out, err = s.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.in.Close()
		if err := s.cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// tell waits for an answer, which is a word.
func (s *searcher) tell(b []byte, answer string) {
	s.t.Helper()
	if _, err := s.in.Write(b); err != nil {
		s.t.Fatal(err)
	}
	var word string
	if _, err := fmt.Fscan(s.out, &word); err != nil || word != answer {
		s.t.Fatalf("it says %q, not %q: %v", word, answer, err)
	}
}
