package synctest

import (
	"context"
	"errors"
	"slices"
	"time"
)

// settleTimeout bounds how long replication may take.
const settleTimeout = 20 * time.Second

// Service is the central service behind a connector, as others than the desk use it. Its providers are counted from 0, in the
// order of the connector's Providers. What a service can only be judged by if it keeps a log is Logged.
type Service interface {
	// Providers is how many there are.
	Providers() int
	// LoginAt tries to log a user in at one provider with the password and a code; an empty code is the bare password.
	LoginAt(provider int, user, code string) error
	// Stored is a token's counter as that provider keeps it; -1 if it keeps none.
	Stored(provider int, central string) (int64, error)
	// Crowd adds n tokens that another tool put there, and names them.
	Crowd(n int) ([]string, error)
	// Move puts a user where the connector does not look, without taking anything from them.
	Move(user string) error
	// BeforeWrite runs f once, just before the next write of the connector reaches the service. It is an error if
	// nobody stands there.
	BeforeWrite(f func()) error
	// Settle waits until no replication is outstanding.
	Settle(ctx context.Context) error
}

// Logged is a Service that can tell what was written.
type Logged interface {
	// Writes is what the connector has written, at any provider.
	Writes() ([]Write, error)
	// Lowered is what has made used codes count again at a provider, by whomever it was written: by replication too.
	Lowered() ([]Write, error)
}

// Front stands between the connector and a provider: a Gate or a Flaky.
type Front interface {
	BeforeWrite(f func())
}

// Directory is the Service of one Slapd or of a Pair.
type Directory struct {
	providers []*Slapd
	fronts    []Front
	settle    func(context.Context) error
}

// Service has the server judge a connector. The front is what the connector connects to; without one, nothing can be
// made to happen before a write.
func (s *Slapd) Service(front ...Front) *Directory {
	return &Directory{[]*Slapd{s}, front, func(context.Context) error { return nil }}
}

// Service has the pair judge a connector, as Slapd.Service does.
func (p *Pair) Service(fronts ...Front) *Directory {
	return &Directory{p.Providers[:], fronts, p.AwaitSync}
}

// Providers implements Service.
func (d *Directory) Providers() int { return len(d.providers) }

// LoginAt implements Service.
func (d *Directory) LoginAt(provider int, user, code string) error {
	return d.providers[provider].Login(user, code)
}

// Stored implements Service.
func (d *Directory) Stored(provider int, central string) (int64, error) {
	return d.providers[provider].Stored(central)
}

// Crowd implements Service.
func (d *Directory) Crowd(n int) ([]string, error) {
	all, err := d.providers[0].Crowd(n)
	return all, errors.Join(err, d.settled())
}

// Move implements Service.
func (d *Directory) Move(user string) error {
	return errors.Join(d.providers[0].Move(user), d.settled())
}

// BeforeWrite implements Service. With several fronts it is whichever is written through first.
func (d *Directory) BeforeWrite(f func()) error {
	if len(d.fronts) == 0 {
		return errors.New("nothing stands between connector and server: give Service a Gate")
	}
	once := make(chan struct{}, 1)
	once <- struct{}{}
	for _, front := range d.fronts {
		front.BeforeWrite(func() {
			select {
			case <-once:
				f()
			default:
			}
		})
	}
	return nil
}

// Settle implements Service.
func (d *Directory) Settle(ctx context.Context) error { return d.settle(ctx) }

// Writes implements Logged.
func (d *Directory) Writes() (all []Write, err error) {
	for _, s := range d.providers {
		w, err := s.Writes(s.BindDN)
		if err != nil {
			return nil, err
		}
		all = append(all, w...)
	}
	return all, nil
}

// Lowered implements Logged.
func (d *Directory) Lowered() (all []Write, err error) {
	for _, s := range d.providers {
		w, err := s.Writes("")
		if err != nil {
			return nil, err
		}
		all = append(all, slices.DeleteFunc(w, func(w Write) bool { return !w.Lowers() })...)
	}
	return all, nil
}

func (d *Directory) settled() error {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	return d.settle(ctx)
}
