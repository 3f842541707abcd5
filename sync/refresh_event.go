package syncer

import (
	"slices"
	"time"

	"tokendesk/vault"
)

const (
	// maxEvents is how many rollbacks are listed; the records have them all.
	maxEvents = 1000
	// maxLogged is how many rollbacks one cycle logs by name: a directory restored from a backup has one for each token.
	maxLogged = 20
)

// events are the latest rollbacks.
type events struct{ all []Rollback }

// put takes one in, or brings it up to date. When there are too many, the first that was noticed goes, a repaired one before others.
func (e *events) put(r Rollback) {
	for i, old := range e.all {
		if old.Token == r.Token && old.Provider == r.Provider {
			e.all[i] = r
			return
		}
	}
	if len(e.all) == maxEvents {
		drop := slices.IndexFunc(e.all, func(r Rollback) bool { return !r.Repaired.IsZero() })
		e.all = slices.Delete(e.all, max(drop, 0), max(drop, 0)+1)
	}
	e.all = append(e.all, r)
}

// Rollbacks lists the latest rollbacks, those first that are not repaired: at most 1000, and no repaired ones of more than 30
// days ago.
func (r *Refresher) Rollbacks() ([]Rollback, error) {
	if err := r.loadEvents(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		return nil, nil // the vault was locked meanwhile
	}
	now := time.Now()
	all := slices.DeleteFunc(slices.Clone(r.events.all), func(b Rollback) bool {
		return !b.Repaired.IsZero() && now.Sub(b.Repaired) > rollbackKept
	})
	slices.SortStableFunc(all, func(a, b Rollback) int {
		if open := a.Repaired.IsZero(); open != b.Repaired.IsZero() {
			if open {
				return -1
			}
			return 1
		}
		return b.Noticed.Compare(a.Noticed)
	})
	return all, nil
}

// loadEvents looks the rollbacks up that tokens' records hold, beside which those go on to be kept that are noticed meanwhile.
func (r *Refresher) loadEvents() (err error) {
	r.loading.Lock()
	defer r.loading.Unlock()
	r.mu.Lock()
	loaded := r.events != nil
	if !loaded {
		r.events = &events{}
	}
	r.mu.Unlock()
	if loaded {
		return nil
	}
	defer func() {
		if err != nil {
			r.forget()
		}
	}()
	var keys map[string]string
	if r.c != nil {
		keys = providerKeys(r.c.Providers())
	}
	var found []Rollback
	err = r.v.View(func(tx *vault.Tx) error {
		for t, err := range tx.AllTokens(vault.Filter{WentBack: true}) {
			if err != nil {
				return err
			}
			found = append(found, rollbacksOf(t, keys)...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		return nil
	}
	noticed := r.events.all
	r.events.all = nil
	for _, b := range slices.Concat(found, noticed) {
		r.events.put(b)
	}
	return nil
}

// rollbacksOf are those that a token's record holds.
func rollbacksOf(t vault.Token, keys map[string]string) (all []Rollback) {
	for _, b := range parseSeen(t.Seen).rollbacks {
		all = append(all, b.rollback(t.ID, keys))
	}
	return all
}

// forget has the rollbacks looked up again: the vault may be another one afterwards.
func (r *Refresher) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = nil
}

// count adds what was committed to the report, tells of rollbacks, and has the outbox look.
func (p *reading) count(read, unknown, levelled int, found []finding) {
	c := p.cycle
	c.mu.Lock()
	c.report.Read += read
	c.report.Unknown += unknown
	c.report.Levelled += levelled
	for _, f := range found {
		if f.moved {
			c.report.Moved++
		}
		c.report.Rollbacks += len(f.back)
		c.report.Repaired += len(f.over)
		for _, b := range f.back {
			c.warn(b)
		}
		for _, b := range f.over {
			c.tell(b)
		}
	}
	c.publish()
	c.mu.Unlock()
	p.r.keep(found)
	if levelled > 0 && p.r.cfg.Wake != nil {
		p.r.cfg.Wake()
	}
}

// tell logs the end of a rollback. The caller holds c.mu.
func (c *cycle) tell(b Rollback) {
	if c.told++; c.told <= maxLogged {
		c.r.log.Info("a counter that went back is right again", "token", b.Token, "provider", b.Provider, "from", b.From, "to", b.To,
			"last_good", b.LastGood, "repaired", b.Repaired)
	}
}

// warn logs a rollback. The caller holds c.mu.
func (c *cycle) warn(b Rollback) {
	switch c.logged++; {
	case c.logged <= maxLogged:
		c.r.log.Warn("a provider's counter went back, and codes used before could pass there again", "token", b.Token,
			"provider", b.Provider, "from", b.From, "to", b.To, "last_good", b.LastGood)
	case c.logged == maxLogged+1:
		c.r.log.Warn("more counters went back, see the audit trail for each; was a provider restored from a backup?", "provider", b.Provider)
	}
}

// keep brings the list of rollbacks up to date, if there is one already.
func (r *Refresher) keep(found []finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		return
	}
	for _, f := range found {
		for _, b := range slices.Concat(f.back, f.over) {
			r.events.put(b)
		}
	}
}
