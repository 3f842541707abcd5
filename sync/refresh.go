package syncer

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"tokendesk/vault"
)

const (
	// DefaultRefreshInterval is how long a used code may be accepted by another provider where logins are not replicated.
	DefaultRefreshInterval = time.Minute
	// DefaultRefreshPatience is how long a provider may take for one page.
	DefaultRefreshPatience = 30 * time.Second
)

// RefreshConfig says how often counters are brought back. Zero values mean the defaults.
type RefreshConfig struct {
	// Interval is between the begins of two cycles, shortened at random by up to a tenth. After a cycle there is a pause at
	// least as long as it took: reading 100,000 tokens at two providers takes some 5 s of the processor.
	Interval time.Duration
	Patience time.Duration // a provider that gives no page for so long counts as not reached
	Retry    Backoff       // pauses before a provider is tried again that was not reached; as an Outbox's
	Wake     func()        // is called after changes were enqueued; may be nil
}

// Refresher brings the counters of all providers back into the vault, and keeps the providers level.
//
// A cycle reads every provider, page by page. A token whose seed generation there is the vault's gets the highest counter
// seen. LastUsed becomes what the service tells of the last login or, if it tells nothing, the time of the reading that showed
// a counter beyond the vault's: no login can be later. A token that is to be resynchronized stays so.
//
// A provider that is behind, as after a login elsewhere where those are not replicated, still accepts codes that were
// used. It is levelled by one Advance of the token. A provider that shows less than it did before has gone back: it is
// levelled the same way, and a Rollback is kept in the token's record, written to the audit trail and logged.
//
// A cycle that finds nothing new writes nothing. It holds a page of each provider at a time.
type Refresher struct {
	v   *vault.Vault
	c   Connector
	log *slog.Logger
	cfg RefreshConfig

	turn  chan struct{} // holds one value; whoever took it reads
	nudge chan struct{}

	loading sync.Mutex // of events

	mu     sync.Mutex
	report Report               // of the cycle that goes on, or of the last one
	good   map[string]time.Time // by provider: when its last complete reading began
	events *events              // nil before they were looked up
}

// Report tells how far a cycle has come.
type Report struct {
	Began     time.Time    `json:"began"`
	Ended     time.Time    `json:"ended,omitzero"`
	Read      int          `json:"read"`      // tokens, at each provider
	Moved     int          `json:"moved"`     // whose counter or last use was brought back
	Levelled  int          `json:"levelled"`  // for which an Advance was enqueued
	Rollbacks int          `json:"rollbacks"` // newly noticed, or gone further back
	Repaired  int          `json:"repaired"`  // rollbacks that are over
	Unknown   int          `json:"unknown"`   // tokens that are not in the vault, or not with that seed
	Missing   []NotReached `json:"missing,omitempty"`
}

// NotReached is a provider that could not be read, or not to its end.
type NotReached struct {
	Provider string `json:"provider"`
	Problem  string `json:"problem"`
}

// NewRefresher needs a Run to go on by itself. Without a connector (nil) Run only blocks.
func NewRefresher(v *vault.Vault, c Connector, log *slog.Logger, cfg RefreshConfig) *Refresher {
	cfg.Interval = cmp.Or(cfg.Interval, DefaultRefreshInterval)
	cfg.Patience = cmp.Or(cfg.Patience, DefaultRefreshPatience)
	cfg.Retry.Min = cmp.Or(cfg.Retry.Min, time.Second)
	cfg.Retry.Max = max(cmp.Or(cfg.Retry.Max, 5*time.Minute), cfg.Retry.Min)
	r := &Refresher{v: v, c: c, log: log, cfg: cfg, turn: make(chan struct{}, 1), nudge: make(chan struct{}, 1), good: map[string]time.Time{}}
	r.turn <- struct{}{}
	return r
}

// Run reads all providers at once, then after every interval and at every Nudge, until ctx ends; it returns the error of ctx, or
// that of a vault which is closed. A provider that was not reached is tried again with growing pauses, and when it answers
// everything is read. While the vault is locked or of no use, Run sleeps until Nudge.
func (r *Refresher) Run(ctx context.Context) error {
	if r.c == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	var missing []string // after the last cycle
	var next time.Time   // when the next full cycle is due
	failures := 0
	for {
		var err error
		if len(missing) > 0 && time.Now().Before(next) {
			var reached bool
			if reached, err = r.probe(ctx, missing); reached {
				next = time.Time{}
				continue
			}
		} else {
			next = time.Now().Add(r.cfg.Interval - rand.N(r.cfg.Interval/10+1))
			var report Report
			report, err = r.Once(ctx)
			if took := report.Ended.Sub(report.Began); took > 0 && time.Until(next) < took {
				next = time.Now().Add(took)
			}
			now := names(report.Missing)
			if !slices.Equal(now, missing) {
				missing, failures = now, 0
			}
		}
		pause := time.Until(next)
		switch {
		case isFinal(ctx, err):
			return err
		case isUnusable(err):
			missing, pause = nil, -1
			r.forget()
		case err != nil:
			failures++
			next, pause = time.Time{}, r.cfg.Retry.pause(failures)
			r.log.Error("cannot refresh the counters", "error", err, "again_in", pause)
		case len(missing) > 0:
			failures++
			pause = min(pause, r.cfg.Retry.pause(failures))
		default:
			failures = 0
		}
		nudged, err := r.sleep(ctx, pause)
		if err != nil {
			return err
		}
		if nudged {
			next = time.Time{}
		}
	}
}

