package localapi_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/vault/secret"
)

const (
	goodPIN  = "right-PIN-4711"
	wrongPIN = "wrong-PIN-0815"
)

// secretly sends a request with secrets and fails if it is refused.
func (d *desk) secretly(path string, in any, secrets ...string) (api.VaultOutcome, error) {
	d.Helper()
	var sent []secret.Secret
	for _, s := range secrets {
		sent = append(sent, secret.New([]byte(s)))
	}
	var out api.VaultOutcome
	err := d.Client.PostSecret(d.Context(), path, in, &out, sent...)
	return out, err
}

func (d *desk) must(out any, err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func (d *desk) get(path string, out any) {
	d.Helper()
	if err := d.Client.Get(d.Context(), path, nil, out); err != nil {
		d.Fatal(err)
	}
}

func (d *desk) vault() (v api.Vault) {
	d.Helper()
	d.get("/v1/vault", &v)
	return v
}

func (d *desk) lock() (out api.VaultOutcome) {
	d.Helper()
	if err := d.Client.Post(d.Context(), "/v1/vault/lock", nil, &out); err != nil {
		d.Fatal(err)
	}
	return out
}

// expect checks an error's code and words.
func (d *desk) expect(err error, code api.Code, words ...string) {
	d.Helper()
	e := (*api.Error)(nil)
	if !errors.As(err, &e) || e.Code != code {
		d.Errorf("%v, not an error with the code %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Message, w) {
			d.Errorf("%q does not say %q", e.Message, w)
		}
	}
}

// acts reads the whole audit trail, in pages of 3.
func (d *desk) acts() (all []api.Act) {
	d.Helper()
	from := "1"
	for {
		var page api.Acts
		d.must(nil, d.Client.Get(d.Context(), "/v1/audit", url.Values{"from": {from}, "limit": {"3"}}, &page))
		all = append(all, page.Acts...)
		if page.Next == 0 {
			if int(page.Last) != len(all) {
				d.Errorf("%d acts on pages, and the last is %d", len(all), page.Last)
			}
			return all
		}
		from = strconv.FormatUint(page.Next, 10)
	}
}

func (d *desk) recorded(action, outcome string) (found *api.Act) {
	d.Helper()
	all := d.acts()
	for i := range all {
		if all[i].Action == action && all[i].Outcome == outcome {
			found = &all[i]
		}
	}
	if found == nil {
		d.Fatalf("%s, %s, is not recorded in %+v", action, outcome, all)
	}
	return found
}

func TestLockedDeskShowsWhatWaits(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, PIN: goodPIN})
	_, err := d.Client.Work(t.Context(), "/v1/enroll", api.Enroll{Device: string(device.YubiKeyID(keySerial)), App: "otp2", User: "alice", Digits: 6}, d.touch)
	d.must(nil, err)
	token := "/v1/tokens/" + string(device.SlotToken(device.YubiKeyID(keySerial), 2))
	d.ordered("disable", api.Order{Reason: "on leave"})
	locked := d.lock().Vault
	if locked.State != "locked" || locked.Cure != "unlock it: tokendesk vault unlock" || !locked.PIN || locked.Level != "emulated" || locked.Means == "" {
		t.Errorf("the locked vault: %+v", locked)
	}
	if w := locked.Waiting; w == nil || w.Tokens != 1 || w.Changes < 2 || len(w.CutOffs) != 1 || w.CutOffs[0].Kind != "disable" || w.CutOffs[0].User != "alice" {
		t.Errorf("what waits: %+v", w)
	}
	var status api.Status
	d.get("/v1/status", &status)
	if status.Vault.State != "locked" || status.Central.CutOffs != 1 || status.Keys != 1 || len(status.Vault.Waiting.CutOffs) != 1 {
		t.Errorf("the status of a locked desk: %+v", status)
	}
	var found api.Keys
	d.get("/v1/devices", &found)
	if len(found.Keys) != 1 || len(found.Keys[0].Slots) != 2 || !found.Keys[0].Slots[1].Configured || found.Keys[0].Slots[1].Status != "" || found.Keys[0].Slots[1].Owner != "" {
		t.Errorf("the devices of a locked desk: %+v", found)
	}
	words := []string{"vault locked: ", "unlock it: tokendesk vault unlock"}
	for _, path := range []string{"/v1/tokens", token, token + "/history", "/v1/approvals", "/v1/outbox", "/v1/audit", "/v1/vault/backups"} {
		d.expect(d.Client.Get(t.Context(), path, nil, new(map[string]any)), api.VaultTrouble, words...)
	}
	_, err = d.order("enable", api.Order{})
	d.expect(err, api.VaultTrouble, words...)
	d.expect(d.Client.Post(t.Context(), "/v1/approvals/1/reject", api.Reason{Reason: "no"}, new(map[string]any)), api.VaultTrouble, words...)
	for _, path := range []string{"/v1/approvals/1/approve", "/v1/outbox/1/retry", "/v1/vault/rotate", "/v1/vault/check"} {
		d.expect(d.Client.Post(t.Context(), path, nil, new(map[string]any)), api.VaultTrouble, words...)
	}
	for path, body := range map[string]any{token + "/reissue": api.User{User: "bob"}, token + "/resolve": api.Resolve{}, token + "/reseed": nil, token + "/wipe": nil, token + "/test": api.Codes{Codes: []string{"1"}}} {
		_, err := d.Client.Work(t.Context(), path, body, func(api.Progress) {})
		d.expect(err, api.VaultTrouble, words...)
	}
	if a := d.ask(http.MethodGet, "/v1/audit/export", nil, nil); a.failure(t).Code != api.VaultTrouble {
		t.Errorf("an export of a locked vault: %s", a.text())
	}
	_, err = d.secretly("/v1/vault/change-pin", nil, goodPIN, "")
	d.expect(err, api.VaultTrouble, words...)
	var findings api.Findings
	d.get("/v1/doctor", &findings)
	if !slices.ContainsFunc(findings.Findings, func(f api.Finding) bool {
		return f.Area == "vault" && !f.OK && strings.Contains(f.Text, "1 of them cut-offs") && f.Cure == "unlock it: tokendesk vault unlock"
	}) {
		t.Errorf("doctor: %+v", findings)
	}
}

