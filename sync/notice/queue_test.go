package notice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/sync/notice/mailtest"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func TestNoticesAreSent(t *testing.T) {
	f := newOffice(t)
	f.put("invitation alice", "disabled bob", "enabled bob", "expired bob", "unassigned bob", "compromised bob", "reissued bob")
	if due := f.pass(); !due.IsZero() {
		t.Errorf("something is due at %s", due)
	}
	f.wantLeft()
	m := f.wantMail("alice", "A login token is yours from now on")[0]
	for header, want := range map[string]string{
		"From": `"Token desk" <desk@example.org>`, "To": "<alice@example.org>", "Reply-To": "<security@example.org>", "Auto-Submitted": "auto-generated",
		"Return-Path": "<desk@example.org>", "Mime-Version": "1.0", "Content-Type": "text/plain; charset=UTF-8",
	} {
		if got := m.Header.Get(header); got != want {
			t.Errorf("%s: %s, not %s", header, got, want)
		}
	}
	want := "Hello alice,\n\nthere is something new of yours: the token with the serial number 10000001.\nFrom now on a login asks you for a code of it beside your password.\n" +
		"Put the token into a USB port, click into the field for the code, and touch the\ntoken for three seconds: it types the code.\n\n" +
		"Keep it with you, and lend it to nobody.\n\nIf nobody has given you this token, or if you lose it, say so at once:\nsecurity@example.org\n"
	if strings.ReplaceAll(m.Body, "\r\n", "\n") != want {
		t.Errorf("%q", m.Body)
	}
	// Exim takes five in a session; the sixth to bob goes in another. Deliveries of one second may change places.
	all := f.wantAny("bob", 6)
	for _, subject := range []string{"is switched off", "works again", "time of your login token is over", "no longer yours", "off for good", "gone to somebody else"} {
		if !slices.ContainsFunc(all, func(m mailtest.Mail) bool { return strings.Contains(m.Subject(), subject) }) {
			t.Errorf("no mail says %q", subject)
		}
	}
	f.wantActs("tokendeskd notify invitation done", "tokendeskd notify disabled done", "tokendeskd notify enabled done", "tokendeskd notify expired done",
		"tokendeskd notify unassigned done", "tokendeskd notify compromised done", "tokendeskd notify reissued done")
}

// A server that defers is asked again after a pause, and what comes later for the same holder stays behind; others do not wait.
func TestGreylisting(t *testing.T) {
	f := newOffice(t)
	set(t, f.mail, mailtest.Greylist, true)
	f.put("disabled alice")
	due := f.pass()
	if d := due.Sub(f.clock); d < 30*time.Second || d > time.Minute {
		t.Errorf("it is tried again in %s", d)
	}
	n := f.left()[0]
	if n.Attempts != 1 || n.Parked || !strings.HasSuffix(n.Problem, "answers: 451 4.7.1 Greylisted, come back later") || !n.NotBefore.Equal(due) || f.q.Problem() != "" {
		t.Errorf("%+v, %q", n, f.q.Problem())
	}
	set(t, f.mail, mailtest.Greylist, false)
	f.put("enabled alice", "invitation bob")
	if again := f.pass(); !again.Equal(due) {
		t.Errorf("%s, not %s", again, due)
	}
	f.wantLeft("disabled alice", "enabled alice")
	f.wantMail("bob", "yours from now on")
	f.clock = due
	f.pass()
	f.wantLeft()
	f.wantAny("alice", 2)
	f.wantActs("tokendeskd notify invitation done", "tokendeskd notify disabled done", "tokendeskd notify enabled done")
}

