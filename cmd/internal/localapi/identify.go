package localapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"tokendesk/cmd/internal/api"
	syncer "tokendesk/sync"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// identifyWindow is how far ahead of its counter each token is searched.
const identifyWindow = 10000

// turnstile lets one through at a time. Its zero value is ready.
type turnstile struct {
	once sync.Once
	free chan struct{}
}

func (t *turnstile) enter(ctx context.Context) (leave func(), err error) {
	t.once.Do(func() { t.free = make(chan struct{}, 1) })
	select {
	case t.free <- struct{}{}:
		return func() { <-t.free }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// identifying is the body of an identify.
type identifying struct{ Body api.Identify }

func (d *Desk) identify(ctx context.Context, in *identifying) (api.Identified, error) {
	return d.identifyCodes(ctx, in.Body.Codes)
}

// identifyCodes says whose codes these are. A search keeps all processors busy, so that there is one at a time; who searches
// again and again without finding anything waits, and everything goes on record.
func (d *Desk) identifyCodes(ctx context.Context, codes []string) (api.Identified, error) {
	leave, err := d.searching.enter(ctx)
	if err != nil {
		return api.Identified{}, err
	}
	defer leave()
	by := officer(ctx)
	key := syncer.IdentifyPaceKey(by.UID)
	if err := d.Vault.View(func(tx *vault.Tx) error { return syncer.OfficerPace.Check(tx, key, time.Now()) }); err != nil {
		return api.Identified{}, err
	}
	found, err := syncer.Identify(ctx, d.Vault, codes, identifyWindow, nil)
	if bad := (*syncer.CodesError)(nil); errors.As(err, &bad) {
		return api.Identified{}, api.Errorf(api.Invalid, "%v", err)
	}
	var out api.Identified
	if err == nil {
		out, err = d.identified(ctx, found)
	}
	ended := err // also of a search that its officer did not wait for: it told how long it took
	err = d.Vault.Update(func(tx *vault.Tx) error {
		act := audit.Act{Officer: by, Action: "identify", Outcome: "done"}
		switch {
		case ended != nil:
			act.Outcome, act.Reason = string(api.Unfinished), "it was ended before its result"
		case found.Certain():
			act.Object = string(found.Matches[0].Token)
			act.Reason = fmt.Sprintf("%d codes, +%d after its counter", found.Codes, found.Matches[0].Ahead)
			return tx.Audit(act)
		default:
			act.Outcome, act.Reason = string(api.NotVerified), out.Why
		}
		return errors.Join(syncer.OfficerPace.Fail(tx, key, time.Now()), tx.Audit(act))
	})
	return out, cmp.Or(ended, err)
}

// identified tells a caller what was found: of tokens that they do not see, only that there are such.
func (d *Desk) identified(ctx context.Context, f syncer.Found) (api.Identified, error) {
	out := api.Identified{Certain: f.Certain(), Matches: len(f.Matches), Codes: f.Codes, Searched: f.Searched, Window: f.Window, Chance: f.Chance}
	if !SeesAll(ctx) { // how many tokens the others have is none of their business
		out.Searched, out.Chance = 0, roundUp(f.Chance)
	}
	switch {
	case out.Certain:
		return out, d.whose(ctx, f.Matches[0], &out)
	case out.Matches == 0:
		out.Why = fmt.Sprintf("no token has these codes within %d after its counter", f.Window)
		out.Next = "touch it for two new codes, and give them in that order; if nothing is found again, its seed is not in this vault, and it is to be enrolled, or wiped"
		return out, nil
	case out.Matches > 1:
		out.Why = fmt.Sprintf("%d tokens have these codes", out.Matches)
	default:
		out.Why = "one token has these codes, but that may be chance: there are too many tokens for so few digits"
	}
	if out.More = f.Codes < syncer.MaxIdentifyCodes; out.More {
		out.Next = "touch the token once more, and give all three codes"
	} else {
		out.Next = "touch the token three times for new codes, and give those"
	}
	return out, nil
}

// whose fills in the token that codes are of.
func (d *Desk) whose(ctx context.Context, m syncer.Match, out *api.Identified) error {
	if !sees(ctx, m.Tenant) {
		out.Hidden, out.Window = true, 0
		out.Why, out.Next = "they are those of a token that is not yours to see", "give it to an officer of the whole desk"
		return nil
	}
	t, err := d.token(ctx, m.Token)
	if err != nil {
		return err
	}
	out.Token, out.Counter, out.Ahead, out.Other = &t, m.Counter, m.Ahead, !m.Current
	switch {
	case out.Other:
		out.Next = "settle its unfinished work: tokendesk resolve " + t.ID
	case m.Ahead > 0 && t.Status == string(vault.Active):
		out.Next = "if it is refused at a login, resync it: tokendesk resync " + t.ID + " CODE CODE"
	}
	return nil
}

// roundUp is the least power of ten that is not less than x, which is above 0.
func roundUp(x float64) float64 {
	if x <= 0 {
		return 0
	}
	return math.Pow10(int(math.Ceil(math.Log10(x))))
}
