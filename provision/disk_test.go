package provision_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func randomSeed() secret.Secret { return secret.Random(20) }

// A limit on file sizes is the whole process's, so the test of a full disk runs in one of its own.
const diskVariable = "TOKENDESK_PROVISION_TEST_DISK"

func TestFullDisk(t *testing.T) {
	if os.Getenv(diskVariable) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), diskVariable+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	signal.Ignore(unix.SIGXFSZ)
	for _, p := range plans(t) {
		for i, step := range provision.Steps()[p.name] {
			if provision.Begins(p.name, i) {
				t.Run(p.name+"/"+step, func(t *testing.T) { fullAt(t, p, i) })
			}
		}
	}
}

// full has every write of a record fail with EFBIG until makeRoom is called.
func full(t *testing.T) (makeRoom func()) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 2 * uint64(os.Getpagesize()), Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}
}

// fullAt fills the disk before one step of a plan commits.
func fullAt(t *testing.T, p plan, i int) {
	b := p.bench(t)
	steps := provision.Steps()[p.name]
	makeRoom := func() {}
	if i == 0 {
		makeRoom = full(t)
	}
	b.Checkpoint = func(_, done string) {
		if i > 0 && done == steps[i-1] {
			makeRoom = full(t)
		}
	}
	before := b.state()
	err := p.begin(t.Context(), b, b.tell)
	if !errors.Is(err, unix.EFBIG) {
		makeRoom()
		t.Fatalf("%v, want %v", err, unix.EFBIG)
	}
	var unfinished *provision.UnfinishedError
	if stopped := errors.As(err, &unfinished); stopped != (i > 0) || stopped && unfinished.Step != steps[i] {
		t.Errorf("%v", err)
	}
	j, found := b.job(slot2)
	if found != (i > 0) || j.Step != i {
		t.Errorf("journal: %+v, %v", j, found)
	}
	if i == 0 && b.state() != before {
		t.Errorf("%s, was %s", b.state(), before)
	}
	makeRoom()
	b.Checkpoint = nil
	b.restart()
	if err := b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found := b.job(slot2); found {
		b.resolve(slot2)
	} else if i == 0 {
		if err := p.begin(t.Context(), b, b.tell); err != nil {
			t.Fatal(err)
		}
	}
	p.wantSettled(t, b)
}

// state is everything there is about the token.
func (b *bench) state() (s string) {
	b.view(func(tx *vault.Tx) error {
		tok, err := tx.Token(slot2)
		if errors.Is(err, vault.ErrNotFound) {
			err = nil
		}
		seeds, serr := tx.Generations(slot2)
		j, _, jerr := tx.JobFor(slot2)
		s = fmt.Sprintf("%+v %v %+v ", tok, seeds, j)
		return errors.Join(err, serr, jerr)
	})
	return s + b.outbox()
}
