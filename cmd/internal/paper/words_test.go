package paper

import (
	"html"
	"slices"
	"strings"
	"testing"
)

// tells returns what a receipt says under a name.
func tells(r Receipt, name string) string {
	for _, f := range r.facts() {
		if f.Name == name {
			return f.Text
		}
	}
	return ""
}

func TestWordsOfEveryKind(t *testing.T) {
	for _, c := range []struct {
		what  string
		make  func(*Receipt)
		title string
		says  map[string]string // by the name of the fact; "" : it is not there
	}{
		{"reissued", func(r *Receipt) {}, "Token reissued to bob", map[string]string{
			"Proof":         "two codes touched at the handover are codes of the new seed (generation 3, counters 0 and 1); none of them belongs to the old seed (generation 2), searched over 1000 counters from 57 on.",
			"Cut-off":       "confirmed by the central service before: alice can no longer log in with it",
			"Holder before": "alice", "Seed": "generation 3, sealed in the vault", "In the place of": "", "Reason": "alice leaves on Friday",
			"Time": "2026-11-22 10:15:43 CET (+01:00)", "Officer": "olivia (user ID 1000)", "Device": "YubiKey (HOTP), firmware 5.4.3",
		}},
		{"issued", func(r *Receipt) {
			r.Kind, r.From, r.Reason, r.CutOff, r.Generation, r.Proof = Issued, "", "", NotDue, 1, Proof{Codes: 2, Generation: 1, Counter: 16}
		}, "Token issued to bob", map[string]string{
			"Proof": "two codes touched at the handover are codes of its seed (generation 1, counters 16 and 17).", "Cut-off": "", "Holder before": "nobody: it was stock", "Reason": "",
		}},
		{"assigned", func(r *Receipt) { r.Kind, r.From, r.CutOff, r.Proof = Assigned, "", NotDue, Proof{} }, "Token assigned to bob", map[string]string{
			"Proof": "no code was taken at the handover",
		}},
		{"replaced", func(r *Receipt) {
			r.Kind, r.Old, r.OldSerial, r.OldStatus = Replaced, "yk-10000009/otp2", "10000009", "compromised"
			r.Proof.Typed, r.Proof.Codes, r.Proof.OldGeneration = true, 3, 0
		}, "Replacement token for bob", map[string]string{
			"In the place of": "yk-10000009/otp2, serial number 10000009, now compromised",
			"Cut-off":         "confirmed by the central service before: alice can no longer log in with yk-10000009/otp2",
			"Proof":           "three codes entered by hand at the handover are codes of its seed (generation 3, counters 0 to 2).",
		}},
		{"replaced for the same", func(r *Receipt) {
			r.Kind, r.Old, r.OldSerial, r.OldStatus, r.From, r.CutOff = Replaced, "yk-10000009/otp2", "", "active", "bob", NoCentral
		}, "Replacement token for bob", map[string]string{
			"In the place of": "yk-10000009/otp2, serial number unknown, now back in stock", "Holder before": "bob, on another device", "Cut-off": "there is no central service to tell",
		}},
		{"unchanged", func(r *Receipt) {
			r.Kind, r.Firmware, r.Proof = Unchanged, "", Proof{Codes: 1, Generation: 1, Counter: 99, OldGeneration: 1, OldFrom: 4, OldWindow: 10, Typed: true}
		}, "Token passed on to bob", map[string]string{
			"Seed":   "UNCHANGED: generation 3, sealed in the vault",
			"Proof":  "one code entered by hand at the handover is one of its seed (generation 1, counter 99); it does not belong to the old seed (generation 1), searched over 10 counters from 4 on.",
			"Device": "YubiKey (HOTP)",
		}},
		{"a card", func(r *Receipt) {
			r.Kind, r.Token, r.Generation, r.Central, r.From, r.CutOff, r.Proof = Issued, "yk-10000001/piv", 1, "", "", NotDue, Proof{}
		}, "Token issued to bob", map[string]string{
			"Seed": "", "Keys": "generation 1, made on the card", "Proof": "its keys were made on the card, which has attested that", "To be revoked": "",
		}},
		{"reissued with a certificate", func(r *Receipt) { r.Revoke = []Certificate{{"2a", "CN=alice", "CN=House CA"}} }, "Token reissued to bob", map[string]string{
			"To be revoked": "certificate number 2a of CN=House CA, for CN=alice",
		}},
		{"reissued with many", func(r *Receipt) { r.Revoke = slices.Repeat([]Certificate{{"2a", "CN=a", "CN=b"}}, 6) }, "Token reissued to bob", map[string]string{
			"To be revoked": strings.Repeat("certificate number 2a of CN=b, for CN=a; ", 4) + "and 2 more: tokendesk piv revocations",
		}},
		{"offline", func(r *Receipt) { r.Offline = true }, "Token reissued to bob", map[string]string{
			"Cut-off": "NOT CONFIRMED by the central service when this was done. The desk tells it of this token's new holder only after it has taken the old access away.",
		}},
	} {
		r := testReceipt(t)
		c.make(&r)
		if r.title() != c.title {
			t.Errorf("%s: %q", c.what, r.title())
		}
		page := html.UnescapeString(string(render(t, r)))
		for name, want := range c.says {
			if got := tells(testReceiptLike(r), name); got != want {
				t.Errorf("%s: %s is %q, not %q", c.what, name, got, want)
			} else if !strings.Contains(page, want) {
				t.Errorf("%s: the page has no %q", c.what, want)
			}
		}
	}
}

// testReceiptLike is a receipt as Render takes its words from it.
func testReceiptLike(r Receipt) Receipt {
	r.Time = r.Time.In(r.Printed.Location())
	return r
}

func TestEmulatedIsMarked(t *testing.T) {
	r := testReceipt(t)
	if strings.Contains(string(render(t, r)), "EMULATED") {
		t.Error("a receipt of a real token says EMULATED")
	}
	r.Emulated = true
	if !strings.Contains(string(render(t, r)), "EMULATED") {
		t.Error("a receipt of an emulated token does not say so")
	}
}