// sleep ends at Nudge, after a pause (a negative one never ends), or with ctx.
func (r *Refresher) sleep(ctx context.Context, pause time.Duration) (nudged bool, err error) {
	var alarm <-chan time.Time
	if pause >= 0 {
		t := time.NewTimer(pause)
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-r.nudge:
		return true, nil
	case <-alarm:
		return false, nil
	}
}

// Nudge has Run begin a cycle now: call it when the vault was unlocked, or a provider is known to be back.
func (r *Refresher) Nudge() {
	select {
	case r.nudge <- struct{}{}:
	default: // Run has not taken the last one yet
	}
}

// Once reads every provider that can be reached. That one could not stands in the report; an error says that the vault
// cannot be used, that ctx has ended, or that no provider was reached.
func (r *Refresher) Once(ctx context.Context) (Report, error) {
	if r.c == nil {
		return Report{}, errNoService
	}
	providers := r.c.Providers()
	c, err := r.read(ctx, providers, true)
	if err == nil && len(c.report.Missing) == len(providers) {
		r.log.Warn("no provider of the central service can be read", "problem", c.report.Missing[0].Problem)
	}
	return c.report, err
}

// Progress is the report of the cycle that goes on or, if none does, of the last one.
func (r *Refresher) Progress() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := r.report
	report.Missing = slices.Clone(report.Missing)
	return report
}

// probe reads providers that were not reached before, and tells whether one was now.
func (r *Refresher) probe(ctx context.Context, providers []string) (reached bool, err error) {
	c, err := r.read(ctx, providers, false)
	return err == nil && len(c.report.Missing) < len(providers), err
}

// errNoService is what asking a central service ends with where there is none.
var errNoService = errors.New("no central service is configured: name one in the configuration, under [central]")

// cycle is one reading of several providers.
type cycle struct {
	r      *Refresher
	shown  bool // Progress tells of it
	cancel context.CancelCauseFunc
	keys   map[string]string

	mu     sync.Mutex
	report Report
	lost   map[string]bool // keys of the providers that were not reached
	err    error           // of the vault: it ends the cycle
	logged int             // rollbacks
	told   int             // ends of rollbacks
}

func (r *Refresher) read(ctx context.Context, providers []string, shown bool) (*cycle, error) {
	c := &cycle{r: r, shown: shown, keys: providerKeys(r.c.Providers()), lost: map[string]bool{}, report: Report{Began: time.Now().UTC()}}
	select {
	case <-r.turn:
		defer func() { r.turn <- struct{}{} }()
	case <-ctx.Done():
		return c, ctx.Err()
	}
	if err := r.v.View(func(*vault.Tx) error { return nil }); err != nil {
		return c, err // nobody is asked in vain
	}
	for _, m := range r.Progress().Missing {
		c.lost[c.keys[m.Provider]] = true // until it is reached
	}
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	c.publish()
	var all sync.WaitGroup
	for _, p := range providers {
		all.Go(func() { c.readProvider(ctx, p) })
	}
	all.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortFunc(c.report.Missing, func(a, b NotReached) int { return cmp.Compare(a.Provider, b.Provider) })
	c.report.Ended = time.Now().UTC()
	c.publish()
	if c.err != nil {
		return c, c.err
	}
	return c, ctx.Err()
}

func (c *cycle) readProvider(ctx context.Context, provider string) {
	r := c.r
	r.mu.Lock()
	good := r.good[provider]
	r.mu.Unlock()
	began := time.Now().UTC()
	p := &reading{r: r, cycle: c, provider: provider, key: c.keys[provider], keys: c.keys, good: good}
	err := patiently(ctx, r.cfg.Patience, func(ctx context.Context, alive func()) error {
		return r.c.Counters(ctx, provider, func(page []Reading) error {
			alive()
			c.found(p.key)
			return p.take(page)
		})
	})
	if err == nil {
		c.found(p.key)
		r.mu.Lock()
		r.good[provider] = began
		r.mu.Unlock()
		return
	}
	if ctx.Err() != nil {
		return // the vault's error, or the caller's wish, and nothing about the provider
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost[p.key] = true
	c.report.Missing = append(c.report.Missing, NotReached{provider, err.Error()})
	c.publish()
}

// patiently ends fn when it does not say for too long that it is alive.
func patiently(ctx context.Context, patience time.Duration, fn func(ctx context.Context, alive func()) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	bored := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer bored.Stop()
	err := fn(ctx, func() { bored.Reset(patience) })
	if err != nil && context.Cause(ctx) == errSilent {
		return errSilent
	}
	return err
}

var errSilent = errors.New("it does not answer in time")

// fail ends the cycle for an error of the vault.
func (c *cycle) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		c.cancel(err)
	}
	return err
}

func (c *cycle) reaches(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.lost[key]
}

func (c *cycle) found(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.lost, key)
}

// publish shows how far the cycle is. The caller holds c.mu, or is alone.
func (c *cycle) publish() {
	if !c.shown {
		return
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	c.r.report = c.report
	c.r.report.Missing = slices.Clone(c.report.Missing)
}

func names(missing []NotReached) (all []string) {
	for _, m := range missing {
		all = append(all, m.Provider)
	}
	return all
}
