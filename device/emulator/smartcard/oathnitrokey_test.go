package smartcard

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// withSecrets is a host that has selected the secrets application of a Nitrokey 3.
func withSecrets(t *testing.T) host {
	t.Helper()
	h := host{t, New(Options{Serial: 0x5d19, Nitrokey3: true})}
	h.selectOATH()
	return h
}

func TestNitrokeySelection(t *testing.T) {
	h := withSecrets(t)
	if got := hex.EncodeToString(h.card.ATR()); got != "3b8f01805d4e6974726f6b657900000000006a" {
		t.Errorf("the ATR is %s", got)
	}
	e := h.selectOATH()
	version, _ := e.get(tagOATHVersion)
	salt, _ := e.get(tagOATHName)
	serial, _ := e.get(tagSecretsSerial)
	if len(e) != 3 || hex.EncodeToString(version) != "040e00" || len(salt) != 8 || hex.EncodeToString(serial) != "00005d19" {
		t.Errorf("SELECT tells %x", e)
	}
	for name, aid := range map[string]string{
		"management": "a000000527471117", "OTP": "a0000005272001", "PIV": "a000000308", "OATH by part of its name": "a00000052721",
	} {
		h.refused("00a40400", unhex(t, aid), swNotFound)
		if got := h.names(); got != "" {
			t.Errorf("%s took the place of the selected one: %s", name, got)
		}
	}
	h.want("00a4040007a0000005272101", "6115") // there is no Le
	h.want("00a1000000", "9000")
	h.want("00c0000000", "6985")
	h.want("0001100000", "00005d19 9000")
	h.want("0003000000", "040e00424242 9000") // not SET CODE
}

// TestNitrokeyCredentials has where it differs from a YubiKey.
func TestNitrokeyCredentials(t *testing.T) {
	h := withSecrets(t)
	h.must("00010000", put(t, "tokendesk:alice", 0x11, 6, seed1, "7800 7a0400000000"))
	h.refused("00010000", put(t, "tokendesk:alice", 0x11, 8, seed1, ""), swBlocked) // it replaces none
	h.must("00010000", put(t, "bob", 0x22, 8, seed1[:1], "7802"))                   // short keys are left as they are
	h.must("00010000", put(t, "carol", 0x23, 8, seed512, ""))
	h.must("00010000", put(t, "a password", 0xF1, 6, seed1, ""))
	h.refused("00010000", put(t, "dora", 0x51, 6, seed1, ""), swWrongData)
	h.refused("00010000", put(t, "dora", 0x30, 6, seed1, ""), swWrongData)
	h.refused("00010000", put(t, "dora", 0x21, 6, seed1, "7a0400000001"), swWrongData)
	h.refused("00010000", put(t, strings.Repeat("d", 129), 0x21, 6, seed1, ""), swFull)
	h.refused("00010000", put(t, "dora", 0x31, 6, seed1, ""), swSecurity)
	if got, want := h.names(), "11 tokendesk:alice, 23 carol, 22 bob, f1 a password"; got != want { // by their hashes
		t.Errorf("listed: %s", got)
	}
	if got, want := hex.EncodeToString(h.must("00a10000", []byte{1}))[:8], "72111174"; got != want {
		t.Errorf("listed with properties: %s…", got)
	}
	h.refused("00a10000", []byte{2}, swMoreListed)
	h.refused("00a20001", asked("carol", make([]byte, 8)), swUnable) // SHA-512 is kept, and not calculated
	h.refused("00a20001", asked("a password", nil), swConditions)
	h.refused("00a20001", asked("nobody", nil), swNotFound)
	h.refused("00a20000", asked("tokendesk:alice", nil), swInstruction)
	h.refused("00a40001", asked("", nil)[2:], swInstruction) // CALCULATE ALL
	h.refused("00a30000", asked("", nil), swInstruction)     // VALIDATE
	h.refused("00050000", append(named("bob"), named("dora")...), swInstruction)
	h.want("00a5000000", "6985")

	h.refused("00b70000", append(named("nobody"), named("dora")...), swNotFound)
	h.refused("00b70000", append(named("bob"), named("carol")...), swBlocked)
	h.must("00b70000", append(named("bob"), append(named("dora"), tagOATHProperties, 1, 0)...))
	h.card.touch = func(context.Context) bool { return false }
	h.must("00a20001", asked("dora", make([]byte, 8)))
	for head, data := range map[string][]byte{
		"00b70000": named("dora"), "00020000": named("dora"), "0004dead": nil, "00b40000": {tagSecretsPIN, 1, 0x31},
		"00010000": put(t, "emil", 0x11, 6, seed1, "7802"),
	} {
		h.refused(head, data, swSecurity)
	}
	h.card.touch = nil
	h.must("00020000", named("dora"))
	h.refused("00020000", named("dora"), swNotFound)

	h.must("00010000", put(t, "last", 0x11, 6, seed1, "7a04ffffffff"))
	h.refused("00a20001", asked("last", nil), swPersistent)
	for i := range secretsCapacity - 4 {
		h.must("00010000", put(t, fmt.Sprint(i), 0x11, 6, seed1, ""))
	}
	h.refused("00010000", put(t, "one more", 0x11, 6, seed1, ""), swFull)
	h.refused("00010000", put(t, "last", 0x11, 6, seed1, ""), swFull)
	h.must("0004dead", nil)
	if got := h.names(); got != "" {
		t.Errorf("after a reset there is %s", got)
	}
}

