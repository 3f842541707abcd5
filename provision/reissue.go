package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
)

// Shape is a way to take a token's access from its owner and to give it to somebody.
type Shape string

// Shapes of a reissue.
const (
	AtHand      Shape = "at hand"        // the device gets a fresh seed now
	Absent      Shape = "without device" // the owner is cut off now; the device gets a fresh seed when it turns up
	Replacement Shape = "replacement"    // another device comes in its place
	Unchanged   Shape = "seed unchanged" // the device's seed cannot be replaced: it is given away as it is
)

// Reissue is what an officer asks for: a token's access for somebody else, or on another device. Whoever has the token is
// always cut off first.
type Reissue struct {
	Token device.TokenID
	User  string // the new owner; a replacement goes to the old one if there is none
	Shape Shape  // empty: Replacement with With, else AtHand or, if the type knows no reseed, Unchanged

	With     device.TokenID // Replacement: the token that comes in its place, of the stock or not in the inventory
	Old      OldEnd         // Replacement: what becomes of the one before
	Settings                // Replacement: of a token that is not in the inventory

	ContinueOffline bool     // go on although the central service does not confirm the cut-off; takes a reason
	Reason          string   // an officer's words, up to 200 bytes
	Codes           []string // Unchanged: two in a row that the device shows

	Owner *string // who had it when the officer decided; nil: whoever has it

	May func(tenant string) bool // of which tenants the officer may reset smart cards, beyond the token's own; nil: of all
}

// OldEnd is what becomes of a token that is replaced.
type OldEnd struct {
	Loss  vault.LossKind `json:"loss,omitempty"` // empty: it goes back to stock
	Words string         `json:"words,omitempty"`
}

// Settings are those of a device's slot.
type Settings struct {
	Digits     int  // 6 or 8; 0: as many as the old one has
	Identifier bool // have the key type its identifier before each code; also if the old one does
	Enter      bool // have it press Enter after each code
	Overwrite  bool // replace what the slot holds now
}

// ErrDeviceWanted means that somebody is cut off, and that the rest waits for the device; Resolve goes on.
var ErrDeviceWanted = errors.New("it waits for its device")

const reseeded = "verified: the key gives codes of the new seed and not of the old one"

func reissuePlan() []step {
	return []step{
		{name: "cut-off", done: "cut-off of the old owner recorded", commit: cutOff},
		{name: stepConfirm, done: "cut-off confirmed by the central service", act: confirm},
		{name: stepSeal, done: "fresh seed sealed in the vault", act: clearCard, commit: sealNext},
		{name: "program", done: "%s reprogrammed; the key confirmed the write", device: true, act: program, commit: written},
		{name: "verify", done: reseeded, device: true, repeat: true, act: verify, commit: activate},
		{name: "assign", done: "recorded for the new owner, and left for the central service", commit: assign, gives: true},
	}
}

func absentPlan() []step {
	plan := reissuePlan()
	return slices.Insert(plan, 2, step{name: stepDevice, done: "the device is here", act: arrive})
}

// Reissue cuts the owner of a token off, if it has one, and gives its access, on this device or another, to a user. What it
// returns was left for the central service. Without the device it ends with an *UnfinishedError that is ErrDeviceWanted.
func (r *Runner) Reissue(ctx context.Context, by audit.Officer, o Reissue, tell Tell) ([]vault.Change, error) {
	o, err := o.normal()
	if err != nil {
		return nil, err
	}
	tokens := []device.TokenID{o.Token}
	if o.With != "" {
		tokens = append(tokens, o.With)
		slices.Sort(tokens)
	}
	release, err := r.claimAll(tokens)
	if err != nil {
		return nil, err
	}
	defer release()
	if o.Shape == Replacement {
		return r.replace(ctx, by, o, tell)
	}
	t, err := r.fitFor(o.Token, ActReissue)
	if err != nil {
		return nil, err
	}
	if err := o.suits(t); err != nil {
		return nil, err
	}
	var cardOf *string
	err = r.Vault.View(func(tx *vault.Tx) (err error) { cardOf, err = o.cardOf(tx, t); return err })
	if err != nil {
		return nil, err
	}
	there, err := r.mayCut(ctx, r.cutting(t.ID), t.Owner)
	if err != nil {
		return nil, err
	}
	user, served, err := r.checkUser(ctx, o.User)
	if err != nil {
		return nil, err
	}
	defer served()
	emulated := false
	if o.Shape == AtHand {
		if _, emulated, err = r.inspect(ctx, t.ID); err != nil {
			if t.Owner != "" {
				err = fmt.Errorf("%w; to cut %s off now, and to reseed it when it turns up, repeat with --without-device", err, t.Owner)
			}
			return nil, err
		}
	}
	p := afresh(t, emulated)
	p.User, p.Leaver, p.Reason, p.Anyway, p.CardOf = user, t.Owner, o.Reason, o.ContinueOffline, cardOf
	if o.Shape == Unchanged {
		p.Generation = t.Generation
	}
	w := r.job(o.Shape.plan(), by, t.ID, p, tell)
	w.there, w.typed = there, o.Codes
	return w.run(ctx)
}

