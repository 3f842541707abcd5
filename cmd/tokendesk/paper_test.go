package main

import (
	"bytes"
	"context"
	"html"
	"os"
	"strings"

	"github.com/go-ldap/ldap/v3"
	"github.com/rogpeppe/go-internal/testscript"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/sync/synctest"
	"tokendesk/vault/secret/memscan"
)

// cmdAuditKey sets AUDITKEY to what receipts and the audit trail are verified with.
func cmdAuditKey(ts *testscript.TestScript, _ bool, _ []string) {
	var v api.Vault
	ts.Check(on(ts).Client.Get(context.Background(), "/v1/vault", nil, &v))
	ts.Setenv("AUDITKEY", v.AuditKey)
}

// cmdReplaced writes a file in which some text of another one is replaced, where it stands last.
func cmdReplaced(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	at := strings.LastIndex(text, args[1])
	if at < 0 {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), []byte(text[:at]+args[2]+text[at+len(args[1]):]), 0o600))
}

// cmdStatement writes the text that a receipt's QR code holds.
func cmdStatement(ts *testscript.TestScript, _ bool, args []string) {
	_, rest, found := strings.Cut(ts.ReadFile(args[0]), `<meta name="statement" content="`)
	text, _, whole := strings.Cut(rest, `"`)
	if !found || !whole {
		ts.Fatalf("%s has no statement", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(html.UnescapeString(text)+"\n"), 0o600))
}

// cmdNoSecrets searches files for a token's seed, which the directory has, in every form that text gives it.
func cmdNoSecrets(ts *testscript.TestScript, _ bool, args []string) {
	var seed []byte
	ts.Check(on(ts).Slapd.AsAdmin(func(c *ldap.Conn) error {
		found, err := c.Search(ldap.NewSearchRequest(synctest.TokensBase, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
			"(cn="+device.TokenID(args[0]).Central()+")", []string{"oathSecret"}, nil))
		if err == nil && len(found.Entries) == 1 {
			seed = found.Entries[0].GetRawAttributeValue("oathSecret")
		}
		return err
	}))
	if len(seed) < 16 {
		ts.Fatalf("the directory has no seed of %s", args[0])
	}
	for _, file := range args[1:] {
		text := []byte(ts.ReadFile(file))
		for name, form := range memscan.Forms(map[string][]byte{"the seed": seed, "half of the seed": seed[:len(seed)/2]}) {
			if bytes.Contains(text, form) {
				ts.Fatalf("%s has %s", file, name)
			}
		}
	}
}
