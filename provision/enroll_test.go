package provision_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/provision"
	"tokendesk/vault"
)

func TestEnrolledKeyTypesTheSealedSeed(t *testing.T) {
	for _, e := range []provision.Enrollment{
		{Token: slot1, User: "alice", Digits: 6, Enter: true},
		{Token: slot2, User: "alice", Digits: 6, Enter: true},
		{Token: slot1, User: "alice", Digits: 8, Enter: true},
		{Token: slot2, User: "alice", Digits: 8, Enter: true, Identifier: true, StartCounter: 16},
		{Token: slot2, Digits: 6, Enter: true, StartCounter: device.MaxStartCounter},
		{Token: slot2, Digits: 6, Identifier: true}, // no Enter
	} {
		t.Run(fmt.Sprintf("%+v", e), func(t *testing.T) {
			b := newBench(t)
			woken := 0
			b.Wake = func() { woken++ }
			changes, err := b.Enroll(t.Context(), officer, e, b.tell)
			if err != nil {
				t.Fatal(err)
			}
			if n := b.touches(); n != 2 {
				t.Errorf("%d touches, want 2", n)
			}
			tok := b.token(e.Token)
			if tok.Status != vault.Active || tok.Owner != e.User || tok.Generation != 1 || tok.Digits != e.Digits ||
				tok.Identifier != e.Identifier || tok.Serial != serial || !tok.Emulated || tok.LastUsed.IsZero() {
				t.Errorf("%+v", tok)
			}
			if want := e.StartCounter + 2; tok.Counter != want {
				t.Errorf("counter %d, want %d", tok.Counter, want)
			}
			b.wantOnDevice(e.Token)
			want := []vault.ChangeKind{vault.Put, vault.Assign}[:len(changes)]
			if e.User == "" {
				b.wantOutbox("put/1")
			} else {
				b.wantOutbox("put/1 assign/1:alice")
			}
			for i, c := range changes {
				if c.Seq == 0 || c.Kind != want[i] || c.Counter != tok.Counter || c.Digits != e.Digits {
					t.Errorf("change %+v", c)
				}
			}
			if _, found := b.job(e.Token); found || woken == 0 {
				t.Errorf("job left: %v; outbox woken %d times", found, woken)
			}
			if err := b.Ready(e.Token, provision.ActEdit); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEnrollRefusesWhatCannotBe(t *testing.T) {
	b := newBench(t)
	b.CheckUser = func(_ context.Context, user string) (string, error) {
		if user == "nobody" {
			return "", &provision.RefusedError{Reason: "no such user"}
		}
		return strings.ToLower(user), nil
	}
	for name, c := range map[string]struct {
		change func(*provision.Enrollment)
		words  string
	}{
		"7 digits":        {func(e *provision.Enrollment) { e.Digits = 7 }, "6 or 8 digits"},
		"counter 8":       {func(e *provision.Enrollment) { e.StartCounter = 8 }, "multiple of 16"},
		"counter too far": {func(e *provision.Enrollment) { e.StartCounter = device.MaxStartCounter + 16 }, "multiple of 16"},
		"unknown user":    {func(e *provision.Enrollment) { e.User = "nobody" }, "no such user"},
	} {
		t.Run(name, func(t *testing.T) {
			e := enrollment(slot2, "alice")
			c.change(&e)
			wantRefused(t, b.enroll(t.Context(), e), c.words)
		})
	}
	other := enrollment("yk-10000002/otp2", "alice")
	if err := b.enroll(t.Context(), other); !errors.Is(err, device.ErrGone) {
		t.Errorf("a key that is not there: %v", err)
	}
	if b.exists(slot2) || b.exists(other.Token) || b.outbox() != "" || b.configured(slot2) {
		t.Error("a refused enroll left something")
	}

	b.enrolled(slot1, "alice")
	b.enrolled(slot2, "")
	wantRefused(t, b.enroll(t.Context(), enrollment(slot1, "bob")), "belongs to alice", "tokendesk reissue "+string(slot1))
	wantRefused(t, b.enroll(t.Context(), enrollment(slot2, "bob")), "stock", "tokendesk reissue "+string(slot2))
}

func TestIdentifierNeedsASerialOfEightDigits(t *testing.T) {
	const long device.Serial = 100_000_000
	b := newBenchOf(t, long)
	id := device.SlotToken(device.YubiKeyID(long), 2)
	e := enrollment(id, "")
	e.Identifier = true
	wantRefused(t, b.enroll(t.Context(), e), "8 digits", "without")
	if b.exists(id) {
		t.Error("a token that can never be programmed is in the vault")
	}
	e.Identifier = false
	if err := b.enroll(t.Context(), e); err != nil {
		t.Error(err)
	}
}

func TestConfiguredSlotIsReplacedOnlyWhenToldTo(t *testing.T) {
	b := newBench(t)
	b.occupy(slot2, "", true)
	before := b.typed(slot2)
	e := enrollment(slot2, "alice")
	wantRefused(t, b.enroll(t.Context(), e), "already holds something", "--overwrite")
	if b.exists(slot2) || b.typed(slot2) == before {
		t.Error("the refused enroll changed something")
	}
	e.Overwrite = true
	if err := b.enroll(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	b.wantOnDevice(slot2)
}

func TestForeignAccessCodeKeepsTheSlotAndTheWayBack(t *testing.T) {
	b := newBench(t)
	b.occupy(slot2, "foreig", true)
	e := enrollment(slot2, "alice")
	e.Overwrite = true
	err := b.enroll(t.Context(), e)
	var rejected *device.RejectedError
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "access code that the desk does not know") ||
		!strings.Contains(err.Error(), "tokendesk resolve --undo "+string(slot2)) {
		t.Fatalf("%v", err)
	}
	b.wantUnfinished(err, slot2, "program", nil)
	wantRefused(t, b.enroll(t.Context(), e), "unfinished enroll", "tokendesk resolve "+string(slot2))

	_, err = b.Resolve(t.Context(), officer, slot2, nil, b.tell)
	b.wantUnfinished(err, slot2, "program", nil)
	if !errors.As(err, &rejected) {
		t.Errorf("%v", err)
	}
	if err := b.Undo(t.Context(), officer, slot2, b.tell); err != nil {
		t.Fatal(err)
	}
	if b.exists(slot2) || !b.configured(slot2) || !b.noted("left as it is") {
		t.Error("undo: the token is still there, the slot was touched, or nobody was told")
	}
	if _, found := b.job(slot2); found {
		t.Error("undo left the job")
	}
}

func TestUndoErasesWhatWasWritten(t *testing.T) {
	for _, kind := range []emulator.Fault{emulator.FaultUnplugAtChunk, emulator.FaultUnplugAfterWrite} {
		t.Run(string(kind), func(t *testing.T) {
			b := newBench(t)
			b.fault(kind, 5)
			b.wantUnfinished(b.enroll(t.Context(), enrollment(slot2, "alice")), slot2, "program", device.ErrGone)
			if err := b.Undo(t.Context(), officer, slot2, b.tell); !errors.Is(err, device.ErrGone) {
				t.Errorf("undo without the key: %v", err)
			}
			if !b.exists(slot2) {
				t.Fatal("undo forgot a seed that may be on the device")
			}
			b.key.Insert()
			if err := b.Undo(t.Context(), officer, slot2, b.tell); err != nil {
				t.Fatal(err)
			}
			if b.exists(slot2) || b.configured(slot2) || b.outbox() != "" {
				t.Error("undo left something")
			}
			wantRefused(t, b.Undo(t.Context(), officer, slot2, b.tell), "nothing to resolve")
			b.enrolled(slot2, "bob") // no access code stays behind
			b.wantOnDevice(slot2)
		})
	}
}

// A slot that was ours and refuses our access code: the desk must not forget a seed that may still be there.
func TestUndoKeepsTheSeedOfASlotItCannotErase(t *testing.T) {
	for _, occupied := range []bool{false, true} {
		t.Run(fmt.Sprintf("occupied %v", occupied), func(t *testing.T) {
			b := newBench(t)
			if occupied {
				b.occupy(slot2, "", true)
			}
			b.beforeCode = func(device.HOTPToken) { b.key.Remove() }
			e := enrollment(slot2, "alice")
			e.Overwrite = true
			b.wantUnfinished(b.enroll(t.Context(), e), slot2, "verify", device.ErrGone)
			b.key.Insert()
			if err := b.key.SetFault(emulator.FaultRejectWrite, 1); err != nil {
				t.Fatal(err)
			}
			err := b.Undo(t.Context(), officer, slot2, b.tell)
			var rejected *device.RejectedError
			if !errors.As(err, &rejected) || !b.exists(slot2) {
				t.Fatalf("undo: %v; token there: %v", err, b.exists(slot2))
			}
			if err := b.Undo(t.Context(), officer, slot2, b.tell); err != nil || b.configured(slot2) {
				t.Errorf("second undo: %v", err)
			}
		})
	}
}

// touchTwice has slot 1, which must not press Enter, type two codes in one breath: that is not a code.
func (b *bench) touchTwice() {
	b.key.Touch(false)
	b.key.Touch(false)
}

func TestWrongTouchesAreNotedAndForgiven(t *testing.T) {
	for name, wrong := range map[string]func(*bench){
		"codes of the other slot": func(b *bench) { b.occupy(slot1, "", true) },
		"other text":              func(b *bench) { b.occupy(slot1, "", false) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			wrong(b)
			b.touch = false
			asked := 0
			_, err := b.Enroll(t.Context(), officer, enrollment(slot2, "bob"), func(p provision.Progress) {
				b.tell(p)
				if p.Kind != provision.Touch {
					return
				}
				if asked++; asked > 2 {
					b.key.Touch(true)
				} else if name == "other text" {
					b.touchTwice()
				} else {
					b.key.Touch(false)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if noted := b.noted("not a code of this slot"); noted != (name == "other text") {
				t.Errorf("noted: %v", noted)
			}
			b.wantOnDevice(slot2)
		})
	}
}

func TestForeignCodesAreAMismatchAndAreProgrammedAway(t *testing.T) {
	b := newBench(t)
	b.beforeCode = func(s device.HOTPToken) {
		b.beforeCode = nil
		b.behind(s, slot2, false)
	}
	err := b.enroll(t.Context(), enrollment(slot2, "alice"))
	b.wantUnfinished(err, slot2, "verify", provision.ErrMismatch)
	if tok := b.token(slot2); tok.Status != vault.Pending || b.outbox() != "" {
		t.Errorf("unverified: %+v, outbox %q", tok, b.outbox())
	}
	b.touches()
	b.resolve(slot2)
	if n := b.touches(); n != 2 {
		t.Errorf("resolve took %d touches, want 2", n)
	}
	b.wantOnDevice(slot2)
	b.wantOutbox("put/1 assign/1:alice")
}

// An empty slot types nothing, so waiting for codes would never settle it.
func TestResolveProgramsASlotThatTypesNothing(t *testing.T) {
	b := newBench(t)
	b.TouchTimeout = time.Millisecond
	b.beforeCode = func(s device.HOTPToken) {
		b.beforeCode = nil
		b.behind(s, slot2, true)
	}
	err := b.enroll(t.Context(), enrollment(slot2, "alice"))
	b.wantUnfinished(err, slot2, "verify", device.ErrNoTouch)
	b.TouchTimeout = patience
	b.resolve(slot2)
	b.wantOnDevice(slot2)
}

func TestNoTouchLeavesAResolvableJob(t *testing.T) {
	b := newBench(t)
	b.TouchTimeout, b.touch = time.Millisecond, false
	b.wantUnfinished(b.enroll(t.Context(), enrollment(slot2, "alice")), slot2, "verify", device.ErrNoTouch)
	b.TouchTimeout, b.touch = patience, true
	b.touches()
	b.resolve(slot2)
	if n := b.touches(); n != 2 {
		t.Errorf("%d touches, want 2", n)
	}
	b.wantOnDevice(slot2)
}

func TestTwoEnrollsOfOneToken(t *testing.T) {
	b := newBench(t)
	results := make(chan error, 1)
	second := func(p provision.Progress) {
		b.tell(p)
		if p.Kind == provision.Done && p.Step == "seal" {
			go func() { results <- b.enroll(t.Context(), enrollment(slot2, "bob")) }()
			wantRefused(t, <-results, "another officer's work")
		}
	}
	if _, err := b.Enroll(t.Context(), officer, enrollment(slot2, "alice"), second); err != nil {
		t.Fatal(err)
	}
	if owner := b.token(slot2).Owner; owner != "alice" {
		t.Errorf("it belongs to %s", owner)
	}
	b.wantOutbox("put/1 assign/1:alice")
}

func TestCaptureOfTheWrongSlotEnds(t *testing.T) {
	b := newBench(t)
	b.enrolled(slot2, "alice")
	b.occupy(slot1, "", false)
	asked := 0
	err := b.Capture(t.Context(), slot2, func([]string) (bool, error) { return true, nil }, func(string) {}, func(p provision.Progress) {
		if p.Kind == provision.Touch {
			asked++
			b.touchTwice()
		}
	})
	if !errors.Is(err, device.ErrNotACode) || !errors.Is(err, provision.ErrMismatch) || asked != 6 {
		t.Errorf("after %d touches: %v", asked, err)
	}
}

func TestTypedCodesVerify(t *testing.T) {
	b := newBench(t)
	e := enrollment(slot2, "alice")
	e.Typed = true
	b.wantUnfinished(b.enroll(t.Context(), e), slot2, "verify", provision.ErrCodesWanted)
	if n := b.touches(); n != 0 {
		t.Fatalf("%d touches were asked for", n)
	}
	_, err := b.Resolve(t.Context(), officer, slot2, []string{"000000", "111111"}, b.tell)
	b.wantUnfinished(err, slot2, "verify", provision.ErrMismatch)
	if _, err := b.Resolve(t.Context(), officer, slot2, []string{strings.TrimSpace(b.typed(slot2)), strings.TrimSpace(b.typed(slot2))}, b.tell); err != nil {
		t.Fatal(err)
	}
	if tok := b.token(slot2); tok.Status != vault.Active || tok.Owner != "alice" || tok.Counter != 2 {
		t.Fatalf("%+v", tok)
	}
	b.wantOnDevice(slot2)
}

func TestTypedCodesNeedAVerification(t *testing.T) {
	b := newBench(t)
	b.fault(emulator.FaultUnplugAtChunk, 4)
	b.wantUnfinished(b.enroll(t.Context(), enrollment(slot2, "alice")), slot2, "program", device.ErrGone)
	_, err := b.Resolve(t.Context(), officer, slot2, []string{"000000", "111111"}, b.tell)
	wantRefused(t, err, "before any codes", "tokendesk resolve")
}