func (s Shape) plan() string {
	switch s {
	case Absent:
		return planAbsent
	case Replacement:
		return planReplace
	case Unchanged:
		return planUnchanged
	}
	return planReissue
}

// normal refuses what cannot be meant, and says which shape is.
func (o Reissue) normal() (Reissue, error) {
	for _, id := range []device.TokenID{o.Token, o.With} {
		if _, err := device.ParseTokenID(string(id)); err != nil && id != "" || o.Token == "" {
			return o, refuse("", "%q is not a token", id)
		}
	}
	var err error
	if o.Reason, err = sensible(o.Reason); err != nil {
		return o, err
	}
	if o.Old.Words, err = sensible(o.Old.Words); err != nil {
		return o, err
	}
	if o.Shape == "" {
		switch {
		case o.With != "":
			o.Shape = Replacement
		case reseedable(o.Token):
			o.Shape = AtHand
		default:
			o.Shape = Unchanged
		}
	}
	switch {
	case o.ContinueOffline && o.Reason == "":
		return o, refuse("say why: --reason WORDS", "to go on before the cut-off is confirmed takes a reason")
	case (o.Shape == Replacement) != (o.With != ""):
		return o, refuse("name the one that comes in its place: --with DEVICE", "another token belongs to a replacement, and to nothing else")
	case o.Shape != Replacement && o.Old != (OldEnd{}):
		return o, refuse("leave it out", "what becomes of the old token is only asked when another one replaces it")
	case o.Shape == Replacement && o.With == o.Token:
		return o, refuse("name another one", "%s cannot replace itself", o.Token)
	case o.Shape != Replacement && o.User == "":
		return o, refuse("name the new owner", "a reissue needs a new owner")
	case o.Shape != Unchanged && len(o.Codes) > 0:
		return o, refuse("leave them out", "%s is verified by codes of its new seed, when it has that", o.Token)
	case o.Shape == Unchanged && len(o.Codes) != proofCodes:
		return o, refuse(fmt.Sprintf("have it show two codes in a row: tokendesk reissue %s --to USER CODE CODE", o.Token),
			"the seed of %s cannot be replaced, so two codes have to show that this is it", o.Token)
	}
	return o, nil
}

// suits refuses a token that is not as the officer thinks, or of a type for another shape.
func (o Reissue) suits(t vault.Token) error {
	if err := o.stillTheirs(t); err != nil {
		return err
	}
	switch {
	case o.User != "" && strings.EqualFold(t.Owner, o.User):
		return refuse("to repair a counter: tokendesk resync "+string(t.ID), "%s belongs to %s already", t.ID, t.Owner)
	case o.Shape == Unchanged && reseedable(t.ID):
		return refuse("leave the shape out", "%s can get a fresh seed, and does when it changes hands", t.ID)
	case o.Shape != Unchanged && !reseedable(t.ID):
		return refuse(fmt.Sprintf("to give it away as it is: tokendesk reissue %s --to USER CODE CODE; to take it from its owner: tokendesk unassign %s", t.ID, t.ID),
			"the seed of %s cannot be replaced", t.ID)
	}
	return nil
}

// stillTheirs refuses a token that somebody else has by now than the officer was asked about.
func (o Reissue) stillTheirs(t vault.Token) error {
	if o.Owner == nil || strings.EqualFold(*o.Owner, t.Owner) {
		return nil
	}
	now := "is stock"
	if t.Owner != "" {
		now = "belongs to " + t.Owner
	}
	return refuse(fmt.Sprintf("look what has happened: tokendesk show %s", t.ID), "%s %s by now, and that is not what you were asked about", t.ID, now)
}

// cutting is what a reissue does to the owner, as an order. That it cuts its owner off is what a reissue is for, and no slip;
// but it must not replace a second officer.
func (r *Runner) cutting(id device.TokenID) Order {
	return Order{Action: ActUnassign, Tokens: []device.TokenID{id}, Reason: "reissue"}
}

