package localapi_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
)

// account is one that every Debian has, alone in a group of its own name.
type account struct {
	name     string
	uid, gid uint32
}

var (
	theOfficer       = account{"games", 5, 60}
	theApprover      = account{"man", 6, 12}
	theAuditor       = account{"lp", 7, 7}
	theAdministrator = account{"mail", 8, 8}
	aStranger        = account{"news", 9, 9}
)

const allRoles = "\n[roles]\nofficers = \"games\"\napprovers = \"man\"\nauditors = \"lp\"\nadministrators = \"mail\"\n"

// by is the desk as somebody else of this machine reaches it with requests of their own.
func (d *desk) by(a account) *desk {
	d.Helper()
	if err := os.Chmod(d.Dir, 0o711); err != nil {
		d.Fatal(err)
	}
	theirs := *d
	theirs.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		err = a.become(func() (err error) {
			c, err = new(net.Dialer).DialContext(ctx, "unix", d.Socket)
			return err
		})
		return c, err
	}}}
	d.Cleanup(theirs.http.CloseIdleConnections)
	return &theirs
}

// become runs fn on a thread of another user: whoever connects to a Unix socket is known by the thread that does it.
func (a account) become(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		const keep = ^uintptr(0)
		for _, set := range [][4]uintptr{{syscall.SYS_SETGROUPS}, {syscall.SYS_SETRESGID, keep, uintptr(a.gid), keep}, {syscall.SYS_SETRESUID, keep, uintptr(a.uid), keep}} {
			if _, _, errno := syscall.RawSyscall(set[0], set[1], set[2], set[3]); errno != 0 {
				done <- errno
				return
			}
		}
		done <- fn()
	}()
	return <-done
}

// TestRoles asks for every operation as everybody. What an operation takes stands in its description.
func TestRoles(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: allRoles})
	d.enroll()
	doc := d.document()
	people := map[string]account{"officer": theOfficer, "approver": theApprover, "auditor": theAuditor, "administrator": theAdministrator}
	groups := map[string]string{"officer": "games", "approver": "man", "auditor": "lp", "administrator": "mail"}
	takes := map[string]string{}
	desks := map[string]*desk{} // one each: the daemon takes so many connections at a time
	for role, who := range people {
		desks[role] = d.by(who)
	}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for method, a := range doc.Paths[path] {
			method = strings.ToUpper(method)
			if len(a.Roles) == 0 {
				t.Errorf("%s %s says of no role that it may be asked for", method, path)
				continue
			}
			takes[a.OperationID] = strings.Join(a.Roles, " ")
			for _, role := range slices.Sorted(maps.Keys(people)) {
				header := http.Header{}
				if a.RequestBody != nil {
					header.Set("Content-Type", "application/json")
				}
				got := desks[role].ask(method, d.sane(path)[len(d.sane(path))-1], header, doc.body(a))
				if slices.Contains(a.Roles, role) {
					if got.status == http.StatusForbidden {
						t.Errorf("%s %s as %s: %s", method, path, role, got.text())
					}
					continue
				}
				want := fmt.Sprintf("this takes the role %s: have an administrator run 'adduser %s %s', then log in again",
					strings.Join(a.Roles, " or "), people[role].name, groups[a.Roles[0]])
				if e := got.failure(t); got.status != http.StatusForbidden || e.Code != api.Forbidden || e.Message != want {
					t.Errorf("%s %s as %s: status %d %s, not %q", method, path, role, got.status, got.text(), want)
				}
			}
		}
	}
	for id, roles := range map[string]string{
		"status": "officer approver auditor administrator", "list": "officer approver auditor administrator", "approvals": "officer approver auditor administrator",
		"doctor": "officer approver auditor administrator", "audit-export": "auditor", "approve": "approver", "reject": "approver officer",
		"order": "officer", "preview": "officer", "enroll": "officer", "reissue": "officer", "reseed": "officer", "wipe": "officer", "resolve": "officer",
		"test": "officer", "resync": "officer", "retry": "officer", "park": "officer", "discard": "officer", "drift-repair": "officer",
		"vault-unlock": "officer", "vault-lock": "officer", "vault-backup": "officer", "vault-check": "officer",
		"vault-init": "administrator", "vault-change-pin": "administrator", "vault-rotate": "administrator", "vault-restore": "administrator", "vault-move": "administrator",
	} {
		if takes[id] != roles {
			t.Errorf("%s takes the roles %q, not %q", id, takes[id], roles)
		}
	}
	for _, path := range []string{"/v1/status", "/openapi.json", "/nothing"} {
		if e := d.by(aStranger).ask(http.MethodGet, path, nil, nil).failure(t); e.Code != api.Forbidden || !strings.Contains(e.Message, "news may not use this desk: have an administrator run 'adduser news games'") {
			t.Errorf("%s for somebody without a role: %+v", path, e)
		}
	}
	if err := d.Unlock(t.Context(), ""); err != nil { // the officer has locked it
		t.Fatal(err)
	}
	if a := d.recorded("order", "forbidden"); !strings.HasPrefix(a.Reason, "this takes the role officer") {
		t.Errorf("a refusal is recorded as %+v", a)
	}
}

