package localapi

import (
	"fmt"
	"time"

	"tokendesk/provision"
	"tokendesk/vault"
)

// exceptions is everything that waits for somebody: of tokens in the order of their names, then what is not about one token.
func (s *sheet) exceptions() error {
	for _, part := range []func() error{s.tokenExceptions, s.jobExceptions, s.changeExceptions, s.noticeExceptions, s.leaverExceptions, s.approvalExceptions} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (s *sheet) tokenExceptions() error {
	return s.tokens(func(t vault.Token) error {
		for _, x := range s.troubles(t) {
			if err := s.Row(x.what, string(t.ID), t.Owner, s.time(x.since), x.details, x.next); err != nil {
				return err
			}
		}
		return nil
	})
}

type trouble struct {
	what, details, next string
	since               time.Time
}

// troubles is what somebody has to look at about one token.
func (s *sheet) troubles(t vault.Token) (all []trouble) {
	id := string(t.ID)
	add := func(so bool, what, details, next string) {
		if so {
			all = append(all, trouble{what, details, next, t.Updated})
		}
	}
	over := t.Status == vault.Expired || t.Status != vault.Compromised && !t.Expires.IsZero() && !t.Expires.After(time.Now())
	// Of those that are lost or stolen nothing more can be done.
	held := t.Status == vault.Compromised && t.Wiped.IsZero() && (t.Loss.Kind == vault.Damaged || t.Loss.Kind == vault.Other)
	add(t.Status == vault.Limbo, "limbo", "its device may hold either of two seeds", "tokendesk resolve "+id)
	add(t.Status == vault.Pending, "pending", "its seed was never verified", "tokendesk resolve "+id)
	add(over, "expired", s.desk.outOfDate(t), "tokendesk edit "+id+" --expires DATE")
	add(held, "not destroyed", "compromised ("+string(t.Loss.Kind)+"), and not erased", "tokendesk wipe "+id+", or destroy it")
	add(t.Stale, "stale", "the vault was restored, and its counter is old", "tokendesk resync "+id)
	add(t.ReseedDue, "reseed due", "it was freed while its device was not at hand: whoever has that has the seed", "tokendesk reseed "+id)
	if t.Emulated {
		all = append(all, trouble{"EMULATED", "not a hardware token: it protects nothing", "", t.Created})
	}
	return all
}

func (s *sheet) jobExceptions() error {
	jobs, err := s.tx.Jobs()
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if err := s.rowOf(j.Token, "unfinished", string(j.Token), "", s.time(j.Created), provision.Waiting(j)+"; begun by "+j.Officer, "tokendesk resolve "+string(j.Token)); err != nil {
			return err
		}
	}
	return nil
}

func (s *sheet) changeExceptions() error {
	for after := uint64(0); ; {
		page, err := s.tx.ParkedFrom(after, 1000)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, c := range page {
			after = c.Seq
			why := c.Problem
			if c.ParkedBy.Name != "" {
				why = "by " + c.ParkedBy.Name + ": " + c.Reason
			}
			if err := s.rowOf(c.Token, "parked", string(c.Token), c.User, s.time(c.Created), fmt.Sprintf("change %d, %s: %s", c.Seq, c.Kind, why), fmt.Sprintf("tokendesk outbox show %d", c.Seq)); err != nil {
				return err
			}
		}
	}
}

func (s *sheet) noticeExceptions() error {
	for after := uint64(0); ; {
		page, err := s.tx.Notices(after, 1000)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, n := range page {
			after = n.ID
			if !n.Parked {
				continue
			}
			if err := s.rowOf(n.Token, "notice not sent", string(n.Token), n.User, s.time(n.Created), fmt.Sprintf("notice %d, %s: %s", n.ID, n.Kind, n.Problem), fmt.Sprintf("tokendesk notices retry %d", n.ID)); err != nil {
				return err
			}
		}
	}
}

func (s *sheet) leaverExceptions() error {
	queue, err := provision.Leavers(s.tx)
	if err != nil {
		return err
	}
	for _, l := range queue {
		if !l.Overdue(time.Now()) {
			continue
		}
		for _, t := range l.Tokens {
			if t.Settled {
				continue
			}
			if err := s.rowOf(t.Token, "leaver overdue", string(t.Token), l.User, s.time(l.Deadline), t.Fact, t.Next); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sheet) approvalExceptions() error {
	if !papers.admits(s.reach.desk) {
		return nil // they are about several tokens, perhaps of several tenants
	}
	all, err := s.tx.Approvals()
	if err != nil {
		return err
	}
	for _, a := range all {
		if !time.Now().Before(a.Expires) {
			continue
		}
		if err := s.Row("waits for approval", a.Object, a.By.Name, s.time(a.Created), a.Action+": "+a.Reason, fmt.Sprintf("tokendesk approvals show %d", a.ID)); err != nil {
			return err
		}
	}
	return nil
}
