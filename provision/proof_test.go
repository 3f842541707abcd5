package provision_test

import (
	"strings"
	"testing"

	"tokendesk/provision"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// Codes that fit the old seed as well, by chance, prove nothing: another touch is asked for.
func TestACodeThatFitsBothSeeds(t *testing.T) {
	seed := secret.New([]byte("12345678901234567890")) // RFC 4226, appendix D
	defer seed.Wipe()
	codes := []string{"755224", "287082", "359152", "969429"}
	old := alsoFits(t, codes[1])
	defer old.Wipe()
	for n, want := range []string{1: "by chance", 2: "by chance", 3: "4"} {
		if want == "" {
			continue
		}
		next, ok, err := provision.Prove(seed, old, codes[:n+1])
		switch {
		case want != "4" && (ok || err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("after %d codes: %d, %v, %v", n+1, next, ok, err)
		case want == "4" && (!ok || err != nil || next != 4):
			t.Errorf("after %d codes: %d, %v, %v", n+1, next, ok, err)
		}
	}
	if next, ok, err := provision.Prove(seed, secret.Secret{}, codes[:2]); !ok || err != nil || next != 2 {
		t.Errorf("without an old seed: %d, %v, %v", next, ok, err)
	}
	if _, ok, err := provision.Prove(old, seed, codes[2:]); ok || err == nil || !strings.Contains(err.Error(), "old seed") {
		t.Errorf("the old one only: %v, %v", ok, err)
	}
}

// Drawn without regard to the old one, six of these would be expected to have such a code.
func TestFreshSeedHasNoCodeOfTheOldOne(t *testing.T) {
	old := secret.Random(20)
	defer old.Wipe()
	olds := map[string]bool{}
	for n := range uint64(1000) {
		olds[hotpscan.Code(old, 6, 7+n)] = true
	}
	for range 1000 {
		seed := provision.Fresh(old)
		for n := range uint64(6) {
			if olds[hotpscan.Code(seed, 6, 16+n)] {
				t.Errorf("its code %d is one of the old seed", n)
			}
		}
		seed.Wipe()
	}
}

// alsoFits looks for a seed of which a code is one of the next 1000.
func alsoFits(t *testing.T, code string) secret.Secret {
	for i := range 100_000 {
		s := secret.New([]byte(strings.Repeat("x", 16) + string([]byte{byte(i), byte(i >> 8), byte(i >> 16), 1})))
		if _, found := hotpscan.Search(s, 6, 0, 1000, []string{code}); found {
			return s
		}
		s.Wipe()
	}
	t.Fatal("there is none")
	return secret.Secret{}
}

// Somebody types the codes, and the handover says so.
func TestProofByTypedCodes(t *testing.T) {
	b := newBench(t)
	e := enrollment(slot2, "alice")
	e.Typed = true
	b.wantUnfinished(b.enroll(t.Context(), e), slot2, "verify", provision.ErrCodesWanted)
	codes := []string{strings.TrimSpace(b.typed(slot2)), strings.TrimSpace(b.typed(slot2))}
	if _, err := b.Resolve(t.Context(), officer, slot2, codes, b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantHandover(slot2, vault.Handover{
		Kind: vault.Issued, Generation: 1, To: "alice", Emulated: true, Proof: vault.Proof{Codes: 2, Generation: 1, Typed: true},
	})
	if last := b.history(slot2)[0]; !strings.Contains(last.Reason, "from counter 0 on; somebody typed them in") {
		t.Errorf("%+v", last)
	}
	b.enrolled(slot1, "")
	if all := b.handovers(slot1); len(all) != 0 {
		t.Errorf("stock is nobody's: %+v", all)
	}
}