func TestWrongPIN(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, PIN: goodPIN})
	d.lock()
	_, err := d.secretly("/v1/vault/unlock", nil, wrongPIN)
	d.expect(err, api.VaultTrouble, "vault wrong-pin (9 left): ", "give the right PIN")
	v := d.vault()
	if v.State != "wrong-pin" || v.Guesses == nil || *v.Guesses != 9 || v.Cure == "" {
		t.Errorf("after a wrong PIN: %+v", v)
	}
	out, err := d.secretly("/v1/vault/unlock", nil, goodPIN)
	d.must(nil, err)
	if out.Vault.State != "open" || out.Vault.Guesses == nil {
		t.Errorf("after the right PIN: %+v", out)
	}
	if out, err := d.secretly("/v1/vault/unlock", nil, wrongPIN); err != nil || !strings.Contains(out.Text, "open already") {
		t.Errorf("unlocking an open vault: %+v, %v", out, err)
	}
	refused := d.recorded("vault unlock", "vault")
	if refused.UID != int64(os.Getuid()) || refused.Officer == "" || !strings.Contains(refused.Reason, "wrong-pin (9 left)") {
		t.Errorf("the wrong PIN is recorded as %+v", refused)
	}
	_, err = d.secretly("/v1/vault/change-pin", nil, wrongPIN, "another-PIN")
	d.expect(err, api.VaultTrouble, "wrong-pin")
	_, err = d.secretly("/v1/vault/change-pin", nil, goodPIN, "another-PIN")
	d.must(nil, err)
	d.recorded("vault change-pin", "vault")
	d.recorded("vault change-pin", "done")
	d.lock()
	d.recordedAfter(func() { _, err := d.secretly("/v1/vault/unlock", nil, "another-PIN"); d.must(nil, err) }, "vault lock", "done")
	d.discreet(goodPIN, wrongPIN, "another-PIN")
}

func (d *desk) recordedAfter(fn func(), action, outcome string) {
	d.Helper()
	fn()
	d.recorded(action, outcome)
}

// discreet checks that secrets are in no log and in no file of the world.
func (d *desk) discreet(secrets ...string) {
	d.Helper()
	err := filepath.WalkDir(d.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || path == d.Identity {
			return err
		}
		text, err := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(text, []byte(s)) {
				d.Errorf("%s has a secret", path)
			}
		}
		return err
	})
	if err != nil {
		d.Fatal(err)
	}
}

