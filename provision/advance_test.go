package provision_test

import (
	"strings"
	"testing"
	"time"

	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func advance(generation int, from, to uint64) provision.Order {
	return provision.AdvanceOrder(others[0], provision.Advance{Generation: generation, From: from, To: to}, to-from-2, 1000)
}

// A counter that is to go further than one officer may move it waits for a second one, and then goes exactly there.
func TestAdvanceTakesASecondOfficer(t *testing.T) {
	b := withTokens(t, "alice")
	b.update(func(tx *vault.Tx) error {
		return tx.PutAttempts(vault.TokenAttempts(others[0]), vault.Attempts{Failures: 9, Last: b.token(others[0]).Created})
	})
	a := b.waits(officer, advance(1, 0, 4023))
	text := strings.Join(a.Text, " ")
	if a.Action != "resync" || !strings.Contains(text, "its counter goes from 0 to 4023") || a.Reason != "consecutive codes were found at +4021, beyond the window of 1000" {
		t.Errorf("%+v", a)
	}
	if b.token(others[0]).Counter != 0 || b.outbox() != "" {
		t.Error("asking has moved the counter")
	}
	if _, _, err := b.Approve(t.Context(), officer, a.ID); err == nil {
		t.Error("the officer who has asked has approved it")
	}
	if _, _, err := b.Approve(t.Context(), second, a.ID); err != nil {
		t.Fatal(err)
	}
	if tok := b.token(others[0]); tok.Counter != 4023 || tok.LastUsed.IsZero() || tok.Status != vault.Active || tok.Owner != "alice" {
		t.Errorf("%+v", tok)
	}
	b.wantOutbox("advance/1:alice")
	b.view(func(tx *vault.Tx) error {
		tries, err := tx.Attempts(vault.TokenAttempts(others[0]))
		if tries.Failures != 0 {
			t.Errorf("failures are still counted: %+v", tries)
		}
		return err
	})
	if _, _, err := b.Approve(t.Context(), second, a.ID); err == nil {
		t.Error("it was approved twice")
	}
}

// Whatever happens to the token, what waits is not done to a counter, a seed or a token that is another one by then.
func TestAdvanceDiesWithItsCounter(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*vault.Token)
		says   string
	}{
		"a code was used": {func(t *vault.Token) { t.Counter = 101 }, "has moved to 101"},
		"it went beyond":  {func(t *vault.Token) { t.Counter = 9000 }, "has moved to 9000"},
		"it was reseeded": {func(t *vault.Token) { t.Generation, t.Counter = 2, 0 }, "another seed"},
		"it was compromised": {func(t *vault.Token) {
			t.Status, t.Owner, t.Loss = vault.Compromised, "", vault.Loss{Kind: vault.Lost, Time: time.Now()}
		}, "compromised"},
		"it is another's": {func(t *vault.Token) { t.Owner = "bob" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := withTokens(t, "alice")
			set := func(how func(*vault.Token)) {
				tok := b.token(others[0])
				how(&tok)
				b.put(tok)
			}
			set(func(t *vault.Token) { t.Counter = 90 })
			a := b.waits(officer, advance(1, 100, 4102)) // the central service is 10 ahead of the vault
			b.update(func(tx *vault.Tx) error { return tx.SetSeed(others[0], 2, secret.Random(20)) })
			set(c.change)
			before := b.token(others[0])
			_, _, err := b.Approve(t.Context(), second, a.ID)
			wantRefused(t, err, "approval 1 is stale, and was removed", c.says)
			if now := b.token(others[0]); now != before || b.outbox() != "" || len(b.approvals()) != 0 {
				t.Errorf("%+v, outbox %q", now, b.outbox())
			}
		})
	}
	b := withTokens(t, "alice")
	a := b.waits(officer, advance(1, 100, 4102))
	tok := b.token(others[0])
	tok.Counter = 100 // as a refresh reads what was known when it was asked for
	b.put(tok)
	if _, _, err := b.Approve(t.Context(), second, a.ID); err != nil || b.token(others[0]).Counter != 4102 {
		t.Errorf("%v: %+v", err, b.token(others[0]))
	}
}

func TestAdvanceIsOfOneTokenAndForward(t *testing.T) {
	b := withTokens(t, "alice", "bob")
	two, back, without, disabling := advance(1, 0, 4000), advance(1, 100, 100), advance(1, 0, 4000), advance(1, 0, 4000)
	two.Tokens = others[:2]
	without.Advance = nil
	disabling.Action = provision.ActDisable
	for name, o := range map[string]provision.Order{"two": two, "back": back, "no codes": without, "not a resync": disabling, "no seed": advance(0, 0, 4000)} {
		if _, _, err := b.Do(t.Context(), officer, o); err == nil || len(b.approvals()) > 0 {
			t.Errorf("%s: it is taken: %v", name, err)
		} else {
			wantRefused(t, err)
		}
	}
}