func TestNitrokeyPIN(t *testing.T) {
	h := withSecrets(t)
	pin := func(tag uint32, value string) []byte { return appendTLV(nil, tag, []byte(value)...) }
	verify := func(value string) []byte { return pin(tagSecretsPIN, value) }
	left := func() string {
		e := h.selectOATH()
		tries, counted := e.get(tagSecretsTries)
		if _, salted := e.get(tagOATHName); salted == counted {
			t.Fatalf("SELECT tells %x", e)
		}
		return hex.EncodeToString(tries)
	}
	h.refused("00b20000", verify("1234"), swSecurity) // there is none
	h.refused("00b30000", append(verify("1234"), pin(tagSecretsNewPIN, "5678")...), swSecurity)
	h.refused("00b40000", unhex(t, "8100"), swWrongData)
	if got := left(); got != "" {
		t.Errorf("tries left of no PIN: %s", got)
	}
	h.must("00b40000", verify("1234"))
	h.refused("00b40000", verify("5678"), swSecurity)

	// What is under the PIN is put and seen in the one command after VERIFY PIN.
	protected := put(t, "alice", 0x11, 6, seed1, "7804")
	h.refused("00010000", protected, swSecurity)
	h.refused("00b20000", verify("4321"), swWrongPIN)
	if got := left(); got != "07" {
		t.Errorf("after a wrong PIN, tries left: %s", got)
	}
	h.must("00b20000", verify("1234"))
	h.must("00010000", protected)
	h.must("00010000", put(t, "bob", 0x11, 6, seed1, "")) // others need none
	h.refused("00010000", put(t, "alice", 0x11, 6, seed1, ""), swBlocked)
	if got := h.names(); got != "11 bob" {
		t.Errorf("listed: %s", got)
	}
	h.refused("00a20001", asked("alice", nil), swNotFound)
	h.refused("00020000", named("alice"), swNotFound)
	h.must("00b20000", verify("1234"))
	if got := hex.EncodeToString(h.must("00a10000", []byte{1})); got != "720711616c69636502"+"720511626f6200" {
		t.Errorf("listed with the PIN: %s", got)
	}
	h.refused("00a20001", asked("alice", nil), swNotFound) // one command, not two
	h.must("00b20000", verify("1234"))
	if got := h.code("alice", nil); got != "755224" {
		t.Errorf("the first code is %s", got)
	}
	h.must("00b20000", verify("1234"))
	h.selectOATH()
	h.refused("00a20001", asked("alice", nil), swNotFound)

	h.must("00b30000", append(verify("1234"), pin(tagSecretsNewPIN, "5678")...))
	for range secretsTries {
		h.refused("00b20000", verify("1234"), swWrongPIN)
	}
	if got := left(); got != "00" {
		t.Errorf("tries left: %s", got)
	}
	h.refused("00b20000", verify("5678"), swWrongPIN) // blocked
	h.card.PowerUp()
	h.selectOATH()
	h.must("00010000", put(t, "carol", 0x11, 6, seed1, "")) // still
	h.must("0004dead", nil)
	if got := left(); got != "" {
		t.Errorf("tries left after a reset: %s", got)
	}
}
