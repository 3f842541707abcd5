package main

import (
	"context"
	"errors"
	"fmt"

	"tokendesk/cmd/internal/api"
	"tokendesk/sync/hotpscan"
	"tokendesk/vault/secret"
)

const (
	fobToken = "/v1/tokens/fob-1/token"
	fobSeed  = "3132333435363738393031323334353637383930" // RFC 4226, appendix D, in hexadecimal
)

// withFob: the stock has a fob, which has come with its seed.
func withFob(ctx context.Context, s *stage) error {
	table := secret.New([]byte("serial,seed\n1," + fobSeed + "\n"))
	defer table.Wipe()
	var in api.Imported
	err := s.Client.PostSecret(ctx, "/v1/import", api.Import{}, &in, table)
	if err == nil && (len(in.Lines) != 1 || in.Lines[0].Error != "") {
		err = fmt.Errorf("the fob was not taken in: %+v", in)
	}
	s.user = "alice"
	return err
}

// fobCodes are the next codes that the fob shows.
func (s *stage) fobCodes(n int) (codes []string) {
	seed := secret.New([]byte("12345678901234567890"))
	defer seed.Wipe()
	for range n {
		codes = append(codes, hotpscan.Code(seed, 6, s.shown))
		s.shown++
	}
	return codes
}

func (s *stage) fob(ctx context.Context) (t api.Token, err error) {
	err = s.Client.Get(ctx, fobToken, nil, &t)
	return t, err
}

// fobOwned: somebody has it, and it is to go to somebody else.
func fobOwned(ctx context.Context, s *stage) error {
	t, err := s.fob(ctx)
	if err != nil {
		return err
	}
	if t.Owner == "" {
		o := api.Order{Tokens: []string{t.ID}, User: s.user}
		if err := s.Client.Post(ctx, "/v1/tokens/actions/assign", o, new(api.Outcomes)); err != nil {
			return err
		}
	}
	s.user = other(s.user)
	return nil
}

func giveFob(ctx context.Context, s *stage) error {
	_, err := s.work(ctx, fobToken+"/reissue", api.Reissue{User: s.user, Codes: s.fobCodes(2)})
	return err
}

// fobGiven: the fob is the old owner's, or the new one's, if need be after two more codes. Codes that were used are worth nothing.
func fobGiven(ctx context.Context, s *stage, acted bool) error {
	t, err := s.fob(ctx)
	switch {
	case err != nil:
		return err
	case acted && (t.Owner != s.user || t.Unfinished != ""):
		return fmt.Errorf("a reissue that was reported is not there: %+v", t)
	case t.Unfinished != "" && t.Owner != "":
		return fmt.Errorf("it is unfinished, and %s has it: %+v", t.Owner, t)
	case t.Unfinished != "":
		if err := s.resolveFob(ctx, t); err != nil {
			return err
		}
	case t.Owner != s.user: // nothing of it had begun
		s.user = t.Owner
	}
	if t, err = s.fob(ctx); err != nil || t.Owner != s.user || t.Status != "active" || t.Unfinished != "" || t.Generation != 1 {
		return fmt.Errorf("the fob is %+v: %w", t, err)
	}
	codes := s.fobCodes(3)
	if _, err := s.work(ctx, fobToken+"/resync", api.Codes{Codes: codes[:2]}); err != nil {
		return fmt.Errorf("codes of the fob do not fit: %w", err)
	}
	if _, err := s.work(ctx, fobToken+"/resync", api.Codes{Codes: codes[:2]}); err == nil {
		return errors.New("codes that were used count again")
	}
	_, err = s.work(ctx, fobToken+"/test", api.Codes{Codes: codes[2:]})
	return err
}

// resolveFob goes on with codes, which is possible only once the cut-off is through.
func (s *stage) resolveFob(ctx context.Context, t api.Token) error {
	_, err := s.work(ctx, fobToken+"/resolve", api.Resolve{})
	if known := (*api.Error)(nil); !errors.As(err, &known) || known.Code != api.Unfinished {
		return fmt.Errorf("%q goes on without codes: %w", t.Unfinished, err)
	}
	if _, err := s.work(ctx, fobToken+"/resolve", api.Resolve{Codes: s.fobCodes(2)}); err != nil {
		return fmt.Errorf("cannot settle %q: %w", t.Unfinished, err)
	}
	return nil
}
