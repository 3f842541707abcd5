package synctest

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Login does what a user's application does: it looks the user up, wherever the entry is, and makes a simple bind
// with the password and the code behind it.
func (s *Slapd) Login(user, code string) error {
	return s.withConn(func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(BaseDN, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
			"(uid="+ldap.EscapeFilter(user)+")", []string{"1.1"}, nil))
		if err != nil {
			return err
		}
		if len(r.Entries) != 1 {
			return fmt.Errorf("%s has %d entries", user, len(r.Entries))
		}
		return c.Bind(r.Entries[0].DN, UserPassword(user)+code)
	})
}

// Move takes a user's entry out of PeopleBase, as for somebody who left.
func (s *Slapd) Move(user string) error {
	const former = "ou=former," + BaseDN
	return s.AsAdmin(func(c *ldap.Conn) error {
		a := ldap.NewAddRequest(former, nil)
		a.Attribute("objectClass", []string{"organizationalUnit"})
		if err := c.Add(a); err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) {
			return err
		}
		return c.ModifyDN(ldap.NewModifyDNRequest(UserDN(user), "uid="+user, true, former))
	})
}

// Stored is a token's oathHOTPCounter, the last used one, on this server; -1 if it has none.
func (s *Slapd) Stored(central string) (counter int64, err error) {
	err = s.AsAdmin(func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(tokenDN(central), ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
			"(objectClass=*)", []string{attrCounter}, nil))
		if err != nil {
			return err
		}
		counter, err = parseCounter(r.Entries[0].GetAttributeValues(attrCounter))
		return err
	})
	return counter, err
}

// Crowd adds n tokens that another tool put there, with secrets of their own, and names them.
func (s *Slapd) Crowd(n int) (all []string, err error) {
	err = s.AsAdmin(func(c *ldap.Conn) error {
		for i := range n {
			central := fmt.Sprintf("OLD%07d", i)
			a := ldap.NewAddRequest(tokenDN(central), nil)
			a.Attribute("objectClass", []string{"device", "oathHOTPToken"})
			a.Attribute(attrSecret, []string{fmt.Sprintf("%020d", i)})
			a.Attribute(attrCounter, []string{strconv.Itoa(i)})
			a.Attribute("oathHOTPParams", []string{Params6})
			a.Attribute("description", []string{"from the old system"})
			if err := c.Add(a); err != nil {
				return err
			}
			all = append(all, central)
		}
		return nil
	})
	return all, err
}

func tokenDN(central string) string { return "cn=" + ldap.EscapeDN(central) + "," + TokensBase }

// AsAdmin lends a connection that may do everything.
func (s *Slapd) AsAdmin(do func(*ldap.Conn) error) error {
	return s.withConn(func(c *ldap.Conn) error {
		if err := c.Bind(s.AdminDN, s.AdminPassword); err != nil {
			return err
		}
		return do(c)
	})
}

// withConn goes by the server's socket where it is not on loopback: no line that is cut comes in between.
func (s *Slapd) withConn(do func(*ldap.Conn) error) error {
	address := s.URL
	if s.site != nil {
		address = "ldapi://" + filepath.Join(s.dir, socketFile)
	}
	conn, err := ldap.DialURL(address, ldap.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}))
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetTimeout(5 * time.Second)
	return do(conn)
}
