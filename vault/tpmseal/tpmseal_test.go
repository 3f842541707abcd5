package tpmseal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

func open(t *testing.T, device string) *TPM {
	t.Helper()
	tpm, err := Open(device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tpm.Close(); err != nil {
			t.Error(err)
		}
	})
	return tpm
}

func wantState(t *testing.T, err error, want vault.State, text string) {
	t.Helper()
	var state *vault.StateError
	if !errors.As(err, &state) {
		t.Fatalf("got %v, want state %s", err, want)
	}
	if state.State != want || state.Cure == "" || !strings.Contains(err.Error(), text) {
		t.Fatalf("got state %s (%v), want %s with %q", state.State, err, want, text)
	}
}

func TestSealUnseal(t *testing.T) {
	tpm := open(t, vaulttest.StartSWTPM(t))
	if tpm.Level() != vault.LevelEmulated || tpm.Kind() != "tpm" {
		t.Errorf("level %s, kind %s", tpm.Level(), tpm.Kind())
	}
	for _, n := range []int{1, 32, maxSealed} {
		s := secret.Random(n)
		blob, err := tpm.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tpm.Unseal(blob)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Equal(s) {
			t.Errorf("%d bytes came back different", n)
		}
	}
	for _, n := range []int{0, maxSealed + 1} {
		if _, err := tpm.Seal(secret.Random(n)); err == nil {
			t.Errorf("sealed %d bytes", n)
		}
	}
}