// mayCut refuses an order against an owner that takes a second officer, and returns who has tokens elsewhere.
func (r *Runner) mayCut(ctx context.Context, o Order, owner string) (there census, err error) {
	if owner == "" || !r.Policy.LastToken {
		return nil, nil
	}
	if there, _, err = r.ask(ctx, &o); err != nil {
		return nil, err
	}
	return there, r.Vault.View(func(tx *vault.Tx) error { return r.alone(tx, o, there) })
}

// cutOff takes the token from its owner, here and, through the outbox, centrally.
func cutOff(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	if t.Owner == "" {
		return errors.Join(w.earlierCutOff(tx, t.ID), w.dueOf(tx, t.ID.Device(), "reissue of "+string(t.ID)))
	}
	if w.Policy.LastToken {
		if err := w.alone(tx, w.cutting(t.ID), w.there); err != nil {
			return err
		}
	}
	change, err := w.push(tx, t, vault.Unassign, t.Owner)
	if err != nil {
		return err
	}
	w.params.Leaver, w.params.CutOff = t.Owner, change.Seq
	t.Owner = ""
	t.ReseedDue = t.ReseedDue || w.job.Kind == planAbsent
	return errors.Join(tx.PutToken(t), w.dueOf(tx, t.ID.Device(), "reissue of "+string(t.ID)), w.notify(tx, NoticeReissued, t.ID, w.params.Leaver, w.params.User, w.params.Reason))
}

// earlierCutOff finds the cut-off of a token's last owner that is still on its way, if any.
func (w *work) earlierCutOff(tx *vault.Tx, id device.TokenID) error {
	waiting, err := tx.ChangesOf(id)
	for _, c := range waiting {
		if c.Kind == vault.Unassign {
			w.params.Leaver, w.params.CutOff = c.User, c.Seq
		}
	}
	return err
}

// confirm waits for the central service: the new owner must not come before the old one's cut-off. Where an officer has it
// go on all the same, the outbox keeps to that order.
func confirm(ctx context.Context, w *work) error {
	if err := w.Vault.View(func(tx *vault.Tx) (err error) { w.params.GivenUp, err = w.givenUp(tx); return err }); err != nil {
		return err
	}
	if w.params.CutOff == 0 && !w.params.GivenUp {
		w.other = "nobody is to be cut off centrally"
		return nil
	}
	if w.Confirm == nil {
		w.other = unconfirmed
		w.tell(Progress{Kind: Note, Text: "no central service is configured: the cut-off waits in the outbox"})
		return nil
	}
	var err error
	if w.params.GivenUp {
		err = errGivenUp
	} else {
		err = w.Confirm(ctx, w.params.CutOff)
	}
	switch {
	case err == nil:
		return nil
	case w.params.Anyway && w.params.GivenUp:
		w.other = fmt.Sprintf("the cut-off of %s was given up by officers, who may still be able to log in", w.params.Leaver)
		w.tell(Progress{Kind: Note, Text: w.other})
		return nil
	case w.params.Anyway && ctx.Err() == nil:
		w.other = unconfirmed
		w.tell(Progress{Kind: Note, Text: fmt.Sprintf("the cut-off of %s is not confirmed (%v): going on, as you have said; nobody gets anything centrally before it is", w.params.Leaver, err)})
		return nil
	}
	return fmt.Errorf("the cut-off of %s is not confirmed yet: %w", w.params.Leaver, err)
}

// errGivenUp means that the central service was never told of a cut-off.
var errGivenUp = errors.New("officers have given it up, so that the central service was never told: cut that user off there, and go on with tokendesk resolve --continue-offline")

const unconfirmed = "the cut-off is not confirmed yet; it goes before everything else"

// arrive waits for the device. The work does not go on by itself to it: it was begun because that is not here.
func arrive(ctx context.Context, w *work) error {
	if w.job.Step > w.began {
		return fmt.Errorf("%w: insert %s", ErrDeviceWanted, w.job.Token.Device())
	}
	_, emulated, err := w.inspect(ctx, w.job.Token)
	w.params.Emulated = w.params.Emulated || emulated
	return err
}

// sealNext seals the next seed. From here until it is verified the device may hold either.
func sealNext(tx *vault.Tx, w *work, _ time.Time) error {
	t, err := tx.Token(w.job.Token)
	if err != nil {
		return err
	}
	t.Status = vault.Limbo
	if err := tx.PutToken(t); err != nil {
		return err
	}
	p := proof{digits: w.params.Digits, start: w.params.StartCounter, oldCounter: t.Counter}
	if t.Generation != 0 {
		if p.old, err = tx.Seed(t.ID, t.Generation); err != nil {
			return err
		}
		defer p.old.Wipe()
	}
	seed := p.freshSeed()
	defer seed.Wipe()
	return tx.SetSeed(t.ID, w.params.Generation, seed)
}
