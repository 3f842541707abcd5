package openldap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
	syncer "tokendesk/sync"
)

// replicationGrace is how long providers may take to show a change that was made at another one.
const replicationGrace = 1500 * time.Millisecond

// Connector speaks to a directory. It is safe for concurrent use.
type Connector struct {
	cfg        Config
	providers  []*provider // in configured order
	userAttr   string      // the attribute that UserFilter compares with the name
	tokensBase *ldap.DN
	grace      time.Duration
	lookAhead  atomic.Int64 // of the parameters; 0 before a Check has read them
}

// New checks the configuration and connects to nothing.
func New(cfg Config) (*Connector, error) {
	c, err := newConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("cannot use the OpenLDAP configuration: %w", err)
	}
	return c, nil
}

func newConnector(cfg Config) (*Connector, error) {
	cfg.Params, cfg.URLs = maps.Clone(cfg.Params), slices.Clone(cfg.URLs)
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.UserFilter == "" {
		cfg.UserFilter = DefaultUserFilter
	}
	c := &Connector{cfg: cfg, grace: replicationGrace}
	if err := c.setProviders(); err != nil {
		return nil, err
	}
	err := c.cfg.check()
	if err != nil {
		return nil, err
	}
	if c.tokensBase, err = ldap.ParseDN(cfg.TokensBase); err != nil {
		return nil, err
	}
	c.userAttr, err = c.cfg.nameAttr()
	return c, err
}

func (c *Connector) setProviders() error {
	if len(c.cfg.URLs) == 0 {
		return errors.New("no URL is named, for example ldaps://ldap.example.org")
	}
	roots, err := c.cfg.roots()
	if err != nil {
		return err
	}
	for i, url := range c.cfg.URLs {
		e, err := c.cfg.endpoint(url, roots)
		if err != nil && len(c.cfg.URLs) > 1 {
			return fmt.Errorf("provider %d: %w", i+1, err)
		}
		if err != nil {
			return err
		}
		if slices.Contains(c.Providers(), e.name) {
			return fmt.Errorf("%s is named twice", e.name)
		}
		c.providers = append(c.providers, newProvider(c, e))
	}
	if c.cfg.ClientCert != "" && c.cfg.ClientKey != "" {
		_, err = c.cfg.clientCertificate()
	}
	return err
}

// Name implements syncer.Connector.
func (c *Connector) Name() string { return "openldap" }

// Capabilities implements syncer.Connector.
func (c *Connector) Capabilities() syncer.Capabilities {
	return syncer.Capabilities{
		Stores:        syncer.LastCounter,
		LookAhead:     int(c.lookAhead.Load()),
		SetCounter:    syncer.MoveAbsolute,
		CompareAndSet: true,
		FailClosed:    true,
		ReadsBack:     syncer.Facts{Counter: true, Owner: true, Fingerprint: true},
		FindsUsers:    true,
		TokensPerUser: 1, // oathHOTPToken is single-valued
	}
}

// Providers implements syncer.Connector. A provider's name is the host and port of its URL, or its socket.
func (c *Connector) Providers() []string {
	names := make([]string, 0, len(c.providers))
	for _, p := range c.providers {
		names = append(names, p.name)
	}
	return names
}

// Close ends the connections. Later calls fail.
func (c *Connector) Close() error {
	for _, p := range c.providers {
		p.close()
	}
	return nil
}

// Observe implements syncer.Connector. Enabled says that the secret is there; that nobody can use an
// unowned token follows from Owner. A token linked by several users is an error.
func (c *Connector) Observe(ctx context.Context, token device.TokenID) (syncer.Observation, error) {
	s := c.survey(ctx, c.up(), request{token: token, aspects: everything})
	if err := s.refusal(); err != nil {
		return syncer.Observation{}, err
	}
	return c.merge(s.views)
}

// FindUser implements syncer.Connector. Any provider will do.
func (c *Connector) FindUser(ctx context.Context, name string) (found syncer.User, err error) {
	var failed []error
	for _, p := range c.up() {
		err = p.do(ctx, func(s *session) error {
			u, err := s.user(name)
			if err != nil {
				return err
			}
			found = syncer.User{Name: u.name}
			if u.link != "" {
				found.Tokens = []string{c.central(u.link)}
			}
			return nil
		})
		if !errors.Is(err, syncer.ErrUnavailable) || ctx.Err() != nil {
			return found, err
		}
		failed = append(failed, err)
	}
	return found, together(failed)
}
