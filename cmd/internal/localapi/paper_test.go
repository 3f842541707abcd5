package localapi

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keeper"
	"tokendesk/cmd/internal/paper"
	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
	"tokendesk/vault/secret/memscan"
	"tokendesk/vault/vaulttest"
)

var olivia = audit.Officer{UID: 1000, Name: "olivia"}

// archive is a desk that has a vault and nothing else, and somebody who asks it.
type archive struct {
	testing.TB
	*Desk
	ctx context.Context
}

func newArchive(t testing.TB) *archive {
	v := vaulttest.New(t)
	d := &Desk{Vault: v, Keeper: &keeper.Keeper{Vault: v}, Imprint: paper.Imprint{Name: "Example Org"}}
	ctx := context.WithValue(t.Context(), rolesKey, reach{desk: everyone.roles})
	return &archive{t, d, context.WithValue(ctx, peerKey, peer{0, true})}
}

func (a *archive) update(fn func(*vault.Tx) error) {
	a.Helper()
	if err := a.Vault.Update(fn); err != nil {
		a.Fatal(err)
	}
}

// put writes a token, with a seed of its generation.
func put(tx *vault.Tx, t vault.Token) error {
	if _, err := tx.Seed(t.ID, t.Generation); t.Generation > 0 && errors.Is(err, vault.ErrNotFound) {
		if err := tx.SetSeed(t.ID, t.Generation, secret.Random(20)); err != nil {
			return err
		}
	}
	return tx.PutToken(t)
}

// give puts a token that belongs to somebody, and how that came.
func (a *archive) give(t vault.Token, h vault.Handover) vault.Handover {
	a.Helper()
	h.Token, h.Serial, h.Generation, h.Officer = t.ID, t.Serial, t.Generation, olivia
	a.update(func(tx *vault.Tx) error {
		act := vault.Done(olivia, string(h.Kind), t.ID, h.To)
		return errors.Join(put(tx, t), tx.Audit(act), tx.PutHandover(&h))
	})
	return h
}

// read is a report as a whole.
func (a *archive) read(q reportQuery) string {
	a.Helper()
	f, err := a.report(a.ctx, &q)
	if err != nil {
		a.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		a.Fatal(err)
	}
	return string(b)
}

func (a *archive) document(d api.Document, err error) string {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
	return d.Text
}

// yubikey is a token in slot 2 of a key.
func yubikey(n device.Serial, owner string) vault.Token {
	return vault.Token{
		ID: device.SlotToken(device.YubiKeyID(n), 2), Serial: n, Firmware: device.Version{Major: 5, Minor: 4, Build: 3}, Status: vault.Active, Owner: owner, Digits: 6, Generation: 1,
	}
}

func pathTo(id device.TokenID) *TokenPath {
	name, application, _ := strings.Cut(string(id), "/")
	return &TokenPath{name, application}
}

