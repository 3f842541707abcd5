package vault_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// The test binary plays the process that dies: it is started again with a role.
const roleVariable = "TOKENDESK_VAULT_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		os.Exit(m.Run())
	case "writer":
		exit(writer(os.Args[1]))
	case "disk full":
		exit(diskFull(os.Args[1]))
	case "pass on":
		exit(passOn())
	default:
		exit(fmt.Errorf("unknown role %q", role))
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(t *testing.T, role, path string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], path)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

// childVault opens a vault of another process.
func childVault(path string) (*vault.Vault, error) { return openWith(path, vaulttest.Sealer) }

func forChildren(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "vault")
	if err := vault.At(path, vaulttest.Sealer).Init(vaulttest.Setup(secret.Secret{})); err != nil {
		t.Fatal(err)
	}
	return path
}

func numbered(i int) device.TokenID { return device.SlotToken(device.YubiKeyID(device.Serial(i)), 1) }

// step is the i-th transaction: a token with everything, and the one before it advanced.
func step(v *vault.Vault, i int) error {
	return v.Update(func(tx *vault.Tx) error {
		if err := put(tx, numbered(i), []byte("seed "+strconv.Itoa(i))); err != nil {
			return err
		}
		if _, err := tx.Enqueue(vault.Change{Kind: vault.Put, Token: numbered(i), Generation: 1}); err != nil {
			return err
		}
		if i == 0 {
			return nil
		}
		before, err := tx.Token(numbered(i - 1))
		before.Counter = uint64(i)
		return errors.Join(err, tx.PutToken(before))
	})
}

// writer commits until it is killed, and says so after each commit.
func writer(path string) error {
	v, err := childVault(path)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if err := step(v, i); err != nil {
			return err
		}
		if _, err := fmt.Println(i); err != nil {
			return err
		}
	}
}

func TestKilledWriterLosesNothingAcknowledged(t *testing.T) {
	for _, until := range []int{0, 1, 7, 40, 133} {
		t.Run(strconv.Itoa(until), func(t *testing.T) {
			path := forChildren(t)
			last := runUntil(t, path, until)
			v := reopenWith(t, path, vaulttest.Sealer)
			if err := v.Check(); err != nil {
				t.Fatal(err)
			}
			view(t, v, func(tx *vault.Tx) error {
				for i := range last + 1 {
					tok, err := tx.Token(numbered(i))
					if err != nil {
						return err
					}
					if i < last && tok.Counter != uint64(i+1) {
						t.Errorf("token %d has counter %d", i, tok.Counter)
					}
					s, err := tx.Seed(numbered(i), 1)
					if err != nil || string(s.Reveal()) != "seed "+strconv.Itoa(i) {
						t.Errorf("seed %d: %v", i, err)
					}
				}
				tokens, _, err := tx.Tokens(vault.Filter{})
				changes, cerr := tx.ChangesFrom(0, 0)
				// One transaction may have been committed and not been told; none may be there in part.
				if n := len(tokens); n != len(changes) || n < last+1 || n > last+2 {
					t.Errorf("%d tokens and %d changes after %d acknowledged transactions", n, len(changes), last+1)
				}
				return errors.Join(err, cerr)
			})
			update(t, v, func(tx *vault.Tx) error { return put(tx, "yk-4000000000/otp1", []byte("after")) })
		})
	}
}

// runUntil kills a writer in the middle of its work once it has acknowledged a transaction, and returns the last that
// it has acknowledged.
func runUntil(t *testing.T, path string, until int) int {
	t.Helper()
	cmd := child(t, "writer", path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := -1
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if last, err = strconv.Atoi(lines.Text()); err != nil {
			t.Error(err)
		}
		if last == until {
			cmd.Process.Kill()
		}
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the writer was not killed: %v", err)
	}
	if last < until {
		t.Fatalf("the writer got only to %d", last)
	}
	return last
}

// diskFull writes until the file may not grow further, checks that nothing was lost, and goes on when it may.
func diskFull(path string) error {
	v, err := childVault(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	full := unix.Rlimit{Cur: uint64(info.Size()) + 64<<10, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &full); err != nil {
		return err
	}
	done := 0
	for ; err == nil && done < 10000; done++ {
		err = step(v, done)
	}
	done-- // the last one failed
	if err == nil || !errors.Is(err, unix.EFBIG) || !strings.Contains(err.Error(), "nothing was changed; make room") {
		return fmt.Errorf("after %d transactions: %w", done, err)
	}
	if again := step(v, done); !errors.Is(again, unix.EFBIG) {
		return fmt.Errorf("the next transaction: %w", again)
	}
	if err := whole(v, done); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	if err := step(v, done); err != nil {
		return fmt.Errorf("with room again: %w", err)
	}
	if err := whole(v, done+1); err != nil {
		return err
	}
	fmt.Println(done + 1)
	return v.Close()
}

// whole checks that n transactions are there and no more.
func whole(v *vault.Vault, n int) error {
	return errors.Join(v.Check(), v.View(func(tx *vault.Tx) error {
		tokens, _, err := tx.Tokens(vault.Filter{})
		if err == nil && len(tokens) != n {
			err = fmt.Errorf("%d tokens after %d transactions", len(tokens), n)
		}
		return err
	}))
}

func TestDiskFullLosesNothing(t *testing.T) {
	path := forChildren(t)
	out, err := child(t, "disk full", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || n < 2 {
		t.Fatalf("the child said %q", out)
	}
	if err := whole(reopenWith(t, path, vaulttest.Sealer), n); err != nil {
		t.Error(err)
	}
}
