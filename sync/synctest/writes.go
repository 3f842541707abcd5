package synctest

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

const (
	attrSecret  = "oathSecret"
	attrCounter = "oathHOTPCounter"
	attrNote    = "description" // where a connector says which seed a token has that is stored without
	redacted    = "[redacted]"
)

// Write is one successful write as the server's access log (slapo-accesslog) has it.
type Write struct {
	Time    time.Time // of whole seconds: the fraction only puts those of one second in order
	CSN     string    // entryCSN that it gave the entry, with the time in microseconds; a login gives none
	By      string    // DN of who wrote; the administrator's for logins and for what came by replication
	DN      string
	Type    string         // add, modify, delete or modrdn
	Mods    []Mod          // in order; without what the server itself adds
	Counter *CounterChange // nil if oathHOTPCounter is not among Mods
	Reseeds bool           // it is about another seed afterwards

	changes bool
}

// Mod is one modification. Values of oathSecret and userPassword are redacted.
type Mod struct {
	Attr   string
	Op     string // add, delete, replace or increment
	Values []string
}

// CounterChange is what a write did to oathHOTPCounter, the last used one; -1 stands for none.
type CounterChange struct{ Old, New int64 }

// Changes tells whether anything is there that was not, or the other way round: a modify that leaves every value
// as it was changes nothing.
func (w Write) Changes() bool { return w.changes }

// Lowers tells whether codes that were used count again: the counter went down, and it is still the same seed's.
func (w Write) Lowers() bool {
	return w.Counter != nil && w.Type == "modify" && w.Counter.New < w.Counter.Old && !w.Reseeds
}

// String is one line, as for an error message.
func (w Write) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s by %s:", w.Time.Format("15:04:05.000000"), w.Type, w.DN, w.By)
	for _, m := range w.Mods {
		fmt.Fprintf(&b, " %s %s %q", m.Op, m.Attr, m.Values)
	}
	if w.Counter != nil {
		fmt.Fprintf(&b, " (counter %d to %d)", w.Counter.Old, w.Counter.New)
	}
	return b.String()
}

// Writes reads from the access log what an identity has written on this server, in order; all that anybody has, if
// it is empty.
func (s *Slapd) Writes(by string) (all []Write, err error) {
	filter := "(objectClass=auditWriteObject)"
	if by != "" {
		filter = "(&" + filter + "(reqAuthzID=" + ldap.EscapeFilter(by) + "))"
	}
	err = s.AsAdmin(func(c *ldap.Conn) error {
		r, err := c.SearchWithPaging(ldap.NewSearchRequest("cn=accesslog", ldap.ScopeSingleLevel, ldap.NeverDerefAliases, 0, 0, false,
			filter, []string{"reqStart", "reqAuthzID", "reqDN", "reqType", "reqMod", "reqOld"}, nil), 1000)
		if err != nil {
			return err
		}
		slices.SortStableFunc(r.Entries, func(a, b *ldap.Entry) int {
			return cmp.Compare(a.GetAttributeValue("reqStart"), b.GetAttributeValue("reqStart"))
		})
		for _, e := range r.Entries {
			w, err := parseWrite(e)
			if err != nil {
				return fmt.Errorf("access log entry %s: %w", e.DN, err)
			}
			all = append(all, w)
		}
		return nil
	})
	return all, err
}

// parseWrite reads an entry of the access log's schema.
func parseWrite(e *ldap.Entry) (w Write, err error) {
	w = Write{By: e.GetAttributeValue("reqAuthzID"), DN: e.GetAttributeValue("reqDN"), Type: e.GetAttributeValue("reqType")}
	if w.Time, err = time.Parse("20060102150405.999999Z", e.GetAttributeValue("reqStart")); err != nil {
		return w, err
	}
	before := make(map[string][][]byte)
	for _, line := range e.GetRawAttributeValues("reqOld") {
		attr, value, ok := bytes.Cut(line, []byte(": "))
		if !ok {
			return w, fmt.Errorf("reqOld has no attribute")
		}
		name := strings.ToLower(string(attr))
		before[name] = append(before[name], value)
	}
	after := make(map[string][][]byte)
	for name, values := range before {
		if w.Type != "delete" {
			after[name] = slices.Clone(values)
		}
	}
	w.changes = w.Type != "modify"
	for _, line := range e.GetRawAttributeValues("reqMod") {
		if err := w.modify(line, after); err != nil {
			return w, err
		}
	}
	for name, values := range after {
		w.changes = w.changes || !sameValues(before[name], values)
	}
	return w, w.judge(before, after)
}

