package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

const trailVault = "WZ5UB6PT6ZC7JYBFNO4C3ATQLH"

// signer is a vault's audit key, made from one letter.
func signer(letter string) secret.Secret {
	return secret.New([]byte(strings.Repeat(letter, audit.SeedSize)))
}

// cmdTrail writes what a real vault would: "trail A 3 9 FILE" exports the entries 3 to 9 of the history that the vault with
// key A has, and writes FILE.key, and FILE.heads as the journal has them, for each third entry.
func cmdTrail(ts *testscript.TestScript, _ bool, args []string) {
	seed := signer(args[0])
	defer seed.Wipe()
	from, err := strconv.Atoi(args[1])
	ts.Check(err)
	to, err := strconv.Atoi(args[2])
	ts.Check(err)
	key, err := audit.KeyOf(seed)
	ts.Check(err)
	at := audit.Genesis(trailVault, key)
	header := audit.Header{Vault: trailVault, Key: key, From: uint64(from), To: uint64(to), Anchor: at.Hash}
	var chain []audit.Entry
	var heads strings.Builder
	sign := func(p audit.Point) audit.Head {
		h, err := audit.Head{Vault: trailVault, Point: p, Epoch: 7, Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}.Sign(seed)
		ts.Check(err)
		return h
	}
	for i := 1; i <= to; i++ {
		e := at.Next(audit.Act{
			Time: time.Date(2026, 3, 4, 5, i, 0, 0, time.UTC), Epoch: 7, Officer: audit.Officer{UID: 1000, Name: "olivia"},
			Action: "token.disable", Object: fmt.Sprintf("yk-1000%d/otp2", i), Outcome: "done", Reason: args[0],
		})
		chain, at = append(chain, e), e.Point()
		if i < from {
			header.Anchor = at.Hash
		}
		if i%3 == 0 {
			fmt.Fprintf(&heads, "Mar 04 05:06:07 desk tokendeskd[1]: another line\nMar 04 05:06:07 desk tokendeskd[1]: %s\n", sign(at))
		}
	}
	var out bytes.Buffer
	w, err := audit.NewWriter(&out, header)
	ts.Check(err)
	for _, e := range chain[from-1:] {
		ts.Check(w.Entry(e))
	}
	ts.Check(w.Close(sign(at)))
	for suffix, content := range map[string]string{"": out.String(), ".key": key.String() + "\n", ".heads": heads.String()} {
		ts.Check(os.WriteFile(ts.MkAbs(args[3]+suffix), []byte(content), 0o600))
	}
	ts.Setenv("KEY", key.String())
}
