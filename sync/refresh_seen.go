package syncer

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"tokendesk/device"
)

// Rollback is one provider's having gone back: codes of the counters From had passed and To has not were accepted there once
// more, from LastGood at the earliest until Repaired.
type Rollback struct {
	Token    device.TokenID `json:"token"`
	Provider string         `json:"provider"`
	From     uint64         `json:"from"`              // the next moving factor that the provider had shown
	To       uint64         `json:"to"`                // the lowest that it showed afterwards
	LastGood time.Time      `json:"last_good"`         // when it is known to have shown From
	Noticed  time.Time      `json:"noticed"`           // when it showed less
	Repaired time.Time      `json:"repaired,omitzero"` // when it showed From again, or the seed was another one; zero: not yet
}

// rollbackKept is how long a repaired rollback stays in its token's record. It is dropped with the next write.
const rollbackKept = 30 * 24 * time.Hour

// seen is what providers showed of a token's seed generation, as vault.Token.Seen keeps it. For 100,000 tokens there is not
// room for much, so each provider has a key of some letters, and times are rounded. The text is
//
//	2 kA3f.7s.tq0ji8 Xq2b.7s.tq0ji8 !kA3f.7s.5.tq0ji8.tq1000.0
//
// the generation, for each provider its key, its counter and when it was first seen there, and for each rollback its
// provider, From, To and its three times. Numbers but the generation have base 36, times are seconds of Unix.
type seen struct {
	generation int
	at         []sighting
	rollbacks  []sighted
}

type sighting struct {
	provider string // its key
	counter  uint64
	since    time.Time
}

// sighted is a Rollback whose token is known from where it stands.
type sighted struct {
	provider                    string // its key
	from, to                    uint64
	lastGood, noticed, repaired time.Time
}

// providerKeys gives each provider a short key that depends on its name alone, unless two would have the same.
func providerKeys(providers []string) map[string]string {
	for n := 4; ; n++ {
		keys, taken := map[string]string{}, map[string]bool{}
		for _, p := range providers {
			sum := sha256.Sum256([]byte(p))
			k := base64.RawURLEncoding.EncodeToString(sum[:])[:n]
			keys[p], taken[k] = k, true
		}
		if len(taken) == len(keys) {
			return keys
		}
	}
}

// parseSeen reads what encode has written. What it does not understand, as from a later version, it takes for not seen.
func parseSeen(text string) seen {
	var s seen
	fields := strings.Fields(text)
	if len(fields) == 0 {
		return s
	}
	var err error
	if s.generation, err = strconv.Atoi(fields[0]); err != nil {
		return seen{}
	}
	for _, f := range fields[1:] {
		f, back := strings.CutPrefix(f, "!")
		parts := strings.Split(f, ".")
		n, ok := numbers(parts[1:])
		switch {
		case !ok || parts[0] == "":
		case !back && len(n) == 2:
			s.at = append(s.at, sighting{parts[0], n[0], instant(n[1])})
		case back && len(n) == 5:
			s.rollbacks = append(s.rollbacks, sighted{parts[0], n[0], n[1], instant(n[2]), instant(n[3]), instant(n[4])})
		}
	}
	return s
}

func numbers(parts []string) ([]uint64, bool) {
	out := make([]uint64, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 36, 64)
		if err != nil {
			return nil, false
		}
		out[i] = n
	}
	return out, true
}

// encode leaves out the providers that are not in keys, and what is over for long.
func (s seen) encode(keys map[string]string, now time.Time) string {
	configured := func(key string) bool {
		for _, k := range keys {
			if k == key {
				return true
			}
		}
		return false
	}
	var at, rollbacks []string
	for _, x := range s.at {
		if configured(x.provider) {
			at = append(at, join(x.provider, x.counter, unix(x.since)))
		}
	}
	for _, r := range s.rollbacks {
		if r.repaired.IsZero() || now.Sub(r.repaired) < rollbackKept {
			rollbacks = append(rollbacks, "!"+join(r.provider, r.from, r.to, unix(r.lastGood), unix(r.noticed), unix(r.repaired)))
		}
	}
	slices.Sort(at)
	slices.Sort(rollbacks)
	return strings.Join(slices.Concat([]string{strconv.Itoa(s.generation)}, at, rollbacks), " ")
}

func join(key string, n ...uint64) string {
	for _, n := range n {
		key += "." + strconv.FormatUint(n, 36)
	}
	return key
}

// instant is a time of whole seconds; 0 is the zero time.
func instant(n uint64) time.Time {
	if n == 0 || n > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(n), 0).UTC()
}

func unix(t time.Time) uint64 {
	if t.IsZero() || t.Unix() < 0 {
		return 0
	}
	return uint64(t.Unix())
}

// note takes a provider's counter down, and returns what was known before.
func (s *seen) note(provider string, counter uint64, now time.Time) (before sighting, known bool) {
	for i := range s.at {
		if s.at[i].provider == provider {
			before = s.at[i]
			if before.counter != counter {
				s.at[i] = sighting{provider, counter, now}
			}
			return before, true
		}
	}
	s.at = append(s.at, sighting{provider, counter, now})
	return sighting{}, false
}

// open is the provider's rollback that is not repaired yet, or nil.
func (s *seen) open(provider string) *sighted {
	for i := range s.rollbacks {
		if r := &s.rollbacks[i]; r.provider == provider && r.repaired.IsZero() {
			return r
		}
	}
	return nil
}

// start opens a rollback; the provider's last one makes room.
func (s *seen) start(r sighted) {
	s.rollbacks = slices.DeleteFunc(s.rollbacks, func(old sighted) bool { return old.provider == r.provider })
	s.rollbacks = append(s.rollbacks, r)
}

// renew goes on to another seed generation, for which nothing was seen yet. What went back of the old one is over.
func (s *seen) renew(generation int, now time.Time) (over []sighted) {
	s.generation, s.at = generation, nil
	for i := range s.rollbacks {
		if r := &s.rollbacks[i]; r.repaired.IsZero() {
			r.repaired = now
			over = append(over, *r)
		}
	}
	return over
}

// unnamed stands for a provider that is no longer configured.
const unnamed = "a provider that is no longer configured"

// rollback names what went back.
func (r sighted) rollback(id device.TokenID, keys map[string]string) Rollback {
	provider := unnamed
	for name, k := range keys {
		if k == r.provider {
			provider = name
		}
	}
	return Rollback{id, provider, r.from, r.to, r.lastGood, r.noticed, r.repaired}
}
