package synctest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Peer is what a server needs to replicate another one.
type Peer struct {
	ServerID int    // of the server itself
	Address  string // where the other one can be reached
	DN       string // the replicas' identity, which reads everything
	Password string
}

// Pair are two servers that replicate each other (multi-provider syncrepl, refreshAndPersist). What is configured for one
// of them fits the other: identities, passwords, CA and contents are the same.
type Pair struct {
	Providers [2]*Slapd
	links     [2]*relay // the line by which Providers[i] reads from the other; nil in a network
	network   *Network
}

// StartPair fills dir, which must exist and be empty, and starts both servers; it returns when they hold the same.
func StartPair(dir string) (*Pair, error) { return startPair(&Pair{}, dir) }

func startPair(p *Pair, dir string) (*Pair, error) {
	if err := p.start(dir); err != nil {
		p.Stop()
		return nil, fmt.Errorf("cannot start two slapds in %s: %w", dir, err)
	}
	return p, nil
}

func (p *Pair) start(dir string) error {
	password := rand.Text()
	for i := range p.Providers {
		sub := filepath.Join(dir, fmt.Sprint(i+1))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return err
		}
		var err error
		if p.Providers[i], err = prepare(sub, p.Providers[0]); err != nil {
			return err
		}
	}
	for i, s := range p.Providers {
		address, err := p.join(i)
		if err != nil {
			return err
		}
		s.Peer = &Peer{ServerID: i + 1, Address: address, DN: "cn=replica," + BaseDN, Password: password}
		if err := s.configure(); err != nil {
			return err
		}
	}
	if err := p.Providers[0].fill(); err != nil {
		return err
	}
	for _, s := range p.Providers {
		if err := s.startSomewhere(); err != nil {
			return err
		}
	}
	p.Heal() // a server that found the other one missing would wait a second before it tried again
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return p.AwaitSync(ctx)
}

// join makes the line by which a server reads from the other one.
func (p *Pair) join(i int) (address string, err error) {
	if p.network != nil {
		p.Providers[i].site = p.network.site(i)
		return p.Providers[i].site.peer, nil
	}
	other := p.Providers[1-i]
	if p.links[i], err = newRelay(func() string { return host(other.URL) }); err != nil {
		return "", err
	}
	return p.links[i].addr, nil
}

// Stop ends both servers and keeps the data. It may be called again.
func (p *Pair) Stop() {
	for _, s := range p.Providers {
		if s != nil {
			s.Stop()
		}
	}
	for _, l := range p.links {
		if l != nil {
			l.Close()
		}
	}
}

// Cut breaks the line between the two, and nobody else's. In a Network use its Down.
func (p *Pair) Cut(kind CutKind) {
	for _, l := range p.links {
		if l != nil {
			l.sever(kind)
		}
	}
}

// Heal ends Cut. After Reset it takes the servers up to a second to try again.
func (p *Pair) Heal() {
	for _, l := range p.links {
		if l != nil {
			l.heal()
		}
	}
}

// AwaitSync waits until both servers have seen the same changes: their contextCSN are equal. A login's move of a counter
// is no such change to OpenLDAP 2.5, which is why it is not replicated.
func (p *Pair) AwaitSync(ctx context.Context) error {
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		var seen [2][]string
		var failed error
		for i, s := range p.Providers {
			var err error
			seen[i], err = s.contextCSN()
			failed = errors.Join(failed, err)
		}
		if failed == nil && len(seen[0]) > 0 && slices.Equal(seen[0], seen[1]) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the two do not agree (%v, %v): %w", seen[0], seen[1], errors.Join(failed, ctx.Err()))
		case <-retry.C:
		}
	}
}

// contextCSN is the last change from every provider that the server has seen, sorted.
func (s *Slapd) contextCSN() (all []string, err error) {
	err = s.AsAdmin(func(c *ldap.Conn) error {
		r, err := c.Search(ldap.NewSearchRequest(BaseDN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
			"(objectClass=*)", []string{"contextCSN"}, nil))
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
			return nil // not replicated yet
		}
		if err == nil && len(r.Entries) == 1 {
			all = r.Entries[0].GetAttributeValues("contextCSN")
			slices.Sort(all)
		}
		return err
	})
	return all, err
}
