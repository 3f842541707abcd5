package openldap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/vault/secret"
)

// tokenRights tries what every change does to a token's entry.
func (k *checker) tokenRights() error {
	base := k.cfg.TokensBase
	if e, err := k.read(base, "1.1"); err != nil || e == nil {
		return err // said already
	}
	subtree := k.rule(`dn.subtree="`+base+`"`, "write")
	cn := fmt.Sprintf("%s-%d", probeCN, 1+slices.Index(k.providers, k.provider)) // they would meet by replication
	probe := "cn=" + cn + "," + base
	add := func(controls ...ldap.Control) error {
		a := ldap.NewAddRequest(probe, controls)
		a.Attribute("objectClass", []string{"device", classToken})
		a.Attribute("cn", []string{cn})
		return k.conn.Add(a)
	}
	may, err := allowed(add(ldap.NewControlString(noOp, true, "")))
	if err != nil {
		return err
	}
	if !may {
		k.add(k.identity+" may not add token entries below "+base, subtree)
	}
	found, err := k.search(base, ldap.ScopeSingleLevel, "(&(objectClass="+classToken+")(!(cn="+probeCN+"*)))", 1, "1.1") // not another check's
	switch {
	case err != nil:
		return err
	case len(found) > 0:
		return errors.Join(k.entryRights(found[0].DN, subtree), k.deleteRight(found[0].DN, subtree))
	case !may:
		return nil // nothing to try the rest on
	}
	if err := add(); err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) { // left by a check that was cut off
		return err
	}
	return errors.Join(k.entryRights(probe, subtree), k.deleteRight(probe, subtree))
}

// deleteRight tries what Remove does: on a token without doing it, on what the check itself has made in earnest.
func (k *checker) deleteRight(dn, rule string) error {
	var controls []ldap.Control
	if !strings.HasPrefix(dn, "cn="+probeCN) {
		controls = []ldap.Control{ldap.NewControlString(noOp, true, "")}
	}
	may, err := allowed(k.conn.Del(ldap.NewDelRequest(dn, controls)))
	if err == nil && !may {
		k.add(k.identity+" may not delete "+dn+", so tokens that are deleted here stay there without a secret", rule)
	}
	return err
}

func (k *checker) entryRights(dn, subtree string) error {
	secretRule := fmt.Sprintf(`access to attrs=%s by dn.exact="%s" =wc by * none (before the other rules)`, attrSecret, k.identity)
	if may, err := k.mayReplace(dn, attrSecret, ""); err != nil {
		return err
	} else if !may {
		k.add(k.identity+" may not write "+attrSecret, secretRule)
	}
	_, _, err := k.secretIs(dn, secret.Secret{})
	if err != nil {
		k.add(k.identity+" may not compare "+attrSecret+", so nothing written there could be confirmed", secretRule)
	}
	if e, err := k.read(dn, attrCSN); err != nil {
		return err
	} else if e != nil && e.GetAttributeValue(attrCSN) == "" {
		k.add(k.identity+" may not read "+attrCSN+" of "+dn+", so a write that arrives late cannot be told", subtree)
	}
	for _, attr := range []string{attrCounter, attrParams, attrSerial, attrNote} {
		if err := k.attrRights(dn, attr, subtree); err != nil {
			return err
		}
	}
	return nil
}

// peopleRights tries what Assign and Unassign do to a user's entry, on whichever user comes first.
func (k *checker) peopleRights() error {
	base := k.cfg.PeopleBase
	if e, err := k.read(base, "1.1"); err != nil || e == nil {
		return err
	}
	found, err := k.search(base, ldap.ScopeWholeSubtree, "("+k.userAttr+"=*)", 1, "1.1")
	if err != nil {
		return err
	}
	if len(found) == 0 {
		k.add(fmt.Sprintf("%s sees no user below %s: no entry with %s", k.identity, base, k.userAttr),
			"correct people base and user filter, or add: "+k.rule(`dn.subtree="`+base+`" attrs=entry,children,`+k.userAttr, "read"))
		return nil
	}
	rule := k.rule(`dn.subtree="`+base+`" attrs=objectClass,`+attrLink, "write")
	for _, attr := range []string{"objectClass", attrLink} {
		if err := k.attrRights(found[0].DN, attr, rule); err != nil {
			return err
		}
	}
	return nil
}

// attrRights tries writing an attribute, and searching it: an attribute that may be searched makes
// the negation of a comparison true, one that may not leaves it undefined.
func (k *checker) attrRights(dn, attr, rule string) error {
	may, err := k.mayReplace(dn, attr, classUser)
	if err != nil {
		return err
	}
	if !may {
		k.add(k.identity+" may not write "+attr+" of "+dn, rule)
	}
	no := map[string]string{attrCounter: "-7", attrParams: "cn=none", attrLink: "cn=none"}[attr]
	if no == "" {
		no = "none"
	}
	e, err := k.probe(dn, "(!("+attr+"="+no+"))", "1.1")
	if err == nil && e == nil && attr != "objectClass" { // an unknown class name is undefined in itself
		k.add(k.identity+" may not read and search "+attr+" of "+dn, rule)
	}
	return err
}

// mayReplace tries to clear an attribute, or in objectClass to add a value, without doing it.
func (k *checker) mayReplace(dn, attr, class string) (bool, error) {
	m := ldap.NewModifyRequest(dn, []ldap.Control{ldap.NewControlString(noOp, true, "")})
	if attr == "objectClass" {
		m.Add(attr, []string{class})
	} else {
		m.Replace(attr, nil)
	}
	return allowed(k.conn.Modify(m))
}

// allowed reads the answer to a write with the no-op control. Rights are checked first, so that any
// complaint about contents means that they sufficed.
func allowed(err error) (bool, error) {
	switch {
	case err == nil, ldap.IsErrorAnyOf(err, resultNoOp, ldap.LDAPResultAttributeOrValueExists, ldap.LDAPResultObjectClassViolation,
		ldap.LDAPResultEntryAlreadyExists, ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultConstraintViolation):
		return true, nil
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultNoSuchObject):
		return false, nil
	}
	return false, err
}
