package tpmseal

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

func TestWrongPINsStopTwoShortOfTheLimit(t *testing.T) {
	tpm := start(t)
	const limit = 10
	setLimits(t, tpm, limit, 1000)
	plain := secret.Random(32)
	blob := seal(t, tpm, plain, key(t, tpm, rightPIN, nil), vault.Mark{})
	right, wrong := key(t, tpm, rightPIN, blob), key(t, tpm, "wrong", blob)
	for n := 1; n <= limit-spare; n++ {
		_, err := tpm.Unseal(blob, wrong)
		if e := wantState(t, err, vault.StateWrongPIN, "refuses"); e.Left != limit-spare-n || (e.Left == 0) != e.Until.After(time.Now()) {
			t.Errorf("after %d: %d left, until %s", n, e.Left, e.Until)
		}
		left, _, err := tpm.Guesses()
		if err != nil || left != limit-spare-n {
			t.Errorf("after %d: %d left, %v", n, left, err)
		}
	}
	for _, k := range []secret.Secret{wrong, right} { // the TPM is not asked which it is
		_, err := tpm.Unseal(blob, k)
		e := wantState(t, err, vault.StateLockout, "counted 8 wrong PINs")
		if wait := time.Until(e.Until); wait < 990*time.Second || wait > 1000*time.Second {
			t.Errorf("until %s from now", wait)
		}
	}
	if a := failures(t, tpm); a.failed != limit-spare {
		t.Errorf("the TPM has counted %d", a.failed)
	}
	setLimits(t, tpm, 2*limit, 1000)
	opens(t, tpm, blob, right, plain)
	if a := failures(t, tpm); a.failed != limit-spare {
		t.Errorf("the right PIN left %d of %d failures", a.failed, limit-spare)
	}
	empty(t, tpm)
}

// swtpm comes with a limit of 3.
func TestLowLimitLeavesOneTry(t *testing.T) {
	tpm := start(t)
	plain := secret.Random(32)
	blob := seal(t, tpm, plain, key(t, tpm, rightPIN, nil), vault.Mark{})
	if left, until, err := tpm.Guesses(); err != nil || left != 1 || !until.IsZero() {
		t.Fatalf("%d left, until %s, %v", left, until, err)
	}
	opens(t, tpm, blob, key(t, tpm, rightPIN, blob), plain)
	_, err := tpm.Unseal(blob, key(t, tpm, "wrong", blob))
	wantState(t, err, vault.StateWrongPIN, "")
	_, err = tpm.Unseal(blob, key(t, tpm, rightPIN, blob))
	wantState(t, err, vault.StateLockout, "counted 1")
	setLimits(t, tpm, 2, 1000)
	_, err = tpm.Unseal(blob, key(t, tpm, rightPIN, blob))
	wantState(t, err, vault.StateLockout, "max-tries")
}

func TestLockoutBySomebodyElseAndItsEnd(t *testing.T) {
	tpm := start(t)
	const limit = 5
	setLimits(t, tpm, limit, 1000)
	plain := secret.Random(32)
	blob := seal(t, tpm, plain, key(t, tpm, rightPIN, nil), vault.Mark{})
	unattended := seal(t, tpm, plain, secret.Secret{}, vault.Mark{})
	name, value, auth := newCounter(t, tpm)
	for range limit {
		if err := failAsOther(t, tpm, blob); err == nil {
			t.Fatal("a wrong PIN was right")
		}
	}
	err := failAsOther(t, tpm, blob)
	if !errors.Is(err, tpm2.TPMRCLockout) {
		t.Fatalf("the TPM is not locked: %v", err)
	}
	right := key(t, tpm, rightPIN, blob)
	_, err = tpm.Unseal(blob, right)
	if e := wantState(t, err, vault.StateLockout, "counted 5"); !e.Until.After(time.Now()) {
		t.Errorf("until %s", e.Until)
	}
	// What has no PIN goes on working.
	opens(t, tpm, unattended, secret.Secret{}, plain)
	if err := tpm.Increment(name, auth); err != nil {
		t.Error(err)
	}
	if now, err := tpm.Count(name, auth); err != nil || now != value+1 {
		t.Errorf("counter %d, %v", now, err)
	}
	// The end comes with the TPM's own clock: one failure is forgotten each second.
	setLimits(t, tpm, limit, 1)
	awaitTrue(t, 20*time.Second, "a PIN may be tried", func() bool {
		left, until, err := tpm.Guesses()
		if err != nil || (left == 0) == until.IsZero() {
			t.Fatalf("%d left, until %s, %v", left, until, err)
		}
		return left > 0
	})
	opens(t, tpm, blob, right, plain)
}

// Other programs' failures may lock the TPM between the look at the counter and the try.
func TestLockoutAtTheLastMoment(t *testing.T) {
	var send func(transport.TPM, []byte) ([]byte, error)
	tpm := openTapped(t, vaulttest.StartSWTPM(t), cheap(), &send)
	blob := seal(t, tpm, secret.Random(32), key(t, tpm, rightPIN, nil), vault.Mark{})
	k := key(t, tpm, rightPIN, blob)
	send = func(next transport.TPM, command []byte) ([]byte, error) {
		if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) == tpm2.TPMCCUnseal {
			return answer(tpm2.TPMRCLockout), nil
		}
		return next.Send(command)
	}
	_, err := tpm.Unseal(blob, k)
	if e := wantState(t, err, vault.StateLockout, "LOCKOUT"); !e.Until.After(time.Now()) {
		t.Errorf("until %s", e.Until)
	}
	empty(t, tpm)
}

func answer(rc tpm2.TPMRC) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 1, 0, 0, 0, headerSize}, uint32(rc))
}

func TestAttempts(t *testing.T) {
	now := time.Unix(1e9, 0)
	for _, c := range []struct {
		attempts
		left int
		wait time.Duration // 0: none is told
	}{
		{attempts{0, 32, time.Hour}, 30, 0},
		{attempts{29, 32, time.Hour}, 1, 0},
		{attempts{30, 32, time.Hour}, 0, time.Hour},
		{attempts{32, 32, time.Hour}, 0, 3 * time.Hour},
		{attempts{0, 3, time.Hour}, 1, 0},
		{attempts{1, 3, time.Hour}, 0, time.Hour},
		{attempts{0, 2, time.Hour}, 0, 0},
		{attempts{0, 0, time.Hour}, 0, 0},
		{attempts{1<<32 - 1, 3, (1<<32 - 1) * time.Second}, 0, longest},
	} {
		want := time.Time{}
		if c.wait != 0 {
			want = now.Add(c.wait)
		}
		if c.attempts.left() != c.left || !c.until(now).Equal(want) {
			t.Errorf("%+v: %d left, until %s", c.attempts, c.attempts.left(), c.until(now))
		}
		if (c.refusal() == nil) != (c.left > 0) {
			t.Errorf("%+v: %v", c.attempts, c.refusal())
		}
	}
}
