package daemon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"tokendesk/cmd/internal/localapi"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/sync/openldap"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

func (d *Daemon) connector(desk string) (*openldap.Connector, error) {
	c := d.Config.Central.OpenLDAP
	if c == nil {
		return nil, nil
	}
	password, err := secret.ReadFile(c.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("central.openldap.password_file: %w", err)
	}
	params := map[int]string{}
	for digits, dn := range c.Params {
		n, err := strconv.Atoi(digits)
		if err != nil {
			return nil, fmt.Errorf("central.openldap.params: %w", err)
		}
		params[n] = dn
	}
	return openldap.New(openldap.Config{
		Desk: desk, URL: c.URL, StartTLS: c.StartTLS, CAFile: c.CAFile, BindDN: c.BindDN, Password: password,
		PeopleBase: c.PeopleBase, UserFilter: c.UserFilter, TokensBase: c.TokensBase, Params: params,
		Timeout: time.Duration(c.Timeout),
	})
}

// checkUser refuses users who cannot have the token, as far as inventory, journal and central service know, and
// returns the name as the service spells it. A service that does not answer refuses nobody: the outbox will tell.
func checkUser(ctx context.Context, desk *localapi.Desk, name string) (string, error) {
	if desk.Connector == nil {
		return name, nil
	}
	service, limit := desk.Connector.Name(), desk.Connector.TokensPerUser()
	refuse := func(next, format string, args ...any) error {
		return &provision.RefusedError{Reason: fmt.Sprintf(format, args...), Next: next}
	}
	user, err := desk.Connector.FindUser(ctx, name)
	switch {
	case errors.Is(err, syncer.ErrRefused):
		return "", &provision.RefusedError{Reason: err.Error()}
	case err != nil:
		desk.Log.Warn("cannot ask the central service about a user; going on", "user", name, "error", err)
		user.Name = name
	}
	if limit == 0 {
		return user.Name, nil
	}
	var owned []vault.Token
	var promised []vault.Job
	err = desk.Vault.View(func(tx *vault.Tx) (err error) {
		if owned, err = tx.Tokens(vault.Filter{Owner: user.Name}); err != nil {
			return err
		}
		promised, err = provision.JobsFor(tx, user.Name)
		return err
	})
	switch {
	case err != nil:
		return "", err
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
