package provision_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// stockroom is a desk without a device.
func stockroom(t testing.TB) *provision.Runner {
	return &provision.Runner{Vault: vaulttest.New(t), Log: slog.New(slog.DiscardHandler)}
}

func table(lines ...string) secret.Secret { return secret.New([]byte(strings.Join(lines, "\n"))) }

// fobSeed is a seed of 20 bytes in hexadecimal.
func fobSeed(n int) string { return fmt.Sprintf("%040x", n) }

func TestImport(t *testing.T) {
	r := stockroom(t)
	all, err := r.Import(officer, table(
		"\ufeffSerial, seed ,counter,digits,description",
		"2308001,"+fobSeed(1)+",17,8,\"blue, with a ring\"",
		"00ZZ1,"+strings.ToUpper(fobSeed(0xabcdef))+",,,",
		"2308003,"+fobSeed(1)+",,,", // the first one's seed
		"2308001,"+fobSeed(4)+",,,", // the first one's serial
		"2308005,"+fobSeed(5)+",-1,,",
		"2308006,"+fobSeed(6)+",1,7,",
		"2308007,abcd,,,",
		"2308008,zz,,,",
		"23 08009,"+fobSeed(9)+",,,",
		"2308010,"+fobSeed(10)+",,",
		`2308011,"`+fobSeed(11)+`"x,,,`,
		"2308012,"+fobSeed(12)+",18446744073709551615,,",
		"2308014,\""+fobSeed(14)+",0,6,", // a quote that never ends
		"",
		"2308013,"+fobSeed(13)+",0,6,",
	), provision.Delivery{Batch: "2026-11"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"", "", "held before", "in the inventory already", "its counter is not", "neither 6 nor 8", "its seed is not 16 to 64 bytes", "its seed is not",
		"its serial is not", "it has 4 values", "not comma-separated", "its counter is not", "not comma-separated", ""}
	if len(all) != len(want) {
		t.Fatalf("%d results, want %d: %+v", len(all), len(want), all)
	}
	for i, got := range all {
		line := i + 2
		if line == 15 {
			line++ // the one before is empty
		}
		if got.Line != line || (got.Err == nil) != (want[i] == "") || got.Err != nil && !strings.Contains(got.Err.Error(), want[i]) {
			t.Errorf("line %d: %+v, want %q", i+2, got, want[i])
		}
	}
	err = r.Vault.View(func(tx *vault.Tx) error {
		first, err := tx.Token("fob-2308001")
		if first.Status != vault.Active || first.Owner != "" || first.Counter != 17 || first.Digits != 8 || first.Generation != 1 || first.Serial != 2308001 ||
			first.Description != "blue, with a ring" || first.Batch != "2026-11" || first.Emulated {
			t.Errorf("%+v", first)
		}
		seed, serr := tx.Seed("fob-2308001", 1)
		defer seed.Wipe()
		if fmt.Sprintf("%x", seed.Reveal()) != fobSeed(1) {
			t.Error("another seed was sealed")
		}
		second, derr := tx.Token("fob-00zz1")
		if second.Serial != 0 || second.Digits != 6 || tx.Counts().Tokens != 3 {
			t.Errorf("%+v, %d tokens", second, tx.Counts().Tokens)
		}
		waiting, cerr := tx.ChangesFrom(0, 0)
		if len(waiting) != 3 || waiting[0].Kind != vault.Put || waiting[0].Counter != 17 || waiting[0].User != "" {
			t.Errorf("%+v", waiting)
		}
		acts, aerr := tx.History("fob-2308001", 0, 0)
		if len(acts) != 1 || acts[0].Action != "import" || acts[0].Officer != officer {
			t.Errorf("%+v", acts)
		}
		return errors.Join(err, serr, derr, cerr, aerr)
	})
	if err != nil {
		t.Error(err)
	}
}

// A fob that was deleted comes back only with another seed, and counts on.
func TestImportAgain(t *testing.T) {
	r := stockroom(t)
	in := func(n int) error {
		t.Helper()
		all, err := r.Import(officer, table("serial,secret,counter", "1,"+strings.Repeat("A", 25)+string(rune('B'+n))+"======,5"), provision.Delivery{})
		if err != nil || len(all) != 1 {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0].Err
	}
	if err := in(1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Do(t.Context(), officer, provision.Order{Action: provision.ActDelete, Tokens: []device.TokenID{"fob-1"}}); err != nil {
		t.Fatal(err)
	}
	if err := in(1); err == nil || !strings.Contains(err.Error(), "held before") {
		t.Errorf("the same seed again: %v", err)
	}
	if err := in(3); err != nil {
		t.Error(err)
	}
	if err := r.Vault.View(func(tx *vault.Tx) error {
		f, err := tx.Token("fob-1")
		if f.Generation != 2 || f.Counter != 5 {
			t.Errorf("%+v", f)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestImportRefused(t *testing.T) {
	r := stockroom(t)
	for _, c := range []struct{ what, words string }{
		{"", "the first line"},
		{`"serial`, "the first line"},
		{"seed,counter\n", "no column serial"},
		{"serial,counter\n1,2", "there has to be one"},
		{"serial,seed,secret", "there has to be one"},
		{"serial,seed,serial", "value 3 is none"},
		{"2308001," + fobSeed(7), "value 1 is none"},
	} {
		all, err := r.Import(officer, table(c.what), provision.Delivery{})
		if len(all) > 0 || err == nil || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), fobSeed(7)) {
			t.Errorf("%q: %+v, %v", c.what, all, err)
		}
	}
	if _, err := r.Import(officer, table("serial,seed", "1,"+fobSeed(1)), provision.Delivery{Batch: strings.Repeat("b", 65)}); err == nil {
		t.Error("a batch of 65 bytes is taken")
	}
}

// What a fob is can be lived through, but for what its seed or the lack of a plug forbids.
func TestFobsAndSentCodesAreOffered(t *testing.T) {
	for id, never := range map[device.TokenID][]provision.Action{
		"fob-1":  {provision.ActReseed, provision.ActWipe},
		"mail-1": {provision.ActTest, provision.ActResync, provision.ActReseed, provision.ActReissue, provision.ActWipe},
	} {
		for _, a := range never {
			if err := provision.Check(vault.Token{ID: id, Status: vault.Active}, a); err == nil || !strings.Contains(err.Error(), "and such a token cannot be") {
				t.Errorf("%s of %s: %v", a, id, err)
			}
		}
		if err := provision.Check(vault.Token{ID: id, Status: vault.Active}, provision.ActDisable); err != nil {
			t.Error(err)
		}
	}
}

func TestRegister(t *testing.T) {
	r := stockroom(t)
	r.FindUser = func(_ context.Context, name string) (string, error) {
		if name == "nobody" {
			return "", &provision.RefusedError{Reason: "there is no user nobody"}
		}
		return strings.ToLower(name), nil
	}
	r.CheckUser = func(context.Context, string) (string, error) {
		return "", errors.New("sent codes are no token of the central service, and take no place there")
	}
	m, err := r.Register(t.Context(), officer, provision.Registration{Type: provision.TypeMail, User: "Alice", Address: "alice@example.org", Description: "at home"})
	if err != nil || m.ID.Device().Family() != device.Mail || m.Owner != "alice" || m.Status != vault.Active {
		t.Fatalf("%+v, %v", m, err)
	}
	p, err := r.Register(t.Context(), officer, provision.Registration{Type: provision.TypePhone, Address: "+4915112345678"})
	if err != nil || p.ID.Device().Family() != device.Phone {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, bad := range []provision.Registration{
		{Type: provision.TypeMail, Address: "alice"},
		{Type: provision.TypeMail, Address: "Alice <alice@example.org>"},
		{Type: provision.TypeMail, Address: "a@b\r\nBcc: c@d"},
		{Type: provision.TypePhone, Address: "0151"},
		{Type: provision.TypePhone, Address: "+4915112345678 "},
		{Type: provision.TypeFob, Address: ""},
		{Type: provision.TypeMail, Address: "a@example.org", User: "nobody"},
	} {
		if got, err := r.Register(t.Context(), officer, bad); err == nil {
			t.Errorf("%+v became %+v", bad, got)
		}
	}
	do := func(o provision.Order) {
		t.Helper()
		if _, changes, err := r.Do(t.Context(), officer, o); err != nil || len(changes) > 0 {
			t.Errorf("%s: changes %+v, %v", o.Action, changes, err)
		}
	}
	elsewhere, wrong := "alice@example.net", "+4915112345678"
	for _, o := range []provision.Order{ // she has no other token, and yet nothing asks for a reason
		{Action: provision.ActDisable}, {Action: provision.ActEnable}, {Action: provision.ActEdit, Address: &elsewhere}, {Action: provision.ActUnassign},
		{Action: provision.ActAssign, User: "Bob"},
	} {
		o.Tokens = []device.TokenID{m.ID}
		do(o)
	}
	if _, _, err := r.Do(t.Context(), officer, provision.Order{Action: provision.ActEdit, Tokens: []device.TokenID{m.ID}, Address: &wrong}); err == nil {
		t.Error("mail goes to a telephone")
	}
	if err := r.Vault.View(func(tx *vault.Tx) error {
		now, err := tx.Token(m.ID)
		waiting, cerr := tx.ChangesFrom(0, 0)
		if now.Owner != "bob" || now.Address != elsewhere || now.ReseedDue || len(waiting) > 0 {
			t.Errorf("%+v, and for the central service %+v", now, waiting)
		}
		return errors.Join(err, cerr)
	}); err != nil {
		t.Error(err)
	}
	do(provision.Order{Action: provision.ActCompromise, Loss: vault.Lost, Tokens: []device.TokenID{p.ID}})
	do(provision.Order{Action: provision.ActDelete, Tokens: []device.TokenID{p.ID, m.ID}})
}

// Whatever a table says: no panic, no line without a result, and nothing of it comes back.
func FuzzImport(f *testing.F) {
	f.Add("serial,seed,counter,digits,description\n2308001," + fobSeed(1) + ",17,8,\"blue, with a ring\"\n1,zz,,,\n")
	f.Add("secret,serial\n" + strings.Repeat("A", 32) + ",Z1\n\"\n")
	r := stockroom(f)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := r.Import(officer, table(text), provision.Delivery{})
		if err != nil && len(all) > 0 {
			t.Errorf("%d results, and %v", len(all), err)
		}
		for _, line := range all {
			if line.Line < 2 || line.Err == nil && line.Token == "" {
				t.Errorf("%+v", line)
			}
			for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
				if len(part) >= 32 && line.Err != nil && strings.Contains(line.Err.Error(), part) {
					t.Errorf("%q comes back in %v", part, line.Err)
				}
			}
		}
	})
}
