package localapi

import (
	"context"
	"errors"
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

func (d *Desk) status(context.Context, *nothing) (api.Status, error) {
	s := api.Status{
		Version: d.Version, Since: d.Since, Tokens: map[string]int{}, Keys: len(d.Keys.List()),
		Buses: d.buses(), Unfinished: []string{},
		Vault: api.Vault{State: "open", ID: d.Vault.ID(), Path: d.Vault.Path(), Level: string(d.Vault.Level()), Means: d.Vault.Level().Describe()},
	}
	if d.Connector != nil {
		s.Central.Name = d.Connector.Name()
	}
	err := d.Vault.View(func(tx *vault.Tx) error {
		tokens, err := tx.Tokens(vault.Filter{})
		if err != nil {
			return err
		}
		for _, t := range tokens {
			s.Tokens[string(t.Status)]++
			if t.Owner == "" && t.Status == vault.Active {
				s.Stock++
			}
		}
		jobs, err := tx.Jobs()
		if err != nil {
			return err
		}
		for _, j := range jobs {
			s.Unfinished = append(s.Unfinished, string(j.Token)+": "+provision.Waiting(j))
		}
		changes, err := tx.Changes()
		for _, c := range changes {
			s.Central.Waiting++
			if c.Kind.CutOff() {
				s.Central.CutOffs++
			}
			if c.Parked {
				s.Central.Parked++
			}
			if s.Central.Oldest == nil {
				s.Central.Oldest = &c.Created
			}
			if c.Problem != "" {
				s.Central.Problem = c.Problem
			}
		}
		return err
	})
	return s, err
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

func (d *Desk) devices(context.Context, *nothing) (api.Keys, error) {
	out := api.Keys{Keys: []api.Key{}, Buses: d.buses()}
	for _, k := range d.Keys.List() {
		key, err := d.key(k)
		if err != nil {
			return out, err
		}
		out.Keys = append(out.Keys, key)
	}
	return out, nil
}

func (d *Desk) watch(ctx context.Context, _ *nothing, write func(any) error) error {
	return d.Keys.Watch(ctx, func(e keys.Event) error {
		key, err := d.key(e.Key)
		if err != nil {
			return err
		}
		return write(api.KeyEvent{Event: string(e.Kind), Time: e.Time.UTC(), Key: key})
	})
}

// key joins what a key says with what the inventory knows of it.
func (d *Desk) key(k keys.Key) (out api.Key, err error) {
	out = api.Key{
		ID: string(k.ID), Serial: uint32(k.Serial), Bus: k.Bus, Port: k.Info.Port,
		Emulated: k.Info.Emulated, Problem: k.Problem, Cure: k.Cure, New: k.New, Model: "unknown",
	}
	if m, ok := device.FindModel(k.Info.Vendor, k.Info.Product); ok {
		out.Model = m.Name
	}
	if k.ID == "" {
		return out, nil
	}
	out.Firmware = k.Firmware.String()
	err = d.Vault.View(func(tx *vault.Tx) error {
		for slot := 1; slot <= 2; slot++ {
			s := api.Slot{Token: string(device.SlotToken(k.ID, slot)), Configured: k.Configured[slot-1]}
			t, err := tx.Token(device.TokenID(s.Token))
			if err == nil {
				s.Status, s.Owner = string(t.Status), t.Owner
			} else if !errors.Is(err, vault.ErrNotFound) {
				return err
			}
			out.Slots = append(out.Slots, s)
		}
		return nil
	})
	return out, err
}

type listQuery struct {
	Device string `query:"device" doc:"Only tokens of this device" pattern:"^(yk-[0-9]{1,10})?$"`
	Owner  string `query:"owner" doc:"Only tokens of this user" maxLength:"64"`
	Status string `query:"status" doc:"Only tokens with this status" enum:"pending,active,disabled,limbo"`
	Text   string `query:"text" doc:"Only tokens whose name or owner contains this" maxLength:"64"`
	After  string `query:"after" doc:"Start after this token" maxLength:"64"`
	Limit  int    `query:"limit" doc:"At most so many" minimum:"1" maximum:"1000" default:"100"`
}

func (d *Desk) list(_ context.Context, q *listQuery) (out api.Tokens, err error) {
	out.Tokens = []api.Token{}
	err = d.Vault.View(func(tx *vault.Tx) error {
		tokens, err := tx.Tokens(vault.Filter{
			Device: device.ID(q.Device), Owner: q.Owner, Status: vault.Status(q.Status),
			Text: q.Text, After: device.TokenID(q.After), Limit: q.Limit + 1,
		})
		if err != nil {
			return err
		}
		if len(tokens) > q.Limit {
			tokens = tokens[:q.Limit]
			out.Next = string(tokens[q.Limit-1].ID)
		}
		waiting, err := waitingByToken(tx)
		if err != nil {
			return err
		}
		for _, t := range tokens {
			shown, err := tokenOf(tx, t, waiting)
			if err != nil {
				return err
			}
			out.Tokens = append(out.Tokens, shown)
		}
		return nil
	})
	return out, err
}

func (d *Desk) show(_ context.Context, in *TokenPath) (api.Token, error) {
	id, err := in.id()
	if err != nil {
		return api.Token{}, err
	}
	return d.token(id)
}

func (d *Desk) token(id device.TokenID) (out api.Token, err error) {
	err = d.Vault.View(func(tx *vault.Tx) error {
		t, err := tx.Token(id)
		if err != nil {
			return err
		}
		waiting, err := waitingByToken(tx)
		if err != nil {
			return err
		}
		out, err = tokenOf(tx, t, waiting)
		return err
	})
	return out, err
}

func waitingByToken(tx *vault.Tx) (map[device.TokenID]int, error) {
	n := map[device.TokenID]int{}
	changes, err := tx.Changes()
	for _, c := range changes {
		n[c.Token]++
	}
	return n, err
}

func tokenOf(tx *vault.Tx, t vault.Token, waiting map[device.TokenID]int) (api.Token, error) {
	out := api.Token{
		ID: string(t.ID), Device: string(t.ID.Device()), Central: t.ID.Central(), Type: "hotp", Status: string(t.Status),
		Owner: t.Owner, Digits: t.Digits, Identifier: t.Identifier, Counter: t.Counter, Generation: t.Generation,
		Firmware: t.Firmware.String(), Emulated: t.Emulated, Created: t.Created, Updated: t.Updated, Waiting: waiting[t.ID],
	}
	if !t.LastUsed.IsZero() {
		out.LastUsed = &t.LastUsed
	}
	job, found, err := tx.JobFor(t.ID)
	if found {
		out.Unfinished = provision.Waiting(job)
	}
	return out, err
}

func (d *Desk) outbox(context.Context, *nothing) (out api.Changes, err error) {
	out.Changes = []api.Change{}
	err = d.Vault.View(func(tx *vault.Tx) error {
		changes, err := tx.Changes()
		for _, c := range changes {
			out.Changes = append(out.Changes, changeOf(c))
		}
		return err
	})
	return out, err
}

type retryPath struct {
	Seq uint64 `path:"seq" doc:"Number of the change" minimum:"1"`
}

func (d *Desk) retry(_ context.Context, in *retryPath) (api.Changes, error) {
	if err := d.Outbox.Retry(in.Seq); err != nil {
		if errors.Is(err, vault.ErrNotFound) {
			return api.Changes{}, api.Errorf(api.NotFound, "the outbox has no change %d: it was confirmed, or never existed", in.Seq)
		}
		return api.Changes{}, err
	}
	return d.outbox(context.Background(), &nothing{})
}

func changeOf(c vault.Change) api.Change {
	out := api.Change{
		Seq: c.Seq, Kind: string(c.Kind), Token: string(c.Token), User: c.User, CutOff: c.Kind.CutOff(), State: "waiting",
		Attempts: c.Attempts, Created: c.Created, Problem: c.Problem,
	}
	if c.Parked {
		out.State = "parked"
	}
	if c.NotBefore.After(time.Now()) {
		out.NotBefore = &c.NotBefore
	}
	return out
}