// All zero bytes and others that once were cut (go-tpm#446) have to survive as data.
func TestSealKeepsZeroBytes(t *testing.T) {
	tpm := open(t, vaulttest.StartSWTPM(t))
	blob, err := tpm.Seal(secret.New(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := tpm.Unseal(blob)
	if err != nil || !bytes.Equal(got.Reveal(), make([]byte, 32)) {
		t.Fatalf("got %d bytes, %v", got.Len(), err)
	}
}

func TestManyCyclesLeaveNothingInTheTPM(t *testing.T) {
	tpm := open(t, vaulttest.StartSWTPM(t))
	for range 300 {
		s := secret.Random(32)
		blob, err := tpm.Seal(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tpm.Unseal(blob)
		if err != nil || !got.Equal(s) {
			t.Fatalf("unseal: %v", err)
		}
	}
	empty(t, tpm)
}

func empty(t *testing.T, tpm *TPM) {
	t.Helper()
	for _, first := range []uint32{transientObjects, loadedSessions, savedSessions} {
		list, err := tpm.handles(first)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 0 {
			t.Errorf("handles left behind: %x", list)
		}
	}
}

// A TPM with three places for objects would stop working if failures leaked any.
func TestFailuresLeaveNothingInTheTPM(t *testing.T) {
	tpm := open(t, vaulttest.StartSWTPM(t))
	good, err := tpm.Seal(secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		b, err := decodeBlob(bytes.Clone(good))
		if err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			b.private[len(b.private)-1] ^= 1
		case 1:
			b.auth[0] ^= 1
		case 2:
			b.public[len(b.public)-1] ^= 1
		}
		bad, err := b.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tpm.Unseal(bad); err == nil {
			t.Fatal("an altered blob was unsealed")
		} else if i%3 == 0 {
			wantState(t, err, vault.StateTPMChanged, "INTEGRITY")
		}
	}
	empty(t, tpm)
	if _, err := tpm.Unseal(good); err != nil {
		t.Errorf("the good blob does not open any more: %v", err)
	}
}

// recorder sees what a probe on the bus sees.
type recorder struct {
	transport.TPMCloser
	mu    sync.Mutex
	bytes []byte
}

func (r *recorder) Send(command []byte) ([]byte, error) {
	response, err := r.TPMCloser.Send(command)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes = append(append(r.bytes, command...), response...)
	return response, err
}

func TestBusShowsNoSecret(t *testing.T) {
	device := vaulttest.StartSWTPM(t)
	conn, err := dial(strings.TrimPrefix(device, socketPrefix))
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{TPMCloser: conn}
	tpm, err := use(device, r, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tpm.Close() })
	s := secret.Random(32)
	sealed, err := tpm.Seal(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.Unseal(sealed); err != nil {
		t.Fatal(err)
	}
	b, err := decodeBlob(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(r.bytes, b.private) {
		t.Fatal("the recorder missed the sealed object, so it proves nothing")
	}
	for i := 0; i+8 <= s.Len(); i++ {
		if bytes.Contains(r.bytes, s.Reveal()[i:i+8]) {
			t.Fatal("the bus shows the secret")
		}
	}
	if bytes.Contains(r.bytes, b.auth) {
		t.Error("the bus shows the authorization value")
	}
}

func TestVaultOpensOnlyWithItsTPM(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	mine := open(t, vaulttest.StartSWTPM(t))
	v, err := vault.Create(path, mine)
	if err != nil {
		t.Fatal(err)
	}
	if v.Level() != vault.LevelEmulated {
		t.Errorf("level %s", v.Level())
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = vault.Open(path, open(t, vaulttest.StartSWTPM(t)))
	wantState(t, err, vault.StateTPMChanged, "another storage root key")
	_, err = vault.Open(path, vaulttest.Sealer(t))
	wantState(t, err, vault.StateWrongSealer, "sealed by tpm")
	if v, err = vault.Open(path, mine); err != nil {
		t.Fatal(err)
	}
	vaulttest.CheckAtEnd(t, v)
}

func TestVaultSurvivesTheTPMsRestart(t *testing.T) {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(t.TempDir(), "vault")
	use := func(fn func(*TPM)) {
		device, stop, err := vaulttest.StartSWTPMProcess(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		tpm, err := Open(device)
		if err != nil {
			t.Fatal(err)
		}
		defer tpm.Close()
		fn(tpm)
	}
	use(func(tpm *TPM) {
		v, err := vault.Create(path, tpm)
		if err != nil {
			t.Fatal(err)
		}
		v.Close()
	})
	use(func(tpm *TPM) {
		v, err := vault.Open(path, tpm)
		if err != nil {
			t.Fatal(err)
		}
		v.Close()
	})
}

func TestTPMThatGoesAwayIsNamed(t *testing.T) {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	device, stop, err := vaulttest.StartSWTPMProcess(dir)
	if err != nil {
		t.Fatal(err)
	}
	tpm, err := Open(device)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := tpm.Seal(secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = tpm.Unseal(blob)
		wantState(t, err, vault.StateTPMAbsent, "cannot unseal")
	}
	tpm.Close() // fails, as the TPM is gone, and must not hang
	_, err = Open(device)
	wantState(t, err, vault.StateTPMAbsent, "cannot open the TPM")
	_, err = Open("/dev/no-such-tpm")
	wantState(t, err, vault.StateTPMAbsent, "/dev/no-such-tpm")
	_, err = Open("/dev/null/tpm")
	wantState(t, err, vault.StateTPMAbsent, "/dev/null/tpm")
}

// A second client of an swtpm is accepted and then ignored.
func TestBusyTPMDoesNotBlock(t *testing.T) {
	device := vaulttest.StartSWTPM(t)
	first := open(t, device)
	if _, err := first.Seal(secret.Random(32)); err != nil {
		t.Fatal(err)
	}
	conn, err := dial(strings.TrimPrefix(device, socketPrefix))
	if err != nil {
		t.Fatal(err)
	}
	conn.timeout = 100 * time.Millisecond
	defer conn.Close()
	_, err = use(device, conn, true)
	wantState(t, err, vault.StateTPMAbsent, "one client at a time")
}

// A peer that is no TPM must not make the desk wait or allocate at its pleasure.
func TestNonsenseAnswers(t *testing.T) {
	for name, answer := range map[string][]byte{
		"empty": {}, "short": {0x80, 1, 0},
		"tiny": binary.BigEndian.AppendUint32([]byte{0x80, 1}, 3),
		"huge": append(binary.BigEndian.AppendUint32([]byte{0x80, 1}, 1<<31), 0, 0, 0, 0),
		"code": {0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			desk, peer := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer peer.Close()
				peer.Read(make([]byte, 4096))
				peer.Write(answer)
			}()
			s := &socket{conn: desk, timeout: time.Minute}
			if _, err := use("test", s, true); err == nil {
				t.Error("a peer that is no TPM was accepted")
			}
			s.Close()
			<-done
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	tpm := open(t, vaulttest.StartSWTPM(t))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				s := secret.Random(32)
				blob, err := tpm.Seal(s)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := tpm.Unseal(blob); err != nil || !got.Equal(s) {
					t.Errorf("unseal: %v", err)
				}
			}
		})
	}
	wg.Wait()
	empty(t, tpm)
}

func TestClosedTPM(t *testing.T) {
	tpm := open(t, vaulttest.StartSWTPM(t))
	blob, err := tpm.Seal(secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	if err := tpm.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.Unseal(blob); !errors.Is(err, os.ErrClosed) {
		t.Errorf("unseal: %v", err)
	}
	if _, err := tpm.Seal(secret.Random(32)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("seal: %v", err)
	}
}

func TestLevelOf(t *testing.T) {
	for _, c := range []struct {
		maker, vendor string
		want          vault.Level
	}{
		{"IBM", "SW  TPM", vault.LevelEmulated},
		{"MSFT", "xCG fTPM", vault.LevelEmulated},
		{"IFX", "SLB9670", vault.LevelTPM},
		{"STM", "", vault.LevelTPM},
		{"INTC", "Intel", vault.LevelTPM},
		{"AMD", "AMD", vault.LevelTPM},
	} {
		if got := levelOf(c.maker, c.vendor); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.maker, c.vendor, got, c.want)
		}
	}
}

// What swtpm says of itself is what levelOf goes by where the kernel hides the socket.
func TestSWTPMIsRecognisedByItsName(t *testing.T) {
	tpm := open(t, vaulttest.StartSWTPM(t))
	tpm.owned = false
	defer func() { tpm.owned = true }()
	if l, err := tpm.findLevel(); err != nil || l != vault.LevelEmulated {
		t.Errorf("level %s, %v", l, err)
	}
}

func FuzzDecodeBlob(f *testing.F) {
	good, err := (&blob{[]byte("srk"), []byte("public"), []byte("private"), []byte("auth")}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Add([]byte{1, 0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := decodeBlob(p)
		if err != nil {
			return
		}
		again, err := b.encode()
		if err != nil || !bytes.Equal(again, p) {
			t.Errorf("decoded %x, encoded %x (%v)", p, again, err)
		}
	})
}

func TestNoPermission(t *testing.T) {
	device := vaulttest.StartSWTPM(t)
	dir := filepath.Dir(strings.TrimPrefix(device, socketPrefix))
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 { // whom file modes do not stop
		if err := unix.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer unix.Setfsuid(0)
	}
	for _, d := range []string{device, filepath.Join(dir, "tpmrm0")} {
		_, err := Open(d)
		wantState(t, err, vault.StatePermission, "tss")
		wantState(t, err, vault.StatePermission, dir)
	}
}