// modify applies one reqMod value, such as "oathHOTPCounter:+ 7": after the colon stands +, -, = or #, and then maybe a
// value. A modification of several values has one of them for each; a lone ":" only keeps two modifications apart.
func (w *Write) modify(line []byte, after map[string][][]byte) error {
	attr, rest, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return fmt.Errorf("reqMod has no operation")
	}
	if len(attr) == 0 {
		return nil
	}
	if len(rest) == 0 {
		return fmt.Errorf("reqMod of %s has no operation", attr)
	}
	op := map[byte]string{'+': "add", '-': "delete", '=': "replace", '#': "increment"}[rest[0]]
	if op == "" {
		return fmt.Errorf("reqMod of %s has an unknown operation", attr)
	}
	var value []byte
	hasValue := len(rest) > 1 && rest[1] == ' '
	if hasValue {
		value = rest[2:]
	}
	name := strings.ToLower(string(attr))
	if name == "entrycsn" && hasValue {
		w.CSN = string(value)
	}
	if byServer[name] {
		return nil
	}
	first := w.note(string(attr), op, value, hasValue)
	switch {
	case op == "add":
		after[name] = append(after[name], value)
	case op == "replace" && hasValue && !first:
		after[name] = append(after[name], value)
	case op == "replace" && hasValue:
		after[name] = [][]byte{value}
	case op == "replace", !hasValue:
		after[name] = nil
	case op == "delete":
		i := slices.IndexFunc(after[name], func(v []byte) bool { return bytes.Equal(v, value) })
		if i < 0 { // equal by its matching rule only, so something was removed
			w.changes = true
			return nil
		}
		after[name] = slices.Delete(after[name], i, i+1)
	case op == "increment":
		old, err := parseNumbers(after[name])
		by, bad := strconv.ParseInt(string(value), 10, 64)
		if err != nil || bad != nil {
			return fmt.Errorf("reqMod of %s cannot be added", attr)
		}
		after[name] = [][]byte{strconv.AppendInt(nil, old+by, 10)}
	}
	return nil
}

// byServer are the attributes that come with every write.
var byServer = map[string]bool{"entrycsn": true, "modifiersname": true, "modifytimestamp": true,
	"entryuuid": true, "creatorsname": true, "createtimestamp": true, "structuralobjectclass": true}

// note adds a modification, or a value to the last one, and tells whether it is a new one.
func (w *Write) note(attr, op string, value []byte, hasValue bool) (first bool) {
	n := len(w.Mods)
	if first = n == 0 || w.Mods[n-1].Attr != attr || w.Mods[n-1].Op != op; first {
		w.Mods = append(w.Mods, Mod{Attr: attr, Op: op})
		n++
	}
	switch {
	case hasValue && (strings.EqualFold(attr, attrSecret) || strings.EqualFold(attr, "userPassword")):
		w.Mods[n-1].Values = append(w.Mods[n-1].Values, redacted)
	case hasValue:
		w.Mods[n-1].Values = append(w.Mods[n-1].Values, string(value))
	}
	return first
}

// judge fills in what became of counter and secret.
func (w *Write) judge(before, after map[string][][]byte) (err error) {
	secret, counter := strings.ToLower(attrSecret), strings.ToLower(attrCounter)
	if w.Reseeds = !sameValues(before[secret], after[secret]); len(after[secret]) == 0 {
		w.Reseeds = !sameValues(before[attrNote], after[attrNote])
	}
	_, was := before[counter]
	_, is := after[counter]
	if !was && !is {
		return nil
	}
	w.Counter = &CounterChange{}
	if w.Counter.Old, err = parseNumbers(before[counter]); err != nil {
		return err
	}
	w.Counter.New, err = parseNumbers(after[counter])
	return err
}

func parseNumbers(values [][]byte) (int64, error) {
	var texts []string
	for _, v := range values {
		texts = append(texts, string(v))
	}
	return parseCounter(texts)
}

// parseCounter reads the values of a single-valued counter; none is -1.
func parseCounter(values []string) (int64, error) {
	switch len(values) {
	case 0:
		return -1, nil
	case 1:
		return strconv.ParseInt(values[0], 10, 64)
	}
	return 0, fmt.Errorf("%s has %d values", attrCounter, len(values))
}

// sameValues compares sets.
func sameValues(a, b [][]byte) bool {
	sorted := func(values [][]byte) [][]byte {
		values = slices.Clone(values)
		slices.SortFunc(values, bytes.Compare)
		return values
	}
	return slices.EqualFunc(sorted(a), sorted(b), bytes.Equal)
}