// What the server refuses for good, and what has no address, waits for an officer, and holds nothing up.
func TestParked(t *testing.T) {
	f := newOffice(t)
	f.address = func(user string) (string, error) {
		switch user {
		case "ghost":
			return "", fmt.Errorf("%w: there is no user ghost", ErrNoAddress)
		case "liar":
			return "liar@example.org>\r\nRCPT TO:<bob@example.org", nil
		}
		return user + "@example.org", nil
	}
	set(t, f.mail, mailtest.Without("alice"), true)
	f.put("disabled alice", "disabled ghost", "disabled liar", "boasting bob", "disabled bob\nBcc:x", "disabled bob")
	if due := f.pass(); !due.IsZero() {
		t.Errorf("%s", due)
	}
	f.wantLeft("disabled alice +", "disabled ghost +", "disabled liar +", "boasting bob +", "disabled bob\nBcc:x +")
	f.wantMail("bob", "switched off")
	for i, want := range []string{
		"550 5.1.1 no such mailbox", "there is no user ghost", `the address of liar: "liar@example.org>\r\nRCPT TO:<bob@example.org" is not a mail address`,
		`there are no words for a notice of kind "boasting"`, "is not a mail address",
	} {
		if n := f.left()[i]; !strings.Contains(n.Problem, want) || n.Attempts != 1 {
			t.Errorf("%+v, want %s", n, want)
		}
	}
	f.pass() // once is enough
	if n := f.left()[0]; n.Attempts != 1 {
		t.Errorf("%+v", n)
	}
	set(t, f.mail, mailtest.Without("alice"), false)
	if err := errors.Join(f.q.Retry(officer, 1), f.q.Discard(officer, 2, "she left")); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{f.q.Retry(officer, 2), f.q.Discard(officer, 99, "")} {
		if !errors.Is(err, vault.ErrNotFound) {
			t.Error(err)
		}
	}
	f.pass()
	f.wantLeft("disabled liar +", "boasting bob +", "disabled bob\nBcc:x +")
	f.wantMail("alice", "switched off")
	f.wantActs("tokendeskd notify disabled parked", "tokendeskd notify disabled parked", "tokendeskd notify disabled parked", "tokendeskd notify boasting parked",
		"tokendeskd notify disabled parked", "tokendeskd notify disabled done", "olga retry notice disabled done", "olga discard notice disabled done", "tokendeskd notify disabled done")
}

// While the server is away the first notice finds out whether it is back, and the others wait as they are.
func TestServerAway(t *testing.T) {
	f := newOffice(t)
	f.mail.Stop()
	f.put("disabled alice", "disabled bob", "disabled carol")
	due := f.pass()
	if !strings.Contains(f.q.Problem(), "connection refused") || due.Before(f.clock.Add(30*time.Second)) {
		t.Errorf("%q, %s", f.q.Problem(), due)
	}
	if again := f.pass(); !again.Equal(due) { // nobody is asked
		t.Errorf("%s, not %s", again, due)
	}
	for range 2 {
		f.clock = due
		due = f.pass()
	}
	var tried []int
	for _, n := range f.left() {
		tried = append(tried, n.Attempts)
		if n.Parked {
			t.Errorf("%+v", n)
		}
	}
	if !slices.Equal(tried, []int{3, 0, 0}) {
		t.Errorf("tried %d", tried)
	}
	if err := f.mail.Restart(); err != nil {
		t.Fatal(err)
	}
	f.clock = due
	f.pass()
	f.wantLeft()
	if f.q.Problem() != "" {
		t.Error(f.q.Problem())
	}
	for _, user := range []string{"alice", "bob", "carol"} {
		f.wantMail(user, "switched off")
	}
}

// An officer who has mended the server need not wait for a pause to end.
func TestRetryEndsAnOutage(t *testing.T) {
	f := newOffice(t)
	f.mail.Stop()
	f.put("disabled alice")
	f.pass()
	if err := f.mail.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := f.q.Retry(officer, 1); err != nil {
		t.Fatal(err)
	}
	f.pass()
	f.wantLeft()
}

// A mail at which the server always breaks off holds up nobody but its holder. When that goes on, it is the server's fault.
func TestBrokenLine(t *testing.T) {
	f := newOffice(t)
	set(t, f.mail, mailtest.Hangup("alice"), true)
	f.put("disabled alice", "enabled alice", "disabled bob")
	f.pass()
	f.wantLeft("disabled alice", "enabled alice")
	f.wantMail("bob", "switched off")
	if n := f.left()[0]; n.NotBefore.IsZero() || n.Parked || !strings.Contains(n.Problem, "421 ") || f.q.Problem() != "" {
		t.Errorf("%+v, %q", n, f.q.Problem())
	}
	for _, user := range []string{"bob", "carol", "dora"} {
		set(t, f.mail, mailtest.Hangup(user), true)
	}
	f.put("enabled bob", "disabled carol", "disabled dora", "disabled emil")
	f.pass()
	if !strings.Contains(f.q.Problem(), "421 ") {
		t.Errorf("%q", f.q.Problem())
	}
	f.wantLeft("disabled alice", "enabled alice", "enabled bob", "disabled carol", "disabled dora", "disabled emil")
}

