package localapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/provision"
	"tokendesk/vault"
)

type nothing struct{}

// status says what it can, whatever the vault's state.
func (d *Desk) status(ctx context.Context, _ *nothing) (api.Status, error) {
	s := api.Status{
		Version: d.Version, Since: d.Since, Tokens: map[string]int{}, Keys: len(d.Keys.List()),
		Buses: d.buses(), Unfinished: []string{}, Vault: d.vault(),
	}
	err := errors.Join(d.central(&s.Central), d.Vault.View(func(tx *vault.Tx) error {
		s.Notices = d.noticesStatus(tx)
		return fill(ctx, &s, tx)
	}))
	if state := (*vault.StateError)(nil); errors.As(err, &state) {
		err = nil
		if w := s.Vault.Waiting; w != nil {
			s.Central.Waiting, s.Central.CutOffs = w.Changes, len(w.CutOffs)
		}
	}
	if len(reachOf(ctx).desk) == 0 { // the rest is of everybody's tokens
		s.Tokens, s.Stock, s.Stale, s.Leavers, s.Overdue, s.Notices, s.Vault.Waiting = map[string]int{}, 0, 0, 0, 0, nil, nil
		s.Revocations = 0
		s.Central = api.Central{Name: s.Central.Name, Read: s.Central.Read}
	}
	return s, err
}

// fill tells what an open vault knows. It reads no tokens but those of leavers.
func fill(ctx context.Context, s *api.Status, tx *vault.Tx) error {
	n := tx.Counts()
	for status, count := range n.Status {
		s.Tokens[string(status)] = count
	}
	s.Stock, s.Stale, s.Central.Waiting, s.Central.CutOffs, s.Central.Parked = n.Stock, n.Stale, n.Waiting, n.CutOffs, n.Parked
	s.Revocations = n.Revocations
	if n.Leavers > 0 {
		queue, err := provision.Leavers(tx)
		if err != nil {
			return err
		}
		countLeavers(s, queue)
	}
	jobs, err := tx.Jobs()
	if err != nil {
		return err
	}
	for _, j := range jobs {
		tenant, _, err := tenantOf(tx, j.Token)
		if err != nil {
			return err
		}
		if !sees(ctx, tenant) {
			continue
		}
		s.Unfinished = append(s.Unfinished, string(j.Token)+": "+provision.Waiting(j))
	}
	changes, err := tx.ChangesFrom(0, shownChanges)
	for i, c := range changes {
		if i == 0 {
			s.Central.Oldest = &c.Created
		}
		if c.Problem != "" {
			s.Central.Problem = c.Problem
		}
	}
	return err
}

func (d *Desk) doctor(ctx context.Context, _ *nothing) (api.Findings, error) {
	return api.Findings{Findings: d.Doctor(ctx)}, nil
}

