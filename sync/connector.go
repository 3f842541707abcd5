package syncer

import (
	"context"
	"errors"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
)

// Conditions that the outbox tells apart. A connector wraps them in what it knows; everything else
// counts as ErrUnavailable does: tried again later.
var (
	// ErrUnavailable: the service cannot be reached or is busy. Tried again, with backoff.
	ErrUnavailable = errors.New("the central service is not available")
	// ErrRefused: the service answered and will keep refusing until somebody changes something
	// (no such user, insufficient access, user already has another token). The entry is parked.
	ErrRefused = errors.New("the central service refuses the change")
	// ErrNotConfirmed: what was read back is not what was written. Tried again.
	ErrNotConfirmed = errors.New("the central service does not show the change")
	// ErrRemains, together with one of the first two, is about a Remove of which the part that matters is done and confirmed: nobody
	// can log in with the token, wherever it is and whoever returns. Only its entry is still somewhere. The change stays, and
	// holds back nobody's assignment any more.
	ErrRemains = errors.New("nobody can log in with the token any more, but it is not removed yet")
)

// Observation is what the central service holds for one token, as all of its providers that could be asked have it
// together. Counter is the next moving factor, whatever the server itself stores: the highest of them.
type Observation struct {
	Exists  bool
	Counter uint64
	Owner   string // the user whose login takes this token's codes; empty for stock
	Enabled bool   // its secret is there: codes of it can be accepted somewhere, once it has an owner
}

// Reading is what one provider tells of a token that it has, without being asked for that one.
type Reading struct {
	Central    string    // the token's central name
	Counter    uint64    // the next moving factor
	Ours       bool      // the seed was put there by this desk
	Generation int       // of the seed; 0 if nothing tells
	LastUsed   time.Time // zero if the service does not tell
}

// Entry is a Reading and whose the token is.
type Entry struct {
	Reading
	Owner   string // as in Observation
	Enabled bool
}

// Connector speaks to one central service, which may consist of several providers that replicate each other. Its methods
// are idempotent and safe for concurrent use.
type Connector interface {
	// Name is a short word for messages: "openldap".
	Name() string
	// Capabilities says what the service can do, and how.
	Capabilities() Capabilities
	// Providers names the service's servers, one or more, as an officer knows them.
	Providers() []string
	// Observe reads a token's state at every provider that can be reached. An unknown token is not an error; that no
	// provider can be reached is.
	Observe(ctx context.Context, token device.TokenID) (Observation, error)
	// FindUser looks a user up; ErrRefused if there is none of that name, or several.
	FindUser(ctx context.Context, name string) (User, error)
	// Apply makes a change, reads it back at every provider that can be reached and returns what it saw.
	//
	// For Put, Assign and Enable, seed is that of c.Generation if codes of the token may be accepted; a zero one
	// says that they may not, and afterwards they are not, whatever was there before. None of the three is made while
	// somebody else than c.User has the token there (ErrRefused). An Advance comes with the seed as well, and must not close
	// the token at a provider that has missed an opening. Unassign, Disable and Remove leave no
	// way to log in with the token, also for users that the connector cannot see.
	//
	// After Remove the token is gone, whosever seed it had, and so are the links of users to it; one that is not there is removed
	// already. Its name is free: a Put with a higher generation begins anew. Where a provider that is left out could bring the
	// token back, it is not removed but closed for good, until all can be reached (ErrRemains); a Put may come before that.
	//
	// For one seed the counter never goes down: the result is the maximum of c.Counter and what any provider
	// has. Where another seed is there, secret and counter are replaced together. What is there already is not written
	// again.
	Apply(ctx context.Context, c vault.Change, seed secret.Secret) (Observation, error)
	// Counters reads all tokens of one provider, page by page, in no particular order. It costs as little as can be.
	Counters(ctx context.Context, provider string, page func([]Reading) error) error
	// Inventory reads all tokens of one provider with their owners, page by page, in no particular order.
	Inventory(ctx context.Context, provider string, page func([]Entry) error) error
	// Check names everything that would keep the connector from working, with its cure.
	Check(ctx context.Context) []Problem
}

// User is a user of the central service.
type User struct {
	Name   string   // as the service spells it
	Tokens []string // the central names of the tokens that the user's login takes
}

// Problem is one broken prerequisite and its cure.
type Problem struct {
	What string `json:"what"`
	Cure string `json:"cure"`
}
