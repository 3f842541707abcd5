package localapi

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// fruitless is how many codes of a key may come that place none of its tokens, for each that is to be placed.
const fruitless = 4

// tray is a resync of all the inserted keys that have tokens, by codes that they type.
type tray struct {
	desk *Desk
	ctx  context.Context // of the request
	tell func(api.CaptureEvent)
	all  []*trayToken
	keys map[device.ID]*trayKey
}

// trayKey is one key, and what it has typed that belongs to no token yet.
type trayKey struct {
	tokens []*trayToken
	codes  []string
}

// trayToken is one token of it.
type trayToken struct {
	id      device.TokenID
	digits  int
	attempt *syncer.Attempt // nil if it cannot be resynced now
	shown   api.TrayToken
	change  vault.Change // the last one for the central service
}

// open tells whether the token still waits for codes.
func (t *trayToken) open() bool { return t.shown.State == "waiting" || t.shown.State == "touched" }

func (d *Desk) resyncTray(ctx context.Context, _ *nothing, tell func(api.CaptureEvent)) (last api.CaptureEvent, err error) {
	t := &tray{desk: d, ctx: ctx, tell: tell, keys: map[device.ID]*trayKey{}}
	defer t.close()
	if err := t.gather(); err != nil {
		return last, err
	}
	if err := t.begin(); err != nil {
		return last, err
	}
	listening, name, over := d.captures.begin(ctx)
	defer over()
	first := api.CaptureEvent{Capture: name}
	for _, token := range t.all {
		first.Tokens = append(first.Tokens, token.shown)
	}
	waiting := t.waiting()
	for _, id := range waiting {
		first.Devices = append(first.Devices, string(id))
	}
	tell(first)
	var result api.Tray
	if len(waiting) > 0 {
		err := d.Runner.Tray(listening, waiting, t.typed, func(p provision.Progress) { tell(capturedKey(p)) })
		if result.Ended, err = t.ended(err); err != nil {
			return last, err
		}
	}
	if err := t.explain(); err != nil {
		return last, err
	}
	var changes []vault.Change
	for _, token := range t.all {
		result.Tokens = append(result.Tokens, token.shown)
		if token.change.Seq != 0 {
			changes = append(changes, token.change)
		}
	}
	result.Changes = d.settle(ctx, changes)
	return api.CaptureEvent{Resynced: &result}, nil
}

// gather finds the tokens of the inserted keys that the caller is an officer of.
func (t *tray) gather() error {
	reach := reachOf(t.ctx)
	err := t.desk.Vault.View(func(tx *vault.Tx) error {
		for _, id := range t.desk.usable() {
			for slot := 1; slot <= 2; slot++ {
				found, err := tx.Token(device.SlotToken(id, slot))
				if errors.Is(err, vault.ErrNotFound) || err == nil && !officers.admits(reach.in(found.Tenant)) {
					continue
				}
				if err != nil {
					return err
				}
				token := &trayToken{id: found.ID, digits: found.Digits, shown: api.TrayToken{
					Token: string(found.ID), Owner: found.Owner, State: "waiting", From: found.Counter,
				}}
				if t.keys[id] == nil {
					t.keys[id] = &trayKey{}
				}
				t.keys[id].tokens = append(t.keys[id].tokens, token)
				t.all = append(t.all, token)
			}
		}
		return nil
	})
	if err == nil && len(t.all) == 0 {
		err = api.Errorf(api.Device, "no inserted key has a token to resync: insert them; tokendesk devices shows what is seen, and tokendesk identify --capture whose a key is")
	}
	return err
}

// begin reads what is known of every token, here and centrally, for all at once: an answer can take seconds.
func (t *tray) begin() error {
	var g errgroup.Group
	notes := make([]string, len(t.all))
	for i, token := range t.all {
		g.Go(func() error {
			err := t.desk.Runner.Ready(token.id, provision.ActResync)
			var a *syncer.Attempt
			if err == nil {
				a, err = t.desk.Outbox.Begin(t.ctx, officer(t.ctx), token.id)
			}
			if err != nil {
				return t.failed(token, err)
			}
			token.attempt, notes[i] = a, a.Note
			return nil
		})
	}
	err := g.Wait()
	told := map[string]bool{"": true}
	for _, note := range notes {
		if !told[note] {
			told[note] = true
			t.tell(api.CaptureEvent{Note: note})
		}
	}
	return err
}

func (t *tray) close() {
	for _, token := range t.all {
		if token.attempt != nil {
			token.attempt.Close()
		}
	}
}

