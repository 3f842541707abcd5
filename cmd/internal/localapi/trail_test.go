package localapi_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/vault/audit"
)

func TestAuditTrail(t *testing.T) {
	dir := t.TempDir()
	d := start(t, world.Options{NoCentral: true, Config: "\n[audit]\nheads = \"" + filepath.Join(dir, "heads") + "\"\n"})
	d.enroll()
	d.ordered("assign", api.Order{User: "alice"})
	_, err := d.order("assign", api.Order{User: "bob"})
	d.expect(err, api.Refused)
	if a := d.recorded("assign", "refused"); a.Object != string(device.SlotToken(device.YubiKeyID(keySerial), 2)) || !strings.Contains(a.Reason, "belongs to alice") || a.UID != int64(os.Getuid()) {
		t.Errorf("a refusal is recorded as %+v", a)
	}
	v := d.vault()
	key, err := audit.ParseKey(v.AuditKey)
	d.must(nil, err)
	d.lock() // ships the head
	if err := d.Unlock(d.Context(), ""); err != nil {
		t.Fatal(err)
	}
	var heads []audit.Head
	for _, file := range []string{filepath.Join(dir, "heads"), filepath.Join(d.Dir, "tokendeskd.log")} {
		text, err := os.ReadFile(file)
		d.must(nil, err)
		found := 0
		for line := range strings.Lines(string(text)) {
			if h, err := audit.ParseHead(line); err == nil {
				heads, found = append(heads, h), found+1
			}
		}
		if found < 2 || found > 4 {
			t.Errorf("%s has %d heads:\n%s", file, found, text)
		}
	}
	body, err := d.Client.Stream(t.Context(), "/v1/audit/export", nil)
	d.must(nil, err)
	defer body.Close()
	last := audit.Entry{}
	summary, err := audit.Verify(body, key, func(e audit.Entry) { last = e }, heads...)
	if err != nil || summary.Before() != 0 || last.Action != "audit export" || len(summary.Unchecked) != 0 {
		t.Errorf("the export: %v, %v, last %+v", summary, err, last)
	}
	if a := d.ask(http.MethodGet, "/v1/audit/export?from=9999", nil, nil); a.failure(t).Code != api.NotFound {
		t.Errorf("an export of nothing: %s", a.text())
	}
}

// await looks until what is hoped for is so.
func (d *desk) await(what string, so func() bool) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), patience)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); !so(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.Fatalf("%s: this did not come to be", what)
		}
	}
}

// What is due by itself: a backup at once where there is none, and the shredding of seeds that were destroyed.
func TestSchedule(t *testing.T) {
	dir := t.TempDir()
	d := start(t, world.Options{NoCentral: true, ShredAfter: "1ms", Config: "\n[backup]\ndir = \"" + dir + "\"\n"})
	var v api.Vault
	d.await("a first backup", func() bool { v = d.vault(); return v.Backup != nil && v.Backup.There })
	if v.Backups != 1 || !v.Backup.There || v.Overdue != "" {
		t.Errorf("after the first backup: %+v, %+v", v, v.Backup)
	}
	if a := d.recorded("vault backup", "done"); a.UID != audit.DeskUID {
		t.Errorf("it is recorded as %+v", a)
	}
	var out api.VaultOutcome
	d.must(nil, d.Client.Post(t.Context(), "/v1/vault/backup", nil, &out))
	if out.Backup == nil || !out.Backup.There || out.Vault.Backups != 2 {
		t.Errorf("a backup on demand: %+v", out)
	}
	d.enroll()
	token := "/v1/tokens/" + string(device.SlotToken(device.YubiKeyID(keySerial), 2))
	_, err := d.Client.Work(t.Context(), token+"/reissue", api.User{User: "bob"}, d.touch)
	d.must(nil, err)
	var list api.Backups
	d.await("the old seed shredded", func() bool {
		return d.vault().Shred == nil && slices.ContainsFunc(d.acts(), func(a api.Act) bool { return a.Action == "vault rotate" && a.UID == audit.DeskUID })
	})
	if d.get("/v1/vault/backups", &list); len(list.Backups) != 2 || list.Backups[0].Time.Before(list.Backups[1].Time) {
		t.Errorf("the backups: %+v", list)
	}
}
