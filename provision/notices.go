package provision

import (
	"cmp"

	"tokendesk/device"
	"tokendesk/vault"
)

// Kinds of notices to a token's holder. Each tells of a fact, in whose transaction it is written.
const (
	NoticeInvitation  = "invitation"  // the token is the holder's from now on
	NoticeDisabled    = "disabled"    // it is refused for a while
	NoticeEnabled     = "enabled"     // it is accepted again
	NoticeExpired     = "expired"     // its time is over
	NoticeUnassigned  = "unassigned"  // it is no longer the holder's
	NoticeCompromised = "compromised" // it is refused for good
	NoticeReissued    = "reissued"    // it went to somebody else
)

// NoticeKinds returns all kinds of notices.
func NoticeKinds() []string {
	return []string{NoticeInvitation, NoticeDisabled, NoticeEnabled, NoticeExpired, NoticeUnassigned, NoticeCompromised, NoticeReissued}
}

// notify leaves a notice to a token's holder, if there is one and the desk sends any. All of them speak of codes, so that a PIV
// application's holder gets none.
func (r *Runner) notify(tx *vault.Tx, kind string, id device.TokenID, user, successor, reason string) error {
	if !r.Notices || user == "" || id.PIV() {
		return nil
	}
	return tx.PutNotice(&vault.Notice{Kind: kind, User: user, Token: id, Successor: successor, Reason: reason})
}

// notifyAll leaves a notice of everything that an order does to its tokens' holders.
func (r *Runner) notifyAll(tx *vault.Tx, d drawn) error {
	for _, e := range d.Effects {
		kind := e.notice(d.Order.Action)
		if kind == "" {
			continue
		}
		if err := r.notify(tx, kind, e.Token, cmp.Or(e.Owner, e.NewOwner), "", d.Order.reason()); err != nil {
			return err
		}
	}
	return nil
}

// notice is the kind of notice that tells of an effect; empty if the holder need not know.
func (e Effect) notice(a Action) string {
	switch {
	case a == ActCompromise:
		return NoticeCompromised
	case e.Owner == "" && e.NewOwner != "":
		return NoticeInvitation
	case e.Owner != "" && (e.NewOwner == "" || e.To == ""):
		return NoticeUnassigned
	case e.To == e.From:
		return ""
	case e.To == vault.Disabled:
		return NoticeDisabled
	case e.To == vault.Expired:
		return NoticeExpired
	case e.To == vault.Active:
		return NoticeEnabled
	}
	return ""
}
