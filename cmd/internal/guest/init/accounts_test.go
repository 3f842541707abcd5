package main

import (
	"slices"
	"strings"
	"testing"
)

func accountsOf(passwd, group string) *accounts {
	return &accounts{passwd: parseTable(passwd), group: parseTable(group)}
}

const (
	somePasswd = "root:x:0:0:root:/root:/bin/bash\nme:x:1000:1000:,,,:/home/me:/bin/bash\n"
	someGroup  = "root:x:0:\nlast:x:999:\nme:x:1000:\nstudents:x:1001:me\n"
)

func TestPeople(t *testing.T) {
	a := accountsOf(somePasswd, someGroup)
	if err := a.addPeople(); err != nil {
		t.Fatal(err)
	}
	passwd := somePasswd + "officer:*:1002:1002::/home/officer:/bin/sh\neve:*:1003:1003::/home/eve:/bin/sh\n"
	if got := a.passwd.String(); got != passwd {
		t.Errorf("passwd:\n%s", got)
	}
	group := someGroup + "tokendesk:x:998:officer\ntss:x:997:officer\nofficer:x:1002:\neve:x:1003:\n"
	if got := a.group.String(); got != group {
		t.Errorf("group:\n%s", got)
	}
}

func TestPeopleKeepTheGroupsOfTheHost(t *testing.T) {
	a := accountsOf(somePasswd, someGroup+"tss:x:110:tss\ntokendesk:x:120\n")
	if err := a.addPeople(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tss:x:110:tss,officer\n", "tokendesk:x:120:officer\n"} {
		if got := a.group.String(); strings.Count(got, want) != 1 {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// The host's own eve must not bring her groups along.
func TestPeopleReplaceThoseOfTheHost(t *testing.T) {
	a := accountsOf(somePasswd+"eve:x:1005:1005::/home/e:/bin/bash\n", someGroup+"eve:x:1005:\ntokendesk:x:120:eve,me\nadm:x:4:eve\n")
	if err := a.addPeople(); err != nil {
		t.Fatal(err)
	}
	if passwd := a.passwd.String(); strings.Count(passwd, "\neve:") != 1 || !strings.Contains(passwd, "eve:*:1003:1003::/home/eve:/bin/sh\n") {
		t.Errorf("passwd:\n%s", passwd)
	}
	for _, want := range []string{"tokendesk:x:120:me,officer\n", "adm:x:4:\n", "eve:x:1003:\n"} {
		if group := a.group.String(); strings.Count(group, want) != 1 {
			t.Errorf("no %q in\n%s", want, group)
		}
	}
}

func TestNoFreeID(t *testing.T) {
	a := accountsOf("a:x:100:100::/:\n", "b:x:101:\n")
	if id, err := a.freeID(100, 101); err == nil {
		t.Errorf("%s is said to be free", id)
	}
	if id, err := a.freeID(102, 100); err != nil || id != "102" {
		t.Errorf("%s, %v", id, err)
	}
}

// Whatever an administrator wrote there, the lines come back, and nobody gets an id twice.
func FuzzPeople(f *testing.F) {
	f.Add(somePasswd, someGroup)
	f.Add("officer\n:::\n", "tss\n\ntokendesk:x:abc:,,")
	f.Fuzz(func(t *testing.T, passwd, group string) {
		a := accountsOf(passwd, group)
		before := slices.Concat(ids(a.passwd), ids(a.group))
		if err := a.addPeople(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{officer, eve} {
			u := a.passwd.find(name)
			if u == nil || len(u) != 7 {
				t.Fatalf("%s is %q", name, u)
			}
			if a.group.find(name)[2] != u[2] {
				t.Errorf("%s has another group", name)
			}
			if slices.Contains(before, u[2]) && !strings.Contains(passwd+group, name) {
				t.Errorf("%s has the id of another, %s", name, u[2])
			}
		}
		for _, name := range officersGroups {
			if g := a.group.find(name); g == nil || !slices.Contains(strings.Split(g[3], ","), officer) {
				t.Errorf("officer is not in %s: %q", name, g)
			}
		}
		if again := parseTable(a.passwd.String()); again.String() != a.passwd.String() {
			t.Errorf("passwd %q is read back as %q", a.passwd, again)
		}
	})
}

func ids(t table) (ids []string) {
	for _, entry := range t {
		if len(entry) > 2 {
			ids = append(ids, entry[2])
		}
	}
	return ids
}
