package paper

import (
	"strings"
	"sync"
	"testing"
	"time"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

const testVault = "WZ5UB6PT6ZC7JYBFNO4C3ATQLH"

// testSeed is of no use outside these tests.
func testSeed(letter string) secret.Secret {
	return secret.New([]byte(strings.Repeat(letter, audit.SeedSize)))
}

func signWith(letter string) Signer {
	return func(kind audit.Kind, text []byte) (audit.Signature, error) {
		seed := testSeed(letter)
		defer seed.Wipe()
		return audit.SignText(kind, text, seed)
	}
}

var sign = signWith("a")

var onceKey = sync.OnceValues(func() (audit.Key, error) {
	seed := testSeed("a")
	defer seed.Wipe()
	return audit.KeyOf(seed)
})

func testKey(t testing.TB) audit.Key {
	t.Helper()
	k, err := onceKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var testTime = time.Date(2026, 11, 22, 10, 15, 43, 123456789, time.FixedZone("CET", 3600))

// testReceipt is a leaver's token that goes to a successor.
func testReceipt(t testing.TB) Receipt {
	t.Helper()
	key := testKey(t)
	entry := audit.Genesis(testVault, key).Next(audit.Act{Time: testTime, Officer: audit.Officer{UID: 1000, Name: "olivia"}, Action: "reissue", Object: "yk-10000001/otp2", Outcome: "done"})
	seed := testSeed("a")
	defer seed.Wipe()
	head, err := audit.Head{Vault: testVault, Point: entry.Point(), Epoch: 7, Counter: 9, Time: testTime}.Sign(seed)
	if err != nil {
		t.Fatal(err)
	}
	return Receipt{
		Statement: Statement{
			Vault: testVault, Number: 17, Kind: Reissued, Token: "yk-10000001/otp2", Serial: "10000001", Generation: 3, From: "alice", To: "bob",
			Officer: "olivia", UID: 1000, Time: testTime, Reason: "alice leaves on Friday", Point: entry.Point(), Key: key,
			Proof: Proof{Codes: 2, Generation: 3, OldGeneration: 2, OldFrom: 57, OldWindow: 1000},
		},
		Desk: Imprint{Name: "Example Org, Security", ReturnTo: "Example Org, Security Desk, Main Street 1, Room 101"},
		Type: "YubiKey (HOTP)", Central: "YK10000001-2", Firmware: "5.4.3", CutOff: Confirmed, Head: head, Printed: testTime.Add(time.Minute),
	}
}

func render(t testing.TB, r Receipt) []byte {
	t.Helper()
	page, err := r.Render(sign)
	if err != nil {
		t.Fatal(err)
	}
	return page
}