// A receipt tells what the vault has of the handover, whatever became of the token since.
func TestReceiptIsOfItsHandover(t *testing.T) {
	a := newArchive(t)
	token := yubikey(10000001, "alice")
	first := a.give(token, vault.Handover{Kind: vault.Issued, To: "alice", Proof: vault.Proof{Codes: 2, Generation: 1}})
	token.Owner, token.Generation = "bob", 2
	second := a.give(token, vault.Handover{Kind: vault.Reissued, From: "alice", To: "bob", Reason: "alice leaves", Offline: true, Emulated: true,
		Proof: vault.Proof{Codes: 2, Generation: 2, OldGeneration: 1, OldFrom: 5, OldWindow: 1000, Typed: true}})
	other := yubikey(10000002, "bob")
	a.give(other, vault.Handover{Kind: vault.Replaced, From: "bob", To: "bob", Old: token.ID, OldSerial: token.Serial, OldStatus: vault.Compromised})
	var act audit.Entry
	var key audit.Key
	if err := a.Vault.View(func(tx *vault.Tx) (err error) { key = tx.AuditKey(); act, err = actAt(tx, second.Act); return err }); err != nil {
		t.Fatal(err)
	}
	verify := func(d api.Document, err error) paper.Statement {
		t.Helper()
		p, err := paper.Verify(strings.NewReader(a.document(d, err)), &key)
		if err != nil || d.Kind != "receipt" || d.Handover != p.Number {
			t.Fatalf("%v, %+v", err, d)
		}
		return p.Statement
	}
	got := verify(a.receipt(a.ctx, pathTo(token.ID)))
	if got.Number != second.ID || got.From != "alice" || got.To != "bob" || got.Kind != paper.Reissued || got.Officer != "olivia" || got.UID != 1000 || got.Reason != "alice leaves" ||
		!got.Offline || !got.Emulated || !got.Time.Equal(second.Time) || got.Serial != "10000001" || got.Generation != 2 || got.Proof != paper.Proof(second.Proof) || got.Point != act.Point() {
		t.Errorf("%+v", got)
	}
	if got := verify(a.handoverReceipt(a.ctx, &HandoverPath{first.ID})); got.Number != first.ID || got.To != "alice" || got.From != "" {
		t.Errorf("%+v", got)
	}
	if got := verify(a.receipt(a.ctx, pathTo(other.ID))); got.Old != string(token.ID) || got.OldSerial != "10000001" || got.OldStatus != "compromised" {
		t.Errorf("%+v", got)
	}
	token.Owner, token.Status, token.Loss = "", vault.Compromised, vault.Loss{Kind: vault.Lost, Time: time.Now(), Owner: "bob"}
	a.update(func(tx *vault.Tx) error { return put(tx, token) })
	if got := verify(a.receipt(a.ctx, pathTo(token.ID))); got.Number != second.ID {
		t.Errorf("%+v", got)
	}
	for what, id := range map[string]device.TokenID{"never given": yubikey(10000003, "").ID, "unknown": yubikey(10000004, "").ID} {
		if what == "never given" {
			a.update(func(tx *vault.Tx) error { return put(tx, yubikey(10000003, "")) })
		}
		_, err := a.receipt(a.ctx, pathTo(id))
		if failed := a.failure(err); failed.Code != api.NotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Of another tenant's tokens nothing is told.
func TestPaperOfOtherTenants(t *testing.T) {
	a := newArchive(t)
	ours, theirs := yubikey(10000001, "alice"), yubikey(10000002, "bob")
	ours.Tenant, theirs.Tenant = "ours", "theirs"
	a.give(ours, vault.Handover{Kind: vault.Issued, To: "alice"})
	a.give(theirs, vault.Handover{Kind: vault.Issued, To: "bob"})
	a.ctx = context.WithValue(a.ctx, rolesKey, reach{tenants: map[string][]string{"ours": officers.roles, "theirs": approvers.roles}})
	if _, err := a.handoverReceipt(a.ctx, &HandoverPath{1}); err != nil {
		t.Error(err)
	}
	_, err := a.handoverReceipt(a.ctx, &HandoverPath{2})
	if failed := a.failure(err); failed.Code != api.NotFound {
		t.Error(err)
	}
	for _, report := range []string{"stock", "assignments", "exceptions"} {
		if text := a.read(reportQuery{Report: report, Format: "csv"}); strings.Contains(text, "bob") || strings.Contains(text, "10000002") {
			t.Errorf("%s", text)
		}
	}
	if text := a.read(reportQuery{Report: "assignments", Format: "csv"}); !strings.Contains(text, "alice") {
		t.Errorf("%s", text)
	}
	_, err = a.report(a.ctx, &reportQuery{Report: "events", Format: "csv"})
	if failed := a.failure(err); failed.Code != api.Forbidden {
		t.Error(err)
	}
}

// TestExceptions puts one of everything that somebody has to look at.
func TestExceptions(t *testing.T) {
	a := newArchive(t)
	long, soon := time.Now().Add(-24*time.Hour), time.Now().Add(time.Hour)
	one := func(n device.Serial, change func(*vault.Token)) {
		x := yubikey(n, "")
		change(&x)
		a.update(func(tx *vault.Tx) error { return put(tx, x) })
	}
	one(1, func(x *vault.Token) {})
	one(2, func(x *vault.Token) { x.Status, x.Generation = vault.Limbo, 0 })
	one(3, func(x *vault.Token) { x.Status, x.Generation = vault.Pending, 0 })
	one(4, func(x *vault.Token) { x.Status, x.Expires, x.Owner = vault.Expired, long, "erin" })
	one(5, func(x *vault.Token) { x.Expires = long })
	one(6, func(x *vault.Token) {
		x.Status, x.Loss = vault.Compromised, vault.Loss{Kind: vault.Damaged, Time: long}
	})
	one(7, func(x *vault.Token) { x.Status, x.Loss = vault.Compromised, vault.Loss{Kind: vault.Stolen, Time: long} })
	one(8, func(x *vault.Token) { x.Stale, x.ReseedDue, x.Emulated = true, true, true })
	one(9, func(x *vault.Token) { x.Owner = "lea" })
	a.update(func(tx *vault.Tx) error {
		id := yubikey(2, "").ID
		return errors.Join(
			tx.PutJob(&vault.Job{Kind: "enroll", Token: id, Officer: "olivia", Params: json.RawMessage(`{}`)}),
			addChange(tx, vault.Change{Kind: vault.Disable, Token: id, Digits: 6, Parked: true, Problem: "the server says no"}),
			addChange(tx, vault.Change{Kind: vault.Disable, Token: yubikey(1, "").ID, Digits: 6, Parked: true, ParkedBy: olivia, Reason: "until Monday"}),
			addChange(tx, vault.Change{Kind: vault.Enable, Token: yubikey(1, "").ID, Generation: 1, Digits: 6}),
			tx.PutNotice(&vault.Notice{Kind: "disabled", User: "erin", Token: id, Parked: true, Problem: "no such mailbox"}),
			tx.PutNotice(&vault.Notice{Kind: "enabled", User: "erin", Token: id}),
			tx.PutLeaver(vault.Leaver{User: "lea", Deadline: long, By: olivia, Items: []vault.LeaverItem{{Token: yubikey(9, "").ID, State: vault.Open}}}),
			tx.PutApproval(&vault.Approval{Action: "compromise", Object: "yk-7/otp2", Request: json.RawMessage(`{}`), Digest: "d", By: olivia, Reason: "all of them", Created: long, Expires: soon}),
			tx.PutApproval(&vault.Approval{Action: "delete", Object: "yk-6/otp2", Request: json.RawMessage(`{}`), Digest: "d", By: olivia, Reason: "too late", Created: long, Expires: long.Add(time.Hour)}),
		)
	})
	rows, err := csv.NewReader(strings.NewReader(a.read(reportQuery{Report: "exceptions", Format: "csv"}))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows[1:] {
		if r[3] == "" || r[4] == "" {
			t.Errorf("a row says not since when, or nothing: %q", r)
		}
		got = append(got, strings.Join(r[:3], " "))
	}
	want := []string{
		"limbo yk-2/otp2 ", "pending yk-3/otp2 ", "expired yk-4/otp2 erin", "expired yk-5/otp2 ", "not destroyed yk-6/otp2 ", "stale yk-8/otp2 ", "reseed due yk-8/otp2 ", "EMULATED yk-8/otp2 ",
		"unfinished yk-2/otp2 ", "parked yk-2/otp2 ", "parked yk-1/otp2 ", "notice not sent yk-2/otp2 erin", "leaver overdue yk-9/otp2 lea", "waits for approval yk-7/otp2 olivia",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("exceptions are\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// No seed, access code or code is on paper, in any form that text gives them.
func TestNoSecretOnPaper(t *testing.T) {
	a := newArchive(t)
	secrets := map[string][]byte{}
	token := yubikey(10000001, "alice")
	for i, generation := range []int{1, 2} {
		token.Generation = generation
		kind := []vault.HandoverKind{vault.Issued, vault.Reissued}[i]
		seed, code := secret.Random(20), secret.Random(device.AccessCodeSize)
		secrets[fmt.Sprintf("the seed of generation %d", generation)] = bytes.Clone(seed.Reveal())
		secrets[fmt.Sprintf("an access code of generation %d", generation)] = bytes.Clone(code.Reveal())
		secrets[fmt.Sprintf("half of the seed of generation %d", generation)] = bytes.Clone(seed.Reveal()[:10])
		a.update(func(tx *vault.Tx) error {
			return errors.Join(tx.SetSeed(token.ID, generation, seed), tx.SetAccessCode(token.ID, code), tx.PutToken(token))
		})
		a.give(token, vault.Handover{Kind: kind, To: "alice", Proof: vault.Proof{Codes: 2, Generation: generation}})
	}
	var all strings.Builder
	all.WriteString(a.document(a.receipt(a.ctx, pathTo(token.ID))))
	all.WriteString(a.document(a.handoverReceipt(a.ctx, &HandoverPath{1})))
	all.WriteString(a.document(a.label(a.ctx, pathTo(token.ID))))
	for name := range reports {
		for format := range formats {
			all.WriteString(a.read(reportQuery{Report: name, Format: string(format)}))
		}
	}
	if !strings.Contains(all.String(), "alice") || len(all.String()) < 50_000 {
		t.Fatalf("only %d bytes were printed", len(all.String()))
	}
	for name, form := range memscan.Forms(secrets) {
		if strings.Contains(all.String(), string(form)) {
			t.Errorf("%s is on paper", name)
		}
	}
}

// What has come of a label.
func TestLabelNamesNoHolder(t *testing.T) {
	a := newArchive(t)
	token := yubikey(10000001, "alice")
	token.Description = "alice's"
	a.give(token, vault.Handover{Kind: vault.Issued, To: "alice"})
	if text := a.document(a.label(a.ctx, pathTo(token.ID))); strings.Contains(text, "alice") || !strings.Contains(text, "yk-10000001/otp2") || !strings.Contains(text, "Example Org") {
		t.Errorf("%s", text)
	}
	sent := vault.Token{ID: "mail-1", Status: vault.Active, Address: "alice@example.org"}
	a.update(func(tx *vault.Tx) error { return put(tx, sent) })
	_, err := a.label(a.ctx, &TokenPath{"mail-1", "token"})
	if failed := a.failure(err); failed.Code != api.Refused {
		t.Error(err)
	}
}

// addChange adds one to the outbox that has failed, or that an officer has parked.
func addChange(tx *vault.Tx, c vault.Change) error {
	added, err := tx.Enqueue(c)
	if err != nil {
		return err
	}
	added.Parked, added.ParkedBy, added.Reason, added.Problem = c.Parked, c.ParkedBy, c.Reason, c.Problem
	return tx.PutChange(added)
}
