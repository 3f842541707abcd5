package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"tokendesk/cmd/internal/guest/job"
)

// Two people live in the guest: an officer of the desk, who may use the TPM, and eve, who may nothing.
const (
	officer = "officer"
	eve     = "eve"
)

var officersGroups = []string{"tokendesk", "tss"}

// Ranges of Debian's adduser.
const (
	firstSystemID, lastSystemID = 100, 999
	firstUserID, lastUserID     = 1000, 59999
)

// accounts is /etc/passwd and /etc/group, of which only the fields needed here are understood.
type accounts struct {
	passwd, group table
}

// writeAccounts edits the files in the layer, as useradd would need shadow files that an ordinary user's guest
// cannot read.
func writeAccounts(job.Job) error {
	var a accounts
	for file, t := range map[string]*table{"/etc/passwd": &a.passwd, "/etc/group": &a.group} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		*t = parseTable(string(text))
	}
	if err := a.addPeople(); err != nil {
		return err
	}
	for file, t := range map[string]table{"/etc/passwd": a.passwd, "/etc/group": a.group} {
		if err := os.WriteFile(file, []byte(t.String()), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(a.makeHome(officer), a.makeHome(eve))
}

func (a *accounts) addPeople() error {
	for _, name := range officersGroups {
		if err := a.addGroup(name); err != nil {
			return err
		}
	}
	for _, name := range []string{officer, eve} {
		if err := a.addUser(name); err != nil {
			return err
		}
	}
	for _, name := range officersGroups {
		a.join(officer, name)
	}
	return nil
}

// addGroup adds a system group that is missing.
func (a *accounts) addGroup(name string) error {
	if a.group.find(name) != nil {
		return nil
	}
	id, err := a.freeID(lastSystemID, firstSystemID)
	if err != nil {
		return err
	}
	a.group = append(a.group, []string{name, "x", id, ""})
	return nil
}

// addUser adds a user with a group of its own name and no other, and nobody's password. A user of that name
// that the host has is left out, whatever its groups.
func (a *accounts) addUser(name string) error {
	a.remove(name)
	id, err := a.freeID(firstUserID, lastUserID)
	if err != nil {
		return err
	}
	// "*" instead of "x": there is no entry in /etc/shadow, and PAM must not look for one.
	a.passwd = append(a.passwd, []string{name, "*", id, id, "", "/home/" + name, "/bin/sh"})
	a.group = append(a.group, []string{name, "x", id, ""})
	return nil
}

func (a *accounts) remove(name string) {
	named := func(entry []string) bool { return entry[0] == name }
	a.passwd, a.group = slices.DeleteFunc(a.passwd, named), slices.DeleteFunc(a.group, named)
	for _, g := range a.group {
		if len(g) > 3 {
			members := strings.Split(g[3], ",")
			g[3] = strings.Join(slices.DeleteFunc(members, func(m string) bool { return m == name }), ",")
		}
	}
}

// join makes a user a member of an existing group.
func (a *accounts) join(user, group string) {
	g := a.group.find(group)
	for len(g) < 4 {
		g = append(g, "")
	}
	if g[3] != "" {
		g[3] += ","
	}
	g[3] += user
	a.group.replace(g)
}

// freeID is an id that neither a user nor a group has, the first from one bound to the other.
func (a *accounts) freeID(from, to int) (string, error) {
	step := 1
	if to < from {
		step = -1
	}
	for id := from; id != to+step; id += step {
		text := strconv.Itoa(id)
		taken := func(entry []string) bool { return len(entry) > 2 && entry[2] == text }
		if !slices.ContainsFunc(a.passwd, taken) && !slices.ContainsFunc(a.group, taken) {
			return text, nil
		}
	}
	return "", fmt.Errorf("no id from %d to %d is free", from, to)
}

func (a *accounts) makeHome(name string) error {
	u := a.passwd.find(name)
	id, err := strconv.Atoi(u[2])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(u[5], 0o700); err != nil {
		return err
	}
	return os.Chown(u[5], id, id)
}

// table is a file of lines whose fields are separated by colons.
type table [][]string

func parseTable(text string) table {
	var t table
	for line := range strings.Lines(text) {
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			t = append(t, strings.Split(line, ":"))
		}
	}
	return t
}

func (t table) String() string {
	var b strings.Builder
	for _, entry := range t {
		b.WriteString(strings.Join(entry, ":") + "\n")
	}
	return b.String()
}

func (t table) find(name string) []string {
	if i := t.index(name); i >= 0 {
		return t[i]
	}
	return nil
}

func (t table) replace(entry []string) { t[t.index(entry[0])] = entry }

func (t table) index(name string) int {
	return slices.IndexFunc(t, func(entry []string) bool { return entry[0] == name })
}
