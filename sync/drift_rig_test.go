package syncer_test

import (
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
	"tokendesk/sync/synctest"
)

// rows are those that differ, by central name.
func (s *site) rows() (map[string]syncer.Row, syncer.Summary) {
	s.Helper()
	rows := map[string]syncer.Row{}
	sum, err := s.d.Rows(s.Context(), false, func(r syncer.Row) error {
		if _, twice := rows[r.Central]; twice || len(r.Differences) == 0 {
			s.Errorf("the row %+v", r)
		}
		rows[r.Central] = r
		return nil
	})
	if err != nil {
		s.Fatal(err)
	}
	return rows, sum
}

// wantDrift compares the kinds of differences that the rows have; each has them at both providers.
func (s *site) wantDrift(want map[string][]syncer.DifferenceKind) {
	s.Helper()
	rows, sum := s.rows()
	if sum.Differ != len(want) || len(rows) != len(want) {
		s.Errorf("%d rows differ, %d were told, want %d: %+v", sum.Differ, len(rows), len(want), rows)
	}
	for central, kinds := range want {
		var got []syncer.DifferenceKind
		for _, x := range rows[central].Differences {
			if !slices.Contains(got, x.Kind) {
				got = append(got, x.Kind)
			}
		}
		if !slices.Equal(got, kinds) {
			s.Errorf("%s differs in %v, want %v: %+v", central, got, kinds, rows[central])
		}
	}
}

func (s *site) wantNoDrift() {
	s.Helper()
	s.once() // logins of a test move counters
	s.drain()
	s.wantDrift(nil)
}

// plan is a repair of everything that differs.
func (s *site) plan(choice syncer.Choice) syncer.Plan {
	s.Helper()
	rows, _ := s.rows()
	var all []syncer.Row
	for _, r := range rows {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b syncer.Row) int { return strings.Compare(a.Central, b.Central) })
	p, err := s.d.Plan(all, choice)
	if err != nil {
		s.Fatal(err)
	}
	return p
}

func (s *site) repair(choice syncer.Choice) syncer.Plan {
	s.Helper()
	p := s.plan(choice)
	done, err := s.d.Repair(s.Context(), officer, p, p.Digest)
	if err != nil || done.Steps != len(p.Steps) {
		s.Fatalf("%+v, %v", done, err)
	}
	s.drain()
	return p
}

// wantDone compares what a plan does about a token.
func (s *site) wantDone(p syncer.Plan, id device.TokenID, do string) {
	s.Helper()
	for _, x := range p.Steps {
		if x.Token == id {
			if x.Do != do || x.Why == "" {
				s.Errorf("%s: to be done is %q because %q, want %q", id, x.Do, x.Why, do)
			}
			return
		}
	}
	s.Errorf("the plan has no step for %s: %+v", id, p)
}

func (s *site) wantSkipped(p syncer.Plan, central, why string) {
	s.Helper()
	for _, x := range p.Skipped {
		if x.Central == central {
			if !strings.Contains(x.Why, why) {
				s.Errorf("%s is skipped because %q, want %q", central, x.Why, why)
			}
			return
		}
	}
	s.Errorf("the plan does not skip %s: %+v", central, p)
}

// What an administrator does in the server's own tools.
func (s *site) adminUnlinks(user string) {
	s.Helper()
	s.admin(1, synctest.UserDN(user), func(m *ldap.ModifyRequest) { m.Delete("oathHOTPToken", nil) })
}

func (s *site) adminLinks(user string, id device.TokenID) {
	s.Helper()
	s.adminLinksTo(user, id.Central())
}

func (s *site) adminLinksTo(user, central string) {
	s.Helper()
	s.admin(1, synctest.UserDN(user), func(m *ldap.ModifyRequest) {
		m.Replace("objectClass", []string{"inetOrgPerson", "oathHOTPUser"})
		m.Replace("oathHOTPToken", []string{"cn=" + central + "," + synctest.TokensBase})
	})
}

func (s *site) adminTakesSecret(id device.TokenID) {
	s.Helper()
	s.admin(1, tokenDN(id), func(m *ldap.ModifyRequest) { m.Delete("oathSecret", nil) })
}

func (s *site) adminPutsSecret(id device.TokenID) {
	s.Helper()
	s.admin(1, tokenDN(id), func(m *ldap.ModifyRequest) { m.Replace("oathSecret", []string{"12345678901234567890"}) })
}

func (s *site) adminRemoves(id device.TokenID) {
	s.Helper()
	if err := s.pair.Providers[0].AsAdmin(func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(tokenDN(id), nil)) }); err != nil {
		s.Fatal(err)
	}
	s.settled()
}

func (s *site) adminDescribes(id device.TokenID, note string) {
	s.Helper()
	s.admin(1, tokenDN(id), func(m *ldap.ModifyRequest) { m.Replace("description", []string{note}) })
}
