package openldap

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
)

const (
	// noOp makes the server check a write in full, rights included, and then not do it
	// (draft-zeilenga-ldap-noop; OpenLDAP answers resultNoOperation). It is sent as critical, so a server
	// that does not know it refuses instead of writing.
	noOp       = "1.3.6.1.4.1.4203.666.5.2"
	resultNoOp = 0x410e
	// sha1OID is id-hmacWithSHA1, what YubiKeys compute (RFC 4226; RFC 8018 appendix B.1.1).
	sha1OID = "1.2.840.113549.2.7"
	probeCN = "tokendesk-check"
)

// Check implements syncer.Connector. It writes nothing that lasts: rights are tried with writes that
// the server is told not to do; only in a tree without any token one empty entry is made and removed.
func (c *Connector) Check(ctx context.Context) []syncer.Problem {
	all := make([]*checker, len(c.providers))
	c.each(c.providers, func(i int, p *provider) {
		all[i] = &checker{known: known{name: p.name}}
		err := p.apart(ctx, func(s *session) error {
			all[i].session = s
			return all[i].run(ctx)
		})
		if err != nil {
			all[i].add(err.Error(), "start the server, or correct the URL, CA file, bind DN or password in the configuration")
		}
	})
	var problems []syncer.Problem
	var told []known
	for _, k := range all {
		for _, p := range k.problems {
			if len(all) > 1 && !strings.Contains(p.What, k.name) {
				p.What = k.name + ": " + p.What
			}
			problems = append(problems, p)
		}
		told = append(told, k.known)
	}
	c.learnLookAhead(told)
	return append(append(problems, differences(told)...), c.replication(ctx, told)...)
}

type checker struct {
	*session
	known
	problems []syncer.Problem
}

func (k *checker) add(what, cure string) {
	k.problems = append(k.problems, syncer.Problem{What: what, Cure: cure})
}

// run returns an error only if the server stopped answering.
func (k *checker) run(ctx context.Context) error {
	for _, step := range []func() error{k.schema, k.bases, k.params, k.overlay, k.tokenRights, k.peopleRights, k.mailRight, k.limits, k.lastWrites} {
		if err := step(); err != nil && !isAnswer(err) {
			return k.unavailable(err)
		} else if err != nil {
			k.add("the server answers a check with "+codeName(err), "look into the server's log")
		}
	}
	return ctx.Err()
}

func (k *checker) schema() error {
	root, err := k.read("", "subschemaSubentry")
	if err != nil || root == nil {
		return err
	}
	sub, err := k.read(root.GetAttributeValue("subschemaSubentry"), "objectClasses")
	if err != nil || sub == nil {
		return err
	}
	for _, class := range sub.GetAttributeValues("objectClasses") {
		if strings.Contains(class, "'"+classToken+"'") {
			return nil
		}
	}
	k.add("the server does not know the OATH schema", "load the overlay's module, which brings it: moduleload otp.la")
	return nil
}

func (k *checker) bases() error {
	for _, base := range []string{k.cfg.PeopleBase, k.cfg.TokensBase} {
		e, err := k.read(base, "1.1")
		if err != nil {
			return err
		}
		if e == nil {
			k.add("there is no "+base+", or "+k.identity+" may not read it",
				"create it (objectClass: organizationalUnit), correct the configuration, or add: "+k.rule(`dn.base="`+base+`"`, "read"))
		}
	}
	return nil
}

func (k *checker) params() error {
	for _, digits := range slices.Sorted(maps.Keys(k.cfg.Params)) {
		dn := k.cfg.Params[digits]
		e, err := k.read(dn, "oathOTPLength", "oathHMACAlgorithm", "oathHOTPLookAhead")
		switch {
		case err != nil:
			return err
		case e == nil:
			k.add("there is no "+dn+", or "+k.identity+" may not read it", fmt.Sprintf("create it with objectClass device and oathHOTPParams, oathOTPLength: %d, oathHMACAlgorithm: %s, oathHOTPLookAhead: 10", digits, sha1OID))
			continue
		}
		k.note(digits, e)
		if v := e.GetAttributeValue("oathOTPLength"); v != strconv.Itoa(digits) {
			k.add(fmt.Sprintf("%s is configured for %d digits and has oathOTPLength %q", dn, digits, v), fmt.Sprintf("set oathOTPLength to %d, or name another entry", digits))
		}
		if v := e.GetAttributeValue("oathHMACAlgorithm"); v != sha1OID {
			k.add(fmt.Sprintf("%s has oathHMACAlgorithm %q, and the tokens compute HMAC-SHA-1", dn, v), "set oathHMACAlgorithm to "+sha1OID)
		}
		if v, err := strconv.Atoi(e.GetAttributeValue("oathHOTPLookAhead")); err != nil || v < 1 {
			k.add(dn+" has no oathHOTPLookAhead: one unused touch puts a token out of step", "set oathHOTPLookAhead, for example to 10")
		}
	}
	return nil
}

// overlay looks into cn=config, which most bind identities may not read: then nothing is said.
func (k *checker) overlay() error {
	databases, err := k.search("cn=config", ldap.ScopeWholeSubtree, "(objectClass=olcDatabaseConfig)", 0, "olcSuffix")
	if err != nil || len(databases) == 0 {
		return ignoreAnswer(err)
	}
	suffix := ""
	for _, db := range databases {
		for _, v := range db.GetAttributeValues("olcSuffix") {
			if at, err := ldap.ParseDN(v); err == nil && len(at.RDNs) > 0 && under(k.cfg.PeopleBase, at) {
				suffix = db.DN
			}
		}
	}
	if suffix == "" {
		return nil
	}
	found, err := k.search(suffix, ldap.ScopeSingleLevel, "(objectClass=olcOverlayConfig)", 0, "olcOverlay")
	if err != nil {
		return ignoreAnswer(err)
	}
	for _, o := range found {
		if v := o.GetAttributeValue("olcOverlay"); v[strings.Index(v, "}")+1:] == "otp" { // "{0}otp"
			return nil
		}
	}
	k.add("the OTP overlay does not run on "+suffix+": codes are not checked at all", "add the overlay to that database: overlay otp")
	return nil
}

func ignoreAnswer(err error) error {
	if err != nil && isAnswer(err) {
		return nil
	}
	return err
}

func under(dn string, base *ldap.DN) bool {
	d, err := ldap.ParseDN(dn)
	return err == nil && (base.EqualFold(d) || base.AncestorOfFold(d))
}

// rule is the access line that gives the bind identity a right.
func (s *session) rule(to, level string) string {
	return fmt.Sprintf(`access to %s by dn.exact="%s" %s by * break`, to, s.identity, level)
}