func (d *Desk) buses() []api.Bus {
	list := []api.Bus{}
	for name, problem := range d.Keys.BusProblems() {
		list = append(list, api.Bus{Name: name, Problem: problem})
	}
	slices.SortFunc(list, func(a, b api.Bus) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (d *Desk) devices(ctx context.Context, _ *nothing) (api.Keys, error) {
	out := api.Keys{Keys: []api.Key{}, Buses: d.buses()}
	for _, k := range d.Keys.List() {
		key, err := d.key(ctx, k)
		if err != nil {
			return out, err
		}
		out.Keys = append(out.Keys, key)
	}
	return out, nil
}

func (d *Desk) watch(ctx context.Context, _ *nothing, write func(any) error) error {
	return d.Keys.Watch(ctx, func(e keys.Event) error {
		key, err := d.key(ctx, e.Key)
		if err != nil {
			return err
		}
		return write(api.KeyEvent{Event: string(e.Kind), Time: e.Time.UTC(), Key: key})
	})
}

// key joins what a key says with what the inventory knows of it.
func (d *Desk) key(ctx context.Context, k keys.Key) (out api.Key, err error) {
	out = api.Key{
		ID: string(k.ID), Serial: uint32(k.Serial), Bus: k.Bus, Port: k.Info.Port,
		Emulated: k.Info.Emulated, Problem: k.Problem, Cure: k.Cure, New: k.New, Model: "unknown",
	}
	if m, ok := device.FindModel(k.Info.Vendor, k.Info.Product); ok {
		out.Model = m.Name
	} else if known, ok := device.Makes[k.ID.Family()]; ok && !k.HID() {
		out.Model = known.Card
	}
	if c := k.Card; c.Bus != "" {
		out.Card = &api.Card{Reader: c.Reader, Emulated: c.Emulated, Problem: c.Problem, Cure: c.Cure}
	}
	if k.ID == "" {
		return out, nil
	}
	out.Firmware = k.Firmware.String()
	for _, h := range k.Holds {
		if id := device.AppToken(k.ID, h.Name); id.Programmable() {
			out.Slots = append(out.Slots, api.Slot{Token: string(id), Configured: h.Configured})
		} else {
			out.Applets = append(out.Applets, api.Applet{Name: h.Name, Locked: h.Locked, Used: h.Used, Capacity: h.Capacity})
		}
	}
	if out.Card != nil && k.Card.PIV {
		out.Card.PIV = &api.App{Token: string(device.PIVToken(k.ID))}
	}
	err = d.Vault.View(func(tx *vault.Tx) error {
		out.Unknown = true
		for i, s := range out.Slots {
			slot, known, err := d.recognize(ctx, tx, device.TokenID(s.Token), slotOf(s.Configured))
			if err != nil {
				return err
			}
			out.Slots[i], out.Unknown = slot, out.Unknown && !known
		}
		known, err := d.enrolledIn(ctx, tx, &out)
		if err != nil {
			return err
		}
		out.Unknown = out.Unknown && !known
		if out.Card == nil || out.Card.PIV == nil {
			return nil
		}
		app, known, err := d.recognize(ctx, tx, device.PIVToken(k.ID), slotUnseen)
		*out.Card.PIV = api.App{Token: app.Token, Status: app.Status, Owner: app.Owner, Due: app.Due}
		out.Unknown = out.Unknown && !known
		return err
	})
	if state := (*vault.StateError)(nil); errors.As(err, &state) {
		err = nil // the key is there all the same
	}
	return out, err
}

// enrolledIn adds to the applets of a key the tokens that the inventory has of them, also of an applet that was not looked into. Those
// that the caller may not see are left out: credentials are named by people.
func (d *Desk) enrolledIn(ctx context.Context, tx *vault.Tx, k *api.Key) (known bool, err error) {
	for t, err := range tx.AllTokens(vault.Filter{Device: device.ID(k.ID), Limit: 100}) {
		if err != nil {
			return known, err
		}
		_, app, _ := strings.Cut(string(t.ID), "/")
		applet, _, ok := strings.Cut(app, ":")
		if known = known || ok; !ok || !sees(ctx, t.Tenant) {
			continue
		}
		slot, _, err := d.recognize(ctx, tx, t.ID, slotUnseen)
		if err != nil {
			return known, err
		}
		i := slices.IndexFunc(k.Applets, func(a api.Applet) bool { return a.Name == applet })
		if i < 0 {
			i, k.Applets = len(k.Applets), append(k.Applets, api.Applet{Name: applet})
		}
		k.Applets[i].Tokens = append(k.Applets[i].Tokens, slot)
	}
	return known, nil
}

func (d *Desk) show(ctx context.Context, in *TokenPath) (api.Token, error) {
	id, err := in.id()
	if err != nil {
		return api.Token{}, err
	}
	out, err := d.token(ctx, id)
	if errors.Is(err, vault.ErrNotFound) {
		return out, d.missing(id, err)
	}
	return out, err
}

func (d *Desk) token(ctx context.Context, id device.TokenID) (out api.Token, err error) {
	err = d.Vault.View(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		if err != nil {
			return err
		}
		out, err = d.tokenOf(ctx, tx, t)
		return err
	})
	return out, err
}

// missing says of a token that is not there whether it ever was.
func (d *Desk) missing(id device.TokenID, notFound error) error {
	var stone vault.Tombstone
	err := d.Vault.View(func(tx *vault.Tx) (err error) { stone, _, err = tx.Tombstone(id); return err })
	switch {
	case err != nil:
		return err
	case stone.Officer == "":
		return notFound
	}
	text := fmt.Sprintf("%s is no longer in the inventory: it was deleted on %s by %s", id, stone.Time.Local().Format("2006-01-02"), stone.Officer)
	if stone.Owner != "" {
		text += "; " + stone.Owner + " had it last"
	}
	if stone.Reason != "" {
		text += "; " + stone.Reason
	}
	return api.Errorf(api.NotFound, "%s", text)
}

func (d *Desk) tokenOf(ctx context.Context, tx *vault.Tx, t vault.Token) (api.Token, error) {
	waiting, err := tx.ChangesOf(t.ID)
	if err != nil {
		return api.Token{}, err
	}
	kind := provision.TypeOf(t.ID).Code
	out := api.Token{
		ID: string(t.ID), Device: string(t.ID.Device()), Central: t.ID.Central(), Type: kind, TypeName: d.naming(kind).Name, Status: string(t.Status),
		Owner: t.Owner, Digits: t.Digits, Identifier: t.Identifier, Counter: t.Counter, Generation: t.Generation,
		Firmware: t.Firmware.String(), Emulated: t.Emulated, Created: t.Created, Updated: t.Updated, Stale: t.Stale, Waiting: len(waiting),
		Address: t.Address, Description: t.Description, Batch: t.Batch, Tenant: t.Tenant, LastUsed: timed(t.LastUsed), Expires: timed(t.Expires), Wiped: timed(t.Wiped),
		OutOfDate: d.outOfDate(t), Actions: offered(ctx, t), ReseedDue: t.ReseedDue, Replaces: string(t.Replaces), ReplacedBy: string(t.ReplacedBy),
	}
	if t.Loss != (vault.Loss{}) {
		out.Loss = &api.Loss{Kind: string(t.Loss.Kind), Words: t.Loss.Words, Time: t.Loss.Time, Owner: t.Loss.Owner}
	}
	if t.ID.PIV() {
		if out.Certificates, err = certificatesFor(tx, t); err != nil {
			return out, err
		}
	}
	job, found, err := tx.JobFor(t.ID)
	if found {
		out.Unfinished = provision.Waiting(job)
		out.Actions = slices.DeleteFunc(out.Actions, func(a string) bool { return !endsWork[provision.Action(a)] })
	} else if err == nil {
		out.Due, err = d.due(tx, t, slotUnseen)
	}
	return out, err
}

// endsWork are the actions that can be taken on a token whose work is unfinished.
var endsWork = map[provision.Action]bool{provision.ActCompromise: true, provision.ActDelete: true}

// timed is a moment, if there is one.
func timed(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
