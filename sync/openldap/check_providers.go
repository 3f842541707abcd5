package openldap

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	syncer "tokendesk/sync"
)

// clockSkew is how far a provider's clock may be ahead. Of two writes the later one survives replication.
const clockSkew = time.Minute

// known is what a check found out about a provider that is to be compared with the others.
type known struct {
	name   string
	params map[string]string // settings of the parameter entries, by their names
	suffix string            // of the database that holds the tokens; empty if it is not told
	writes map[string]string // contextCSN by server ID: the last write of each provider that has arrived here
}

// note keeps the settings of a parameter entry.
func (k *checker) note(digits int, e *ldap.Entry) {
	if k.known.params == nil {
		k.known.params = make(map[string]string)
	}
	for _, attr := range []string{"oathOTPLength", "oathHMACAlgorithm", "oathHOTPLookAhead"} {
		k.known.params[fmt.Sprintf("%s of %s", attr, k.cfg.Params[digits])] = e.GetAttributeValue(attr)
	}
}

// limits tries to read everything, as a refresh does.
func (k *checker) limits() error {
	root, err := k.read("", "supportedControl", "namingContexts")
	if err != nil || root == nil {
		return err
	}
	k.suffix = k.suffixOf(root.GetAttributeValues("namingContexts"))
	if !slices.Contains(root.GetAttributeValues("supportedControl"), ldap.ControlTypePaging) {
		k.add("the server does not know paged searches (RFC 2696)", "use OpenLDAP 2.5 or later")
		return nil
	}
	none := func([]*ldap.Entry) error { return nil }
	err = k.rawPages(k.cfg.TokensBase, ldap.ScopeSingleLevel, tokenFilter, none, "1.1")
	if err == nil {
		err = k.rawPages(k.cfg.PeopleBase, ldap.ScopeWholeSubtree, "("+attrLink+"=*)", none, "1.1")
	}
	switch {
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultSizeLimitExceeded, ldap.LDAPResultAdminLimitExceeded, ldap.LDAPResultTimeLimitExceeded):
		k.add(k.identity+" may not read all tokens, not even page by page: "+codeName(err), k.limit())
		return nil
	case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
		return nil // said already
	}
	return err
}

// suffixOf is the naming context that the tokens are in.
func (c *Connector) suffixOf(contexts []string) string {
	for _, suffix := range contexts {
		if dn, err := ldap.ParseDN(suffix); err == nil && (dn.EqualFold(c.tokensBase) || dn.AncestorOfFold(c.tokensBase)) {
			return suffix
		}
	}
	return ""
}

// lastWrites reads contextCSN, if it may.
func (k *checker) lastWrites() (err error) {
	if k.suffix != "" && len(k.providers) > 1 {
		k.writes, err = k.contextCSN(k.suffix)
	}
	return err
}

func (s *session) contextCSN(suffix string) (map[string]string, error) {
	e, err := s.read(suffix, "contextCSN")
	if err != nil || e == nil {
		return nil, err
	}
	return parseContextCSN(e.GetAttributeValues("contextCSN")), nil
}

// parseContextCSN sorts values such as 20261122030405.123456Z#000000#001#000000 by the server ID, the third part.
func parseContextCSN(values []string) map[string]string {
	last := make(map[string]string)
	for _, v := range values {
		if parts := strings.Split(v, "#"); len(parts) == 4 {
			last[parts[2]] = max(last[parts[2]], v)
		}
	}
	return last
}

// differences are settings that are not the same at all providers.
func differences(all []known) (problems []syncer.Problem) {
	for _, other := range all[1:] {
		for _, setting := range slices.Sorted(maps.Keys(other.params)) {
			first, there := all[0].params[setting]
			if value := other.params[setting]; there && value != first {
				problems = append(problems, syncer.Problem{
					What: fmt.Sprintf("%s is %q at %s and %q at %s: a code can count at one and not at the other", setting, first, all[0].name, value, other.name),
					Cure: "set it to the same at both, and see why it is not replicated",
				})
			}
		}
	}
	return problems
}

// learnLookAhead takes the least look-ahead of all parameters.
func (c *Connector) learnLookAhead(all []known) {
	least := int64(0)
	for _, k := range all {
		for setting, value := range k.params {
			n, err := strconv.ParseInt(value, 10, 32)
			if err == nil && n > 0 && strings.HasPrefix(setting, "oathHOTPLookAhead ") && (least == 0 || n < least) {
				least = n
			}
		}
	}
	if least > 0 {
		c.lookAhead.Store(least)
	}
}

// replication tells whether what was written at one provider arrives at the others. Where contextCSN cannot be read
// nothing is said. The writes of the check itself are among those waited for.
func (c *Connector) replication(ctx context.Context, all []known) (problems []syncer.Problem) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.grace)
	defer cancel()
	for i, k := range all {
		for _, csn := range k.writes {
			at, err := time.Parse("20060102150405.999999Z", strings.SplitN(csn, "#", 2)[0])
			if ahead := time.Until(at); err == nil && ahead > clockSkew {
				problems = append(problems, syncer.Problem{
					What: fmt.Sprintf("%s has a write from %s in the future: a clock is wrong, and of two writes replication keeps the one that seems later", k.name, ahead.Round(time.Second)),
					Cure: "set the clocks, here and there (NTP)",
				})
				break
			}
		}
		for j, from := range all {
			if i == j || len(k.writes) == 0 || len(from.writes) == 0 || c.arrives(ctx, c.providers[i], k.suffix, from.writes) {
				continue
			}
			problems = append(problems, syncer.Problem{
				What: fmt.Sprintf("%s has not received what %s has: they do not replicate, so a cut-off made while one is down would not reach it", k.name, from.name),
				Cure: "look at syncrepl of " + k.name + " and at its log",
			})
		}
	}
	return problems
}

// arrives waits until a provider has all writes that another one had.
func (c *Connector) arrives(ctx context.Context, at *provider, suffix string, want map[string]string) bool {
	tick := time.NewTicker(lastPoll)
	defer tick.Stop()
	for {
		var have map[string]string
		err := at.do(ctx, func(s *session) (err error) {
			have, err = s.contextCSN(suffix)
			return err
		})
		behind := slices.ContainsFunc(slices.Collect(maps.Keys(want)), func(id string) bool { return have[id] < want[id] })
		if err == nil && !behind {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}