// Where few groups are named, fewer people have a role.
func TestRolesOfFewGroups(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: "\n[roles]\nofficers = \"games\"\n" + policy})
	mode := func(want os.FileMode) {
		t.Helper()
		if info, err := os.Stat(d.Socket); err != nil || info.Mode().Perm() != want {
			t.Errorf("the socket: %v, %v", info.Mode(), err)
		}
	}
	mode(0o660)
	officer := d.by(theOfficer)
	if a := officer.ask(http.MethodGet, "/v1/audit/export", nil, nil); a.status != http.StatusOK {
		t.Errorf("where no auditors are named, officers export: %s", a.text())
	}
	for _, path := range []string{"/v1/vault/rotate", "/v1/approvals/1/approve"} {
		if e := officer.ask(http.MethodPost, path, nil, nil).failure(t); e.Code != api.Forbidden || !strings.Contains(e.Message, "so that only root has it") {
			t.Errorf("%s where nobody is named for it: %+v", path, e)
		}
		if a := d.ask(http.MethodPost, path, nil, nil); a.status == http.StatusForbidden {
			t.Errorf("%s as root: %s", path, a.text())
		}
	}
	if a := d.ask(http.MethodGet, "/v1/doctor", nil, nil); !strings.Contains(string(a.body), "members of the group games are officers") || !strings.Contains(string(a.body), "only root can give it") {
		t.Errorf("doctor: %s", a.text())
	}
	d.configure("officers = \"games\"", "officers = \"games\"\napprovers = \"games\"")
	if a := d.ask(http.MethodGet, "/v1/doctor", nil, nil); strings.Contains(string(a.body), "only root can give it") {
		t.Errorf("doctor, with approvers: %s", a.text())
	}
	mode(0o660)
	d.configure("approvers = \"games\"", "approvers = \"games\"\nauditors = \"lp\"")
	mode(0o666)
	if e := officer.ask(http.MethodGet, "/v1/audit/export", nil, nil).failure(t); e.Code != api.Forbidden {
		t.Errorf("an officer beside auditors: %+v", e)
	}
}

// What a caller is offered depends on the roles.
func TestActionsAreOfferedByRole(t *testing.T) {
	d := start(t, world.Options{NoCentral: true, Config: allRoles})
	d.enroll()
	path := "/v1/tokens/" + token
	for _, c := range []struct {
		who    account
		offers string
	}{{theOfficer, `"disable"`}, {theAuditor, `"actions":[]`}, {theApprover, `"actions":[]`}} {
		if a := d.by(c.who).ask(http.MethodGet, path, nil, nil); a.status != http.StatusOK || !strings.Contains(string(a.body), c.offers) {
			t.Errorf("%s is shown %s", c.who.name, a.text())
		}
	}
}
