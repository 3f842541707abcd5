package syncer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
)

// DeletedSide is what the vault has of a token that was deleted.
type DeletedSide struct {
	Generation int       `json:"generation"` // the last one
	Time       time.Time `json:"time"`
}

// generation is the token's seed generation here, or was.
func (r Row) generation() int {
	switch {
	case r.Desk != nil:
		return r.Desk.Generation
	case r.Deleted != nil:
		return r.Deleted.Generation
	}
	return 0
}

// strange is the row of a token that was not in the vault when the others were read.
func (d *Drift) strange(central string, there []ProviderSide) (Row, error) {
	r := Row{Central: central, There: there}
	id, ok := device.ParseCentral(central)
	if !ok {
		r.Differences = unknown(there)
		return r, nil
	}
	r.Token = id
	err := d.v.View(func(tx *vault.Tx) error { return r.look(tx) })
	if r.Desk != nil {
		r.unsettle()
	}
	return r, err
}

// look fills in what the vault has of the token, or of one that was deleted, and what differs.
func (r *Row) look(tx *vault.Tx) error {
	t, err := tx.Token(r.Token)
	if err == nil {
		r.Deleted = nil
		return r.compare(tx, t)
	}
	if !errors.Is(err, vault.ErrNotFound) {
		return err
	}
	r.Desk, r.Deleted, r.Unfinished, r.Others = nil, nil, "", nil
	if r.Waiting, err = tx.ChangesOf(r.Token); err != nil {
		return err
	}
	grave, buried, err := tx.Tombstone(r.Token)
	if err != nil {
		return err
	}
	if !buried {
		r.Differences = unknown(r.There)
		return nil
	}
	r.Deleted = &DeletedSide{Generation: grave.Generation, Time: grave.Time}
	r.Differences = r.Deleted.differences(r.There, r.Waiting)
	return nil
}

// differences are those of a token that was deleted. What is there under its name and is not what was deleted is as unknown as
// any other.
func (d DeletedSide) differences(there []ProviderSide, waiting []vault.Change) (all []Difference) {
	for _, p := range there {
		x := Difference{Kind: DiffersDeleted, Provider: p.Provider, Breach: p.Enabled}
		when := "was deleted here at " + d.Time.Local().Format(time.DateTime)
		switch {
		case !p.Exists:
			continue
		case !p.Ours:
			x.Kind, x.Breach = DiffersUnknown, false
			x.Text = fmt.Sprintf("%s has it with a seed that another desk or tool put there, and it %s; %s", p.Provider, when, p.use())
		case p.Generation > d.Generation:
			x.Kind, x.Breach = DiffersUnknown, false
			x.Text = fmt.Sprintf("%s has seed generation %d, newer than %d, with which it %s: this vault seems to be an old copy; %s",
				p.Provider, p.Generation, d.Generation, when, p.use())
		default:
			x.Text = fmt.Sprintf("%s still has it, and it %s: %s", p.Provider, when, p.use())
		}
		if i := slices.IndexFunc(waiting, func(c vault.Change) bool { return c.Kind == vault.Remove }); i >= 0 {
			x.Pending = pending(waiting[i])
		}
		all = append(all, x)
	}
	return all
}

// remove plans a token that was deleted, alike for every choice: it cannot come back.
func (s Step) remove() (Step, string) {
	j := divergence{Row: s.row}
	open := j.open()
	if len(open) == 0 {
		return s, j.pending()
	}
	var a act
	for _, x := range open {
		if x.Kind != DiffersDeleted {
			return s, x.Text + ": look whose it is, and remove it there if it is nobody's"
		}
		a = act{vault.Remove, cmp.Or(a.user, j.at(x).Owner)}
	}
	s.there, s.Breach = []act{a}, j.breach()
	s.Do, s.Why = s.words(), j.reasons()
	return s, ""
}