func TestInitIsRefusedASecondTime(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, NoVault: true})
	identity, err := os.ReadFile(d.Identity)
	d.must(nil, err)
	v := d.vault()
	if v.State != "absent" || !strings.Contains(v.Cure, "tokendesk vault init") || v.Waiting != nil {
		t.Errorf("without a vault: %+v", v)
	}
	d.expect(d.Client.Post(t.Context(), "/v1/vault/rotate", nil, new(api.VaultOutcome)), api.VaultTrouble, "vault absent: ")
	in := api.VaultInit{Recipients: []string{d.Recipient}}
	_, err = d.secretly("/v1/vault/init", in, "", "AGE-SECRET-KEY-1NONSENSE")
	d.expect(err, api.Refused, "not an age identity file")
	_, err = d.secretly("/v1/vault/init", api.VaultInit{Recipients: []string{"AGE-SECRET-KEY-1MISPLACED"}}, "", string(identity))
	d.expect(err, api.Invalid, "recipients[0]")
	if _, err := os.Stat(filepath.Join(d.Dir, "vault.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused init has left something: %v", err)
	}
	out, err := d.secretly("/v1/vault/init", in, goodPIN, string(identity))
	d.must(nil, err)
	if out.Vault.State != "open" || !out.Vault.PIN || !slices.Equal(out.Vault.Recipients, in.Recipients) || out.Vault.AuditKey == "" {
		t.Errorf("after init: %+v", out)
	}
	before, err := os.ReadFile(filepath.Join(d.Dir, "vault.db"))
	d.must(nil, err)
	for _, lock := range []bool{false, true} {
		if lock {
			d.lock()
		}
		_, err = d.secretly("/v1/vault/init", in, "", string(identity))
		d.expect(err, api.Refused, "exists; open it")
		_, err = d.secretly("/v1/vault/restore", api.VaultRestore{Backup: "/nowhere"}, "", string(identity))
		d.expect(err, api.Refused, "cannot create a vault")
	}
	after, err := os.ReadFile(filepath.Join(d.Dir, "vault.db"))
	if d.must(nil, err); len(after) < len(before) {
		t.Error("the vault was replaced")
	}
	_, err = d.secretly("/v1/vault/unlock", nil, goodPIN)
	d.must(nil, err)
	d.recorded("vault init", "done")
	d.recorded("vault init", "refused")
	d.discreet(goodPIN, "MISPLACED", strings.TrimSpace(string(identity)))
}

// A lock waits for nobody: it is refused under work, or interrupts it.
func TestLockUnderWork(t *testing.T) {
	d := start(t, world.Options{NoCentral: true})
	id := string(device.YubiKeyID(keySerial))
	forced := make(chan error, 1)
	touches := 0
	_, err := d.Client.Work(t.Context(), "/v1/enroll", api.Enroll{Device: id, App: "otp2", Digits: 6}, func(p api.Progress) {
		if p.Kind != "touch" {
			return
		}
		touches++
		err := d.Client.Post(d.Context(), "/v1/vault/lock", nil, new(api.VaultOutcome))
		d.expect(err, api.Refused, "work is going on: enroll of "+id+"/otp2 by ", "--force")
		go func() {
			forced <- d.Client.Post(d.Context(), "/v1/vault/lock", api.VaultLock{Force: true}, new(api.VaultOutcome))
		}()
	})
	d.expect(err, api.Unfinished, "tokendesk resolve "+id)
	if err := <-forced; err != nil || touches != 1 {
		t.Fatalf("%d touches, %v", touches, err)
	}
	v := d.vault()
	if v.State != "locked" || v.Waiting.Jobs != 1 {
		t.Errorf("after a forced lock: %+v", v)
	}
	if err := d.Unlock(d.Context(), ""); err != nil {
		t.Fatal(err)
	}
	out, err := d.Client.Work(t.Context(), "/v1/tokens/"+id+"/otp2/resolve", api.Resolve{}, d.touch)
	if err != nil || out.Token.Status != "active" {
		t.Errorf("resolve: %+v, %v", out, err)
	}
	d.recorded("vault lock", "refused")
	d.recorded("vault lock", "done")
	d.recorded("enroll", "unfinished")
}
