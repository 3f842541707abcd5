package synctest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

func FuzzMessage(f *testing.F) {
	f.Add(answer(message{id: 3, op: ldap.ApplicationModifyRequest}, ldap.LDAPResultBusy, "busy"))
	f.Add(answer(message{id: 1<<31 - 1, op: ldap.ApplicationSearchRequest}, 0, string(make([]byte, 70000))))
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Add([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bytes.NewReader(wire)
		m, err := readMessage(r)
		if err != nil {
			return
		}
		if !bytes.Equal(m.raw, wire[:len(wire)-r.Len()]) {
			t.Fatalf("%x became %x", wire, m.raw)
		}
		if m.op > 0x1f || m.id < 0 {
			t.Fatalf("%+v", m)
		}
	})
}

func TestAnswerIsAMessage(t *testing.T) {
	for op, want := range map[uint8]uint8{
		ldap.ApplicationBindRequest:   ldap.ApplicationBindResponse,
		ldap.ApplicationSearchRequest: ldap.ApplicationSearchResultDone,
		ldap.ApplicationModifyRequest: ldap.ApplicationModifyResponse,
	} {
		for _, id := range []int64{1, 127, 128, 65536, 1<<31 - 1} {
			m, err := readMessage(bytes.NewReader(answer(message{id: id, op: op}, ldap.LDAPResultBusy, "x")))
			if err != nil || m.id != id || m.op != want {
				t.Errorf("message %d, operation %d: %+v, %v", id, op, m, err)
			}
		}
	}
}

// An access log holds what clients sent.
func FuzzWrite(f *testing.F) {
	f.Add("20260102030405.000001Z", "modify", []byte("oathHOTPCounter:- 9"), []byte("oathHOTPCounter:+ 12"), []byte("oathHOTPCounter: 9"))
	f.Add("20260102030405Z", "add", []byte("oathSecret:+ \x00\xff"), []byte(":"), []byte("x: "))
	f.Add("20260102030405.000000Z", "modify", []byte("oathHOTPCounter:# 1"), []byte("oathSecret:="), []byte("oathSecret: s"))
	f.Add("", "delete", []byte("x"), []byte("x:"), []byte("x"))
	f.Fuzz(func(t *testing.T, start, kind string, first, second, old []byte) {
		w, err := parseWrite(&ldap.Entry{Attributes: []*ldap.EntryAttribute{
			{Name: "reqStart", Values: []string{start}}, {Name: "reqType", Values: []string{kind}},
			{Name: "reqMod", ByteValues: [][]byte{first, second}}, {Name: "reqOld", ByteValues: [][]byte{old}},
		}})
		if err != nil {
			return
		}
		if w.Lowers() && !w.Changes() {
			t.Fatalf("%s lowers a counter and changes nothing", w)
		}
		for _, m := range w.Mods {
			for _, v := range m.Values {
				if strings.EqualFold(m.Attr, attrSecret) && v != redacted {
					t.Fatalf("%s shows a secret", w)
				}
			}
		}
	})
}
