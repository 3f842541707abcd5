package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"tokendesk/cmd/internal/localapi"
	"tokendesk/device"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// directory is the connector to an OpenLDAP server. The name under which this desk counts generations there is in the
// vault: before that was open, users can be looked up, and nothing is delivered.
type directory struct {
	config openldap.Config

	mu   sync.Mutex
	now  *openldap.Connector
	desk string
}

// directory returns nil without a central service.
func (d *Daemon) directory() (*directory, error) {
	c := d.Config.Central.OpenLDAP
	if c == nil {
		return nil, nil
	}
	var password secret.Secret
	if c.PasswordFile != "" {
		var err error
		if password, err = secret.ReadFile(c.PasswordFile); err != nil {
			return nil, fmt.Errorf("central.openldap.password_file: %w", err)
		}
	}
	params := map[int]string{}
	for digits, dn := range c.Params {
		n, err := strconv.Atoi(digits)
		if err != nil {
			return nil, fmt.Errorf("central.openldap.params: %w", err)
		}
		params[n] = dn
	}
	config := openldap.Config{
		URLs: c.URLs, StartTLS: c.StartTLS, CAFile: c.CAFile, BindDN: c.BindDN, Password: password,
		ClientCert: c.ClientCert, ClientKey: c.ClientKey,
		PeopleBase: c.PeopleBase, UserFilter: c.UserFilter, TokensBase: c.TokensBase, Params: params,
		Timeout: time.Duration(c.Timeout), MailAttribute: d.mailAttribute(),
	}
	unnamed, err := openldap.New(config)
	if err != nil {
		return nil, err
	}
	return &directory{config: config, now: unnamed}, nil
}

// name names the desk as the vault's audit trail is named: a vault that was restored goes on under the old name.
func (d *directory) name(v *vault.Vault) error {
	var desk string
	err := v.View(func(tx *vault.Tx) error {
		head, err := tx.Head()
		desk = head.Vault
		return err
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if desk == d.desk {
		return nil
	}
	config := d.config
	config.Desk = desk
	named, err := openldap.New(config)
	if err != nil {
		return err
	}
	old := d.now
	d.now, d.desk = named, desk
	return old.Close()
}

func (d *directory) connector() *openldap.Connector {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

// Name implements syncer.Connector.
func (d *directory) Name() string { return d.connector().Name() }

// Capabilities implements syncer.Connector.
func (d *directory) Capabilities() syncer.Capabilities { return d.connector().Capabilities() }

// Providers implements syncer.Connector.
func (d *directory) Providers() []string { return d.connector().Providers() }

// Observe implements syncer.Connector.
func (d *directory) Observe(ctx context.Context, id device.TokenID) (syncer.Observation, error) {
	return d.connector().Observe(ctx, id)
}

// FindUser implements syncer.Connector.
func (d *directory) FindUser(ctx context.Context, name string) (syncer.User, error) {
	return d.connector().FindUser(ctx, name)
}

// Apply implements syncer.Connector. Changes come from an open vault, so that the desk has its name.
func (d *directory) Apply(ctx context.Context, c vault.Change, seed secret.Secret) (syncer.Observation, error) {
	return d.connector().Apply(ctx, c, seed)
}

// Counters implements syncer.Connector.
func (d *directory) Counters(ctx context.Context, provider string, page func([]syncer.Reading) error) error {
	return d.connector().Counters(ctx, provider, page)
}

// Inventory implements syncer.Connector.
func (d *directory) Inventory(ctx context.Context, provider string, page func([]syncer.Entry) error) error {
	return d.connector().Inventory(ctx, provider, page)
}

// Check implements syncer.Connector.
func (d *directory) Check(ctx context.Context) []syncer.Problem { return d.connector().Check(ctx) }

// Close ends the connection.
func (d *directory) Close() error { return d.connector().Close() }

// checkUser refuses users who cannot have the token, as far as inventory, journal and central service know, and
// returns the name as the service spells it. A service that does not answer refuses nobody: the outbox will tell.
func checkUser(ctx context.Context, desk *localapi.Desk, name string) (string, error) {
	if desk.Connector == nil {
		return name, nil
	}
	service, limit := desk.Connector.Name(), desk.Connector.Capabilities().TokensPerUser
	refuse := func(next, format string, args ...any) error {
		return &provision.RefusedError{Reason: fmt.Sprintf(format, args...), Next: next}
	}
	user, err := findUser(ctx, desk, name)
	if err != nil || limit == 0 {
		return user.Name, err
	}
	var owned []vault.Token
	var promised []vault.Job
	err = desk.Vault.View(func(tx *vault.Tx) (err error) {
		for t, err := range tx.AllTokens(vault.Filter{Owner: user.Name, Limit: 100}) {
			if err != nil {
				return err
			}
			if provision.TypeOf(t.ID).Told() {
				owned = append(owned, t)
			}
		}
		promised, err = provision.JobsFor(tx, user.Name)
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(owned) >= limit && !localapi.Sees(ctx, owned[0].Tenant), len(owned)+len(promised) >= limit && !localapi.SeesAll(ctx),
		len(user.Tokens) >= limit && !localapi.SeesAll(ctx):
		return "", refuse("ask an officer of the whole desk", "%s has a token already, and %s takes %d per user", user.Name, service, limit)
	case len(owned) >= limit:
		return "", refuse(fmt.Sprintf("unassign that one first: tokendesk unassign %s", owned[0].ID),
			"%s has %s already, and %s takes %d token per user", user.Name, owned[0].ID, service, limit)
	case len(owned)+len(promised) >= limit:
		return "", refuse(fmt.Sprintf("settle that first: tokendesk resolve %s", promised[0].Token),
			"%s is to get %s by an unfinished %s, and %s takes %d token per user", user.Name, promised[0].Token, promised[0].Kind, service, limit)
	case len(user.Tokens) >= limit:
		return "", refuse("see there, or unassign it here if it is of this desk",
			"%s has %s in %s already, which takes %d token per user", user.Name, user.Tokens[0], service, limit)
	}
	return user.Name, nil
}

// findUser refuses a user whom the central service does not know. If it does not answer, anybody may be one.
func findUser(ctx context.Context, desk *localapi.Desk, name string) (syncer.User, error) {
	if desk.Connector == nil {
		return syncer.User{Name: name}, nil
	}
	user, err := desk.Connector.FindUser(ctx, name)
	switch {
	case errors.Is(err, syncer.ErrRefused):
		return user, &provision.RefusedError{Reason: err.Error()}
	case err != nil:
		desk.Log.Warn("cannot ask the central service about a user; going on", "user", name, "error", err)
		user.Name = name
	}
	return user, nil
}

// centralTokens names the tokens with which a user can log in at the central service. A user whom it does not know has none.
func centralTokens(ctx context.Context, desk *localapi.Desk, user string) (names []string, err error) {
	found, err := desk.Connector.FindUser(ctx, user)
	if errors.Is(err, syncer.ErrRefused) || err == nil && len(found.Tokens) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	view, err := desk.Drift.UserView(ctx, found.Name)
	if err != nil {
		return nil, err
	}
	for _, t := range view.Tokens {
		switch {
		case !slices.Contains(found.Tokens, t.Central):
		case t.Problem != "":
			return nil, fmt.Errorf("%s: %s", t.Central, t.Problem)
		case t.There != nil && t.There.Exists && t.There.Enabled:
			names = append(names, t.Central)
		}
	}
	return names, nil
}
