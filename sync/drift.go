package syncer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
)

// Drift compares the desk with every provider of the central service, and repairs what differs.
type Drift struct {
	v   *vault.Vault
	c   Connector
	cfg DriftConfig
}

// DriftConfig is what a Drift needs of its surroundings. All of it may be zero.
type DriftConfig struct {
	Patience time.Duration // a provider that gives no page for so long counts as not reached; 0 means DefaultRefreshPatience
	Wake     func()        // is called after changes were enqueued
	// Claim keeps others' work off a token while it is repaired, or refuses because they work on it.
	Claim func(device.TokenID) (release func(), err error)
}

// NewDrift compares v with the service behind c.
func NewDrift(v *vault.Vault, c Connector, cfg DriftConfig) *Drift {
	cfg.Patience = cmp.Or(cfg.Patience, DefaultRefreshPatience)
	return &Drift{v: v, c: c, cfg: cfg}
}

// tokensPerView is how many tokens are read in one transaction: a longer one would keep the file from reusing its pages.
const tokensPerView = 500

// DifferenceKind says in what desk and provider differ.
type DifferenceKind string

// Kinds of Difference.
const (
	DiffersMissing       DifferenceKind = "missing"      // the provider does not have the token
	DiffersUnknown       DifferenceKind = "unknown-here" // the vault does not
	DiffersDeleted       DifferenceKind = "deleted-here" // the vault knows that it was deleted
	DiffersOwner         DifferenceKind = "owner"
	DiffersEnabled       DifferenceKind = "enabled" // its codes may be accepted there and not here, or the other way round
	DiffersCounterBehind DifferenceKind = "counter-behind"
	DiffersCounterAhead  DifferenceKind = "counter-ahead"
	DiffersGeneration    DifferenceKind = "generation"
	DiffersSeed          DifferenceKind = "foreign-seed" // the seed there is not this desk's
)

// Difference is one between the desk and one provider.
type Difference struct {
	Kind     DifferenceKind `json:"kind"`
	Provider string         `json:"provider"`
	Text     string         `json:"text"`
	// Breach: the desk has the token as one whose codes nobody accepts, and the provider has its secret. It is put back by
	// every repair.
	Breach bool `json:"breach,omitempty"`
	// Pending says what will settle it without a repair; empty if nothing will.
	Pending string `json:"pending,omitempty"`
}

// DeskSide is a token in the vault.
type DeskSide struct {
	Owner      string       `json:"owner,omitempty"`
	Status     vault.Status `json:"status"`
	Counter    uint64       `json:"counter"`
	Generation int          `json:"generation"`
	Stale      bool         `json:"stale,omitempty"`
}

// accepted tells whether codes of the token are to be accepted.
func (d DeskSide) accepted() bool { return d.Status == vault.Active && d.Owner != "" }

// ProviderSide is a token at one provider.
type ProviderSide struct {
	Provider   string `json:"provider"`
	Problem    string `json:"problem,omitempty"` // why the provider was not reached: nothing of it is known then
	Exists     bool   `json:"exists"`
	Owner      string `json:"owner,omitempty"`
	Enabled    bool   `json:"enabled"`
	Counter    uint64 `json:"counter"`
	Generation int    `json:"generation"`
	Ours       bool   `json:"ours"`
}

// Row is one token, here and there.
type Row struct {
	Token       device.TokenID `json:"token,omitempty"` // empty if it is no name of a token
	Central     string         `json:"central"`
	Desk        *DeskSide      `json:"desk,omitempty"` // nil: it is unknown here, or Deleted
	Deleted     *DeletedSide   `json:"deleted,omitempty"`
	There       []ProviderSide `json:"there"` // in the order of Connector.Providers
	Differences []Difference   `json:"differences,omitempty"`
	Waiting     []vault.Change `json:"waiting,omitempty"`    // its outbox entries
	Unfinished  string         `json:"unfinished,omitempty"` // the kind of unfinished work on it, which comes before every repair
	// Others are further tokens that the vault has for the user who has this one there, and not here.
	Others []device.TokenID `json:"others,omitempty"`
}

// Summary counts what was compared.
type Summary struct {
	Began     time.Time              `json:"began"`
	Here      int                    `json:"here"`
	There     map[string]int         `json:"there"` // tokens by provider
	Agree     int                    `json:"agree"` // tokens without a difference
	Differ    int                    `json:"differ"`
	Settling  int                    `json:"settling"` // of those, without a difference that is not pending
	Breaches  int                    `json:"breaches"` // tokens with one
	Kinds     map[DifferenceKind]int `json:"kinds"`    // tokens by kind; one may have several
	Providers []string               `json:"providers"`

	NotReached []NotReached `json:"not_reached,omitempty"`
}

