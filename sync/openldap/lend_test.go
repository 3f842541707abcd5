package openldap

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"

	"tokendesk/vault/secret"
)

// sent keeps what a connection is to send.
type sent struct {
	net.Conn
	buf bytes.Buffer
}

func (s *sent) Write(p []byte) (int, error) { return s.buf.Write(p) }

// message is one like the library's, with values in it.
func message(number int, values ...string) []byte {
	p := ber.NewSequence("")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, number, ""))
	for _, v := range values {
		p.AppendChild(ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, v, ""))
	}
	return p.Bytes()
}

func TestLend(t *testing.T) {
	const dn = "cn=YK1-2,dc=example"
	for _, size := range []int{1, 3, 4, 5, 20, 64, 127, 128, 255, 256, 1000, 65535} {
		for _, number := range []int{1, 255, 65535, 1<<24 - 1} {
			plain := strings.Repeat("s", size-1) + "\xff"
			s := secret.New([]byte(plain))
			out := &sent{}
			l := &lender{Conn: out}
			standIn, back := l.lend(s)
			given := message(number, dn, standIn, "x")
			kept := slices.Clone(given)
			if n, err := l.Write(given); err != nil || n != len(given) {
				t.Fatalf("%d bytes: %d, %v", size, n, err)
			}
			if !bytes.Equal(out.buf.Bytes(), message(number, dn, plain, "x")) {
				t.Errorf("message %d with a secret of %d bytes is not what it should be", number, size)
			}
			if !bytes.Equal(given, kept) {
				t.Error("the message was changed in place")
			}
			if bytes.Contains(given, []byte(plain)) && size >= shortest {
				t.Error("the library gets the secret")
			}
			back()
			s.Wipe()
			out.buf.Reset()
			if _, err := l.Write(given); size >= shortest && (err == nil || out.buf.Len() > 0) {
				t.Errorf("a secret of %d bytes that was taken back is sent: %q", size, out.buf.Bytes())
			}
			if _, err := l.Write(message(number, dn)); err != nil || out.buf.Len() == 0 {
				t.Errorf("a message without a secret is not sent: %v", err)
			}
		}
	}
}

// FuzzLend has a hostile directory's values in a message beside the secret, or without one.
func FuzzLend(f *testing.F) {
	f.Add("cn=x", "alice", 20, true)
	f.Add("\xff\xff\xff\xff", "\xff", 4, true)
	f.Add("", strings.Repeat("\xff", 20), 20, false)
	f.Fuzz(func(t *testing.T, before, after string, size int, lent bool) {
		size = shortest + int(uint(size)%100)
		plain := strings.Repeat("s", size)
		s := secret.New([]byte(plain))
		defer s.Wipe()
		out := &sent{}
		l := &lender{Conn: out}
		standIn, back := l.lend(s)
		if !lent {
			back()
		}
		_, err := l.Write(message(1, before, standIn, after))
		if err != nil && out.buf.Len() > 0 || err == nil && !lent {
			t.Fatalf("%v, %q", err, out.buf.Bytes())
		}
		if err == nil && !bytes.Equal(out.buf.Bytes(), message(1, before, plain, after)) {
			t.Fatalf("sent %q", out.buf.Bytes())
		}
	})
}