// waiting are the keys with tokens to be placed.
func (t *tray) waiting() (all []device.ID) {
	for _, token := range t.all {
		if id := token.id.Device(); token.open() && !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	return all
}

// failed notes why a token cannot be resynced; an error that is none of the token's is returned.
func (t *tray) failed(token *trayToken, err error) error {
	known := t.desk.classified(err)
	if known == nil || known.Code == api.VaultTrouble {
		return err
	}
	token.shown.State, token.shown.Problem = "failed", known
	return nil
}

// typed places a code that a key has typed; done says that none of its tokens waits for more.
func (t *tray) typed(c provision.Typed) (done bool, err error) {
	key := t.keys[c.Device]
	moved, err := t.surplus(key, c.Code)
	if err != nil {
		return false, err
	}
	if !moved {
		key.codes = append(key.codes, c.Code)
		if err := t.place(key); err != nil {
			return false, err
		}
	}
	for _, token := range key.tokens {
		if token.open() {
			return false, nil
		}
	}
	return true, nil
}

// surplus moves the counter of a token that is placed already behind one more of its codes.
func (t *tray) surplus(key *trayKey, code string) (moved bool, err error) {
	for _, token := range key.tokens {
		if token.shown.State != "resynced" || len(code) != token.digits {
			continue
		}
		moved, change, err := token.attempt.Surplus(code)
		if miss := (*syncer.MissError)(nil); errors.As(err, &miss) { // somebody else has moved it meanwhile
			continue
		}
		if err != nil {
			return false, err
		}
		if moved {
			token.change = change
			token.shown.To = change.Counter
			token.shown.Surplus++
			t.desk.Outbox.Wake()
			t.show(token)
			return true, nil
		}
	}
	return false, nil
}

// place tries the last code of a key with those before it: between two of one slot there may be some of the other.
func (t *tray) place(key *trayKey) error {
	last := len(key.codes) - 1
	open := 0
	for _, token := range key.tokens {
		if !token.open() {
			continue
		}
		for before := last - 1; before >= 0; before-- {
			change, ok, err := token.attempt.ResyncLast([]string{key.codes[before], key.codes[last]})
			if err != nil {
				return t.failed(token, err)
			}
			if ok {
				t.placed(key, token, change, before)
				return nil
			}
		}
		open++
	}
	for _, token := range key.tokens {
		if !token.open() {
			continue
		}
		token.shown.State = "touched"
		token.shown.Codes = len(key.codes)
		if len(key.codes) >= fruitless*open {
			if err := t.missed(key, token); err != nil {
				return err
			}
		}
		t.show(token)
	}
	return nil
}

// placed notes that a token was resynced by the last code of its key and one before, and forgets these.
func (t *tray) placed(key *trayKey, token *trayToken, change vault.Change, before int) {
	t.desk.Outbox.Wake()
	token.change = change
	token.shown.State, token.shown.Codes, token.shown.To = "resynced", 0, change.Counter
	key.codes = append(key.codes[:before:before], key.codes[before+1:len(key.codes)-1]...)
	t.show(token)
	for _, other := range key.tokens {
		if other.open() && other.shown.Codes != len(key.codes) {
			if other.shown.Codes = len(key.codes); other.shown.Codes == 0 {
				other.shown.State = "waiting"
			}
			t.show(other)
		}
	}
}

// missed explains why the codes of a key do not place a token.
func (t *tray) missed(key *trayKey, token *trayToken) error {
	return t.failed(token, token.attempt.Missed(key.codes))
}

func (t *tray) show(token *trayToken) {
	shown := token.shown
	t.tell(api.CaptureEvent{Token: &shown})
}

// ended says why a tray was over early; an error that is none of the keys' is returned.
func (t *tray) ended(err error) (why string, _ error) {
	switch {
	case err == nil:
		return "", nil
	case errors.Is(err, device.ErrNoTouch):
		return err.Error(), nil
	}
	return "", err
}

// explain says of each token that was not placed why.
func (t *tray) explain() error {
	for _, token := range t.all {
		if !token.open() {
			continue
		}
		key := t.keys[token.id.Device()]
		var err error
		switch n := len(slices.DeleteFunc(slices.Clone(key.codes), func(c string) bool { return len(c) != token.digits })); {
		case n == 0:
			token.shown.State = "untouched"
		case n == 1: // which may well be the next one, but proves too little
			err = t.failed(token, api.Errorf(api.NotVerified, "only one code came: touch the key twice"))
		default:
			err = t.missed(key, token)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
