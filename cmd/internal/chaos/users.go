package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/go-ldap/ldap/v3"

	"tokendesk/device"
)

// login is one try with a real code.
type login struct {
	token    device.TokenID
	user     string
	code     string
	at       int // the server, from 0
	from, to time.Time
	accepted bool
	unknown  bool // the server did not answer, and may have taken it all the same
}

// logIn is users who log in, with fresh codes mostly, and now and then with one that was used before, or with somebody else's.
func (s *stage) logIn(ctx context.Context, r *rand.Rand) {
	for wait(ctx, r, 400*time.Millisecond) {
		k := pick(r, s.keys)
		k.mu.Lock()
		user, code := k.owner, ""
		if len(k.codes) > 0 {
			code, k.codes = k.codes[0], k.codes[1:]
		}
		k.mu.Unlock()
		if r.IntN(8) == 0 {
			user = pick(r, s.users)
		}
		if old, found := s.usedOne(r); found && (code == "" || r.IntN(4) == 0) {
			s.try(old.token, old.user, old.code, r.IntN(2))
		}
		if code != "" && user != "" {
			s.try(k.token(), user, code, r.IntN(2))
		}
	}
}

// usedOne is one of the last logins that was accepted.
func (s *stage) usedOne(r *rand.Rand) (login, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []login
	for i := len(s.logins) - 1; i >= 0 && len(all) < 10; i-- {
		if s.logins[i].accepted {
			all = append(all, s.logins[i])
		}
	}
	if len(all) == 0 {
		return login{}, false
	}
	return pick(r, all), true
}

// try logs a user in, and takes down how that went.
func (s *stage) try(token device.TokenID, user, code string, at int) login {
	l := login{token: token, user: user, code: code, at: at, from: time.Now()}
	err := s.Providers()[at].Login(user, code)
	l.to, l.accepted = time.Now(), err == nil
	l.unknown = err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins = append(s.logins, l)
	return l
}