// A directory that does not answer says nothing about anybody.
func TestDirectoryAway(t *testing.T) {
	f := newOffice(t)
	f.address = func(string) (string, error) { return "", errors.New("the directory is away") }
	f.put("disabled alice")
	f.pass()
	if n := f.left()[0]; n.Parked || f.q.Problem() != "cannot look up the address of alice: the directory is away" {
		t.Errorf("%+v, %q", n, f.q.Problem())
	}
}

// A pause that ends later than any can last is one of before the clock was set back.
func TestClockSetBack(t *testing.T) {
	f := newOffice(t)
	f.clock = f.clock.Add(10 * 365 * 24 * time.Hour)
	set(t, f.mail, mailtest.Greylist, true)
	f.put("disabled alice")
	f.pass()
	f.mail.Stop()
	f.put("disabled bob")
	f.pass()
	f.clock = time.Now()
	set(t, f.mail, mailtest.Greylist, false)
	if err := f.mail.Restart(); err != nil {
		t.Fatal(err)
	}
	f.pass()
	f.wantLeft()
}

// What was sent and could not be recorded is not sent again by the same process.
func TestRecordedLater(t *testing.T) {
	f := newOffice(t)
	f.put("disabled alice")
	q := f.queue(f.v)
	n := f.left()[0]
	p := &pass{Queue: q, held: map[string]bool{}}
	if err := p.deliver(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	p.session.close()
	if err := f.v.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := p.record(n); !errors.As(err, new(*vault.StateError)) {
		t.Error(err)
	}
	if err := f.v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantLeft()
	f.wantAny("alice", 1)
}

// Run sends when it is woken, waits while the vault is locked, and ends with its context.
func TestRun(t *testing.T) {
	f := newOffice(t)
	f.q.now = time.Now
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.q.Run(ctx) }()
	f.put("disabled alice")
	f.q.Wake()
	f.wantMail("alice", "switched off")
	if err := f.v.Lock(); err != nil {
		t.Fatal(err)
	}
	f.q.Wake()
	if err := f.v.Unlock(secret.Secret{}); err != nil {
		t.Fatal(err)
	}
	f.put("disabled bob")
	f.q.Wake()
	f.wantMail("bob", "switched off")
	if err := f.mail.Pause(); err != nil {
		t.Fatal(err)
	}
	f.put("disabled carol")
	f.q.Wake()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := f.mail.Resume(); err != nil {
		t.Fatal(err)
	}
	idle := New(f.v, slog.New(slog.DiscardHandler), nil)
	if err := idle.Run(ctx); !errors.Is(err, context.Canceled) || idle.Configured() {
		t.Error(err)
	}
}

// The number of a notice is given out again after a restore; its Message-ID must not be.
func TestMessageID(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	n := vault.Notice{ID: 7, Kind: "disabled", User: "alice", Token: device.TokenID("yk-1/otp1"), Created: at}
	later := n
	later.Created = at.Add(time.Microsecond)
	tried := n
	tried.Attempts, tried.Problem, tried.NotBefore = 3, "away", at.Add(time.Hour)
	id := messageID(n, "AB-c1", "desk@example.org")
	if !strings.HasPrefix(id, "notice.7.") || !strings.HasSuffix(id, ".abc1@example.org") {
		t.Error(id)
	}
	if messageID(later, "AB-c1", "desk@example.org") == id || messageID(n, "other", "desk@example.org") == id {
		t.Error("two mails have one name")
	}
	if messageID(tried, "AB-c1", "desk@example.org") != id {
		t.Error("one mail has two names")
	}
}