// Rows compares all tokens and calls fn for those that differ or, if all is set, for every one: first for those of the vault in
// the order of their names, then for those that are unknown here. fn may use the vault, and ends everything with an error.
//
// What all providers have is held in memory meanwhile: some 100 bytes for each token, 100 for each owner and 24 for each
// token at each provider; 21 MB for 100,000 tokens of as many owners at two providers, and half as much again while it grows. An error
// says that the vault cannot be used, that no provider was reached, or is fn's or that of ctx.
func (d *Drift) Rows(ctx context.Context, all bool, fn func(Row) error) (Summary, error) {
	if d.c == nil {
		return Summary{}, errNoService
	}
	s := Summary{Began: time.Now().UTC(), There: map[string]int{}, Kinds: map[DifferenceKind]int{}}
	waited, err := d.waiting()
	if err != nil {
		return s, err
	}
	inv, err := d.gather(ctx)
	if err != nil {
		return s, err
	}
	s.Providers = inv.providers
	for i, p := range inv.providers {
		if inv.problems[i] != "" {
			s.NotReached = append(s.NotReached, NotReached{p, inv.problems[i]})
			continue
		}
		s.There[p] = inv.counts[i]
	}
	tell := func(r Row) error {
		s.add(r)
		if err := ctx.Err(); err != nil {
			return err
		}
		if all || len(r.Differences) > 0 {
			return fn(r)
		}
		return nil
	}
	var page []Row
	var after device.TokenID
	for more := true; more; {
		page = page[:0]
		err := d.v.View(func(tx *vault.Tx) error {
			tokens, next, err := tx.Tokens(vault.Filter{After: after, Limit: tokensPerView})
			if err != nil {
				return err
			}
			for _, t := range tokens {
				if t.ID.Central() == "" { // nobody tells the service of it
					continue
				}
				r := Row{Token: t.ID, Central: t.ID.Central(), There: inv.take(t.ID.Central())}
				if err := r.compare(tx, t); err != nil {
					return err
				}
				if waited[t.ID] || !t.Updated.Before(s.Began) || !t.LastUsed.Before(s.Began) {
					r.unsettle()
				}
				page = append(page, r)
			}
			after, more = next, next != ""
			return nil
		})
		if err != nil {
			return s, err
		}
		for _, r := range page {
			s.Here++
			if err := tell(r); err != nil {
				return s, err
			}
		}
	}
	return s, inv.rest(func(central string, there []ProviderSide) error {
		r, err := d.strange(central, there)
		if err != nil {
			return err
		}
		if r.Deleted != nil && (waited[r.Token] || !r.Deleted.Time.Before(s.Began)) {
			r.unsettle()
		}
		return tell(r)
	})
}

// waiting is the tokens for which something is on its way: what is read of them may be old.
func (d *Drift) waiting() (map[device.TokenID]bool, error) {
	tokens := map[device.TokenID]bool{}
	for after, more := uint64(0), true; more; {
		err := d.v.View(func(tx *vault.Tx) error {
			page, err := tx.ChangesFrom(after, tokensPerView)
			for _, c := range page {
				tokens[c.Token], after = true, c.Seq
			}
			more = len(page) == tokensPerView
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

func (s *Summary) add(r Row) {
	if len(r.Differences) == 0 {
		s.Agree++
		return
	}
	s.Differ++
	kinds := map[DifferenceKind]bool{}
	settling, breach := true, false
	for _, x := range r.Differences {
		kinds[x.Kind] = true
		settling = settling && x.Pending != ""
		breach = breach || x.Breach
	}
	for k := range kinds {
		s.Kinds[k]++
	}
	if settling {
		s.Settling++
	}
	if breach {
		s.Breaches++
	}
}

// compare fills in what the vault has of a token, and what differs. The row has its There.
func (r *Row) compare(tx *vault.Tx, t vault.Token) (err error) {
	r.Desk = &DeskSide{Owner: t.Owner, Status: t.Status, Counter: t.Counter, Generation: t.Generation, Stale: t.Stale}
	if r.Waiting, err = tx.ChangesOf(t.ID); err != nil {
		return err
	}
	job, busy, err := tx.JobFor(t.ID)
	if err != nil {
		return err
	}
	if r.Unfinished = ""; busy {
		r.Unfinished = job.Kind
	}
	r.Differences, r.Others = nil, nil
	for _, p := range r.There {
		r.Differences = append(r.Differences, r.Desk.differences(p)...)
	}
	if busy {
		r.Desk.spare(t.ID, r.Differences)
	}
	for i, x := range r.Differences {
		if c, ok := settler(x, *r.Desk, r.Waiting); ok {
			r.Differences[i].Pending = pending(c)
		}
	}
	for _, p := range r.There {
		if p.Owner == "" || strings.EqualFold(p.Owner, t.Owner) {
			continue
		}
		for o, err := range tx.AllTokens(vault.Filter{Owner: p.Owner, Limit: 10}) {
			if err != nil {
				return err
			}
			if o.ID != t.ID && o.ID.Central() != "" && !slices.Contains(r.Others, o.ID) {
				r.Others = append(r.Others, o.ID)
			}
			if len(r.Others) == 3 { // enough to be told
				break
			}
		}
	}
	return nil
}

// unsettle marks all differences: the token changed while the providers were read, so what was read may be older.
func (r *Row) unsettle() {
	for i := range r.Differences {
		if r.Differences[i].Pending == "" {
			r.Differences[i].Pending = "the token changed here while the providers were read: look again"
		}
	}
}

func pending(c vault.Change) string {
	if c.Parked {
		return fmt.Sprintf("change %d (%s) would settle it and is parked: tokendesk outbox show %d", c.Seq, c.Kind, c.Seq)
	}
	return fmt.Sprintf("change %d (%s) is on its way", c.Seq, c.Kind)
}
