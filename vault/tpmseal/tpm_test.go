package tpmseal

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/sys/unix"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
	"tokendesk/vault/vaulttest"
)

// shortDir is short enough for a Unix socket, which t.TempDir is not.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func startIn(t testing.TB, dir string) (device string, stop func() error) {
	t.Helper()
	device, stop, err := vaulttest.StartSWTPMProcess(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop() })
	return device, stop
}

// A daemon holds the TPM for days: when it comes back, the next use goes on where the last one failed.
func TestTPMThatGoesAwayAndComesBack(t *testing.T) {
	dir := shortDir(t)
	device, stop := startIn(t, dir)
	tpm, err := OpenWith(device, cheap())
	if err != nil {
		t.Fatal(err)
	}
	plain := secret.Random(32)
	name, value, auth := newCounter(t, tpm)
	k := key(t, tpm, rightPIN, nil)
	blob := seal(t, tpm, plain, k, vault.Mark{Counter: name, Value: value})
	opens(t, tpm, blob, k, plain)
	for range 2 {
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		_, err = tpm.Unseal(blob, k)
		wantState(t, err, vault.StateTPMAbsent, "")
		_, err = tpm.Count(name, auth)
		wantState(t, err, vault.StateTPMAbsent, "")
		_, stop = startIn(t, dir)
		setLimits(t, tpm, 100, 1000) // a TPM that lost its power has counted a failure
		opens(t, tpm, blob, k, plain)
		if now, err := tpm.Count(name, auth); err != nil || now != value {
			t.Errorf("counter %d, %v", now, err)
		}
	}
	empty(t, tpm)
	if err := tpm.Close(); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(device)
	wantState(t, err, vault.StateTPMAbsent, "cannot open the TPM")
	_, err = Open("/dev/no-such-tpm")
	wantState(t, err, vault.StateTPMAbsent, "/dev/no-such-tpm")
	_, err = Open("/dev/null/tpm")
	wantState(t, err, vault.StateTPMAbsent, "/dev/null/tpm")
	_, err = Open("/dev/null") // which is a device, and answers with nothing
	wantState(t, err, vault.StateTPMAbsent, "")
	_, err = OpenWith(device, Options{Stretch: stretch.Params{Time: 1}})
	if err == nil || !strings.Contains(err.Error(), "too weak") {
		t.Errorf("weak costs: %v", err)
	}
}

func TestSealsSurviveTheTPMsRestart(t *testing.T) {
	dir := shortDir(t)
	plain := secret.Random(32)
	var blob, name []byte
	var auth, k secret.Secret
	var value uint64
	for first := true; first || blob != nil; first = false {
		device, stop := startIn(t, dir)
		tpm, err := OpenWith(device, cheap())
		if err != nil {
			t.Fatal(err)
		}
		if first {
			name, value, auth = newCounter(t, tpm)
			k = key(t, tpm, rightPIN, nil)
			blob = seal(t, tpm, plain, k, vault.Mark{Counter: name, Value: value})
			opens(t, tpm, blob, k, plain)
		} else {
			opens(t, tpm, blob, k, plain)
			if a := failures(t, tpm); a.failed != 0 {
				t.Errorf("an orderly end has counted %d failures", a.failed)
			}
			if now, err := tpm.Count(name, auth); err != nil || now != value {
				t.Errorf("counter %d, %v", now, err)
			}
			blob = nil
		}
		if err := errors.Join(tpm.Close(), tpm.Close(), stop()); err != nil {
			t.Fatal(err)
		}
	}
}

// A second client of an swtpm is accepted and then ignored.
func TestBusyTPMDoesNotBlock(t *testing.T) {
	device := vaulttest.StartSWTPM(t)
	first := open(t, device)
	seal(t, first, secret.Random(32), secret.Secret{}, vault.Mark{})
	_, err := openOn(device, func() (transport.TPMCloser, error) {
		c, err := dial(strings.TrimPrefix(device, socketPrefix))
		if err == nil {
			c.timeout = 100 * time.Millisecond
		}
		return c, err
	}, true, cheap())
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
			_, err := openOn("test", func() (transport.TPMCloser, error) {
				return &socket{conn: desk, timeout: time.Minute}, nil
			}, true, cheap())
			wantState(t, err, vault.StateTPMAbsent, "")
			desk.Close()
			<-done
		})
	}
}

// /dev/tpm0 serves one program at a time and says so when it is opened.
func TestDeviceThatIsHeldByAnotherProgram(t *testing.T) {
	for _, free := range []int{3, 1 << 30} {
		device, tries := vaulttest.StartSWTPM(t), 0
		tpm, err := openOn("/dev/tpm0", func() (transport.TPMCloser, error) {
			if tries++; tries < free {
				return nil, &os.PathError{Op: "open", Path: "/dev/tpm0", Err: syscall.EBUSY}
			}
			return dial(strings.TrimPrefix(device, socketPrefix))
		}, false, Options{Patience: 50 * time.Millisecond})
		if free > 3 {
			wantState(t, err, vault.StateTPMAbsent, "/dev/tpmrm0")
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if tpm.Level() != vault.LevelEmulated { // by what swtpm says of itself: the kernel would hide the socket
			t.Errorf("level %s", tpm.Level())
		}
		blob := seal(t, tpm, secret.Random(32), secret.Secret{}, vault.Mark{})
		if _, err := tpm.Unseal(blob, secret.Secret{}); err != nil {
			t.Error(err)
		}
		empty(t, tpm)
		if err := tpm.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	tpm := start(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				s := secret.Random(32)
				blob, err := tpm.Seal(s, secret.Secret{}, vault.Mark{})
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := tpm.Unseal(blob, secret.Secret{}); err != nil || !got.Equal(s) {
					t.Errorf("unseal: %v", err)
				}
			}
		})
	}
	wg.Wait()
	empty(t, tpm)
}

func TestClosedTPM(t *testing.T) {
	tpm := start(t)
	blob := seal(t, tpm, secret.Random(32), secret.Secret{}, vault.Mark{})
	if err := tpm.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.Unseal(blob, secret.Secret{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("unseal: %v", err)
	}
	if _, err := tpm.Seal(secret.Random(32), secret.Secret{}, vault.Mark{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("seal: %v", err)
	}
	if _, _, err := tpm.Guesses(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("guesses: %v", err)
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
