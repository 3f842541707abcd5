package provision

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
)

// The queue of leavers: whose tokens are to come back by when, and who gets them. The vault keeps what officers say of them. What
// has become of a token is seen in the vault, too, and counts for more: one that was reissued needs nobody's word.

// Leaver is somebody of the queue, as things are.
type Leaver struct {
	vault.Leaver
	Tokens []LeaverToken // Items, and what the leaver was given since
}

// LeaverToken is one of a leaver's tokens: what was said of it, and what is so.
type LeaverToken struct {
	vault.LeaverItem
	Fact    string // what is so, in words
	Settled bool   // nothing is left to be done
	Next    string // the command to go on with; empty if there is none
	AtHand  string // the command instead of that when its device is at hand; empty: the same
	Held    bool   // it is the leaver's still
	Freed   bool   // it is nobody's
}

// Open counts the tokens about which something is left to be done.
func (l Leaver) Open() (n int) {
	for _, t := range l.Tokens {
		if !t.Settled {
			n++
		}
	}
	return n
}

// Overdue tells whether the deadline has passed and something is open.
func (l Leaver) Overdue(now time.Time) bool { return l.Open() > 0 && now.After(l.Deadline) }

// Leavers returns the queue: first those of whom something is open, of these first those whose successor waits, then by deadline.
func Leavers(tx *vault.Tx) ([]Leaver, error) {
	all, err := tx.Leavers()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	asked, err := askedFor(tx)
	if err != nil {
		return nil, err
	}
	var queue []Leaver
	for _, one := range all {
		l, err := look(tx, one, asked)
		if err != nil {
			return nil, err
		}
		queue = append(queue, l)
	}
	slices.SortStableFunc(queue, func(a, b Leaver) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), a.Deadline.Compare(b.Deadline), strings.Compare(a.User, b.User))
	})
	return queue, nil
}

func (l Leaver) rank() int {
	switch {
	case l.Open() == 0:
		return 2
	case l.Successor == "":
		return 1
	}
	return 0
}

// LeaverOf returns one leaver; false if nobody of that name is in the queue.
func LeaverOf(tx *vault.Tx, user string) (l Leaver, found bool, err error) {
	kept, found, err := tx.Leaver(user)
	if err != nil || !found {
		return l, false, err
	}
	asked, err := askedFor(tx)
	if err != nil {
		return l, false, err
	}
	l, err = look(tx, kept, asked)
	return l, true, err
}

// LeaverWith returns the leaver about whose token something is open, and that token; false if there is none.
func LeaverWith(tx *vault.Tx, t vault.Token) (l Leaver, s LeaverToken, found bool, err error) {
	if tx.Counts().Leavers == 0 {
		return l, s, false, nil
	}
	user := t.Owner
	if user == "" {
		if user, err = formerLeaver(tx, t); err != nil || user == "" {
			return l, s, false, err
		}
	}
	if l, found, err = LeaverOf(tx, user); err != nil || !found {
		return l, s, false, err
	}
	i := slices.IndexFunc(l.Tokens, func(s LeaverToken) bool { return s.Token == t.ID && !s.Settled })
	if i < 0 {
		return l, s, false, nil
	}
	return l, l.Tokens[i], true, nil
}

// formerLeaver is who had a token that nobody has: of one that was given away before there was a chain of custody, the queue tells.
func formerLeaver(tx *vault.Tx, t vault.Token) (string, error) {
	user, err := FormerOwner(tx, t)
	if err != nil || user != "" {
		return user, err
	}
	all, err := tx.Leavers()
	for _, l := range all {
		if l.Settled.IsZero() && itemOf(l.Items, t.ID) >= 0 {
			return l.User, err
		}
	}
	return "", err
}

// chainRead is how much of a chain of custody is looked through for a name.
const chainRead = 20

// FormerOwner is who had a token last, or before the owner it has; empty if the chain of custody does not tell.
func FormerOwner(tx *vault.Tx, t vault.Token) (string, error) {
	links, err := tx.HandoversOf(t.ID, 0, chainRead)
	for _, h := range links {
		user := h.To
		if h.Old == t.ID { // another one came in its place
			user = h.From
		}
		if user != "" && !strings.EqualFold(user, t.Owner) {
			return user, nil
		}
	}
	return "", err
}

// askedFor are the approvals that wait, by token.
func askedFor(tx *vault.Tx) (map[device.TokenID]uint64, error) {
	all, err := tx.Approvals()
	asked := map[device.TokenID]uint64{}
	for _, a := range all {
		var o Order
		if !a.Expires.After(time.Now()) || !slices.Contains(orders, Action(a.Action)) || a.Action == string(ActResync) {
			continue
		}
		if err := json.Unmarshal(a.Request, &o); err != nil {
			return nil, fmt.Errorf("approval %d cannot be read: %w", a.ID, err)
		}
		for _, id := range o.Tokens {
			asked[id] = a.ID
		}
	}
	return asked, err
}

// look says how the tokens of a leaver are.
func look(tx *vault.Tx, kept vault.Leaver, asked map[device.TokenID]uint64) (Leaver, error) {
	l := Leaver{Leaver: kept}
	items := slices.Clone(kept.Items)
	if kept.Settled.IsZero() { // or it is over, and what they get is another matter
		held, err := heldBy(tx, kept.User)
		if err != nil {
			return l, err
		}
		for _, id := range held {
			if itemOf(items, id) < 0 {
				items = append(items, vault.LeaverItem{Token: id, State: vault.Open})
			}
		}
	}
	for _, item := range items {
		s, err := l.judge(tx, item, asked[item.Token])
		if err != nil {
			return l, err
		}
		s.Settled = s.Settled || !kept.Settled.IsZero()
		if s.Settled && !s.Freed { // a new seed is still due to a settled one that is stock
			s.Next = ""
		}
		l.Tokens = append(l.Tokens, s)
	}
	return l, nil
}

// maxHeld is how many tokens of one leaver are looked at.
const maxHeld = 1000

func heldBy(tx *vault.Tx, user string) (held []device.TokenID, err error) {
	for t, err := range tx.AllTokens(vault.Filter{Owner: user, Limit: 100}) {
		if err != nil {
			return nil, err
		}
		if held = append(held, t.ID); len(held) == maxHeld {
			break
		}
	}
	return held, nil
}

// judge says what has become of one token. asked is the approval that it waits for, if it does.
func (l Leaver) judge(tx *vault.Tx, item vault.LeaverItem, asked uint64) (LeaverToken, error) {
	s := LeaverToken{LeaverItem: item}
	t, err := tx.Token(item.Token)
	if errors.Is(err, vault.ErrNotFound) {
		return s.gone(tx)
	}
	if err != nil {
		return s, err
	}
	job, unfinished, err := tx.JobFor(t.ID)
	if err != nil {
		return s, err
	}
	links, err := tx.HandoversOf(t.ID, 0, 1)
	if err != nil {
		return s, err
	}
	s.Held, s.Freed = strings.EqualFold(t.Owner, l.User), t.Owner == "" && t.Status != vault.Compromised
	switch {
	case t.Status == vault.Compromised:
		s.Settled, s.Fact = true, fmt.Sprintf("is compromised (%s)", t.Loss.Kind)
	case unfinished:
		s.Fact, s.Next = Waiting(job), "tokendesk resolve "+string(t.ID)
	case s.Held && asked > 0:
		s.Fact = fmt.Sprintf("%s; approval %d waits for a second officer", l.access(t), asked)
		s.Next = fmt.Sprintf("tokendesk approvals approve %d", asked)
	case s.Held:
		s.Fact, s.Next, s.AtHand = l.access(t), l.next(item), l.takeBack(t.ID)
	case t.Owner != "":
		s.Settled, s.Fact = true, custody(links, t)
	case !t.ReseedDue && (item.State == vault.Returned || reseedable(t.ID) || !TypeOf(t.ID).Told()):
		s.Settled, s.Fact = true, "is back in stock"
	case item.State == vault.Returned && l.heir(t.ID) != "":
		s.Fact, s.Next = fmt.Sprintf("is back in stock, and %s waits for it", l.Successor), l.reissue(t.ID)
	case item.State == vault.Returned, item.State != vault.NotReturned && len(links) > 0 && links[0].Old == t.ID: // it was replaced as one of the stock
		s.Settled, s.Fact, s.Next = true, "is back in stock, and needs a new seed", "tokendesk reseed "+string(t.ID)
	default:
		s.Fact, s.Next, s.AtHand = l.User+" is cut off; the device has not come back", l.settle(t.ID, vault.Returned), l.takeBack(t.ID)
	}
	if t.ReplacedBy != "" {
		s.Fact += fmt.Sprintf("; %s came in its place", t.ReplacedBy)
	}
	return s, l.undelivered(tx, &s)
}

// offers tells whether an action exists for a token's type.
func offers(id device.TokenID, a Action) bool { return slices.Contains(TypeOf(id).Actions, a) }

// heir is the successor, if a token can be given away by a reissue; else it goes to stock.
func (l Leaver) heir(id device.TokenID) string {
	if !offers(id, ActReissue) {
		return ""
	}
	return l.Successor
}

// gone is a token that is not in the inventory any more.
func (s LeaverToken) gone(tx *vault.Tx) (LeaverToken, error) {
	stone, was, err := tx.Tombstone(s.Token)
	s.Settled, s.Fact = true, "is no longer in the inventory"
	if was {
		s.Fact = "was deleted on " + stone.Time.Local().Format(time.DateOnly)
	}
	return s, err
}

// access says what the leaver can do with a token that they have.
func (l Leaver) access(t vault.Token) string {
	if t.Status == vault.Active || t.Status == vault.Limbo { // that one's old seed counts until the new one is there
		return l.User + " can still log in with it"
	}
	return fmt.Sprintf("%s has it; it is %s", l.User, t.Status)
}

// undelivered adds that the central service does not know yet that the leaver is cut off.
func (l Leaver) undelivered(tx *vault.Tx, s *LeaverToken) error {
	waiting, err := tx.ChangesOf(s.Token)
	for _, c := range waiting {
		if c.Kind.CutOff() && strings.EqualFold(c.User, l.User) {
			s.Fact += fmt.Sprintf("; that waits in the outbox as change %d", c.Seq)
			break
		}
	}
	return err
}

// custody says how a token came to its owner.
func custody(links []vault.Handover, t vault.Token) string {
	fact := "belongs to " + t.Owner
	if len(links) > 0 && links[0].Token == t.ID && strings.EqualFold(links[0].To, t.Owner) {
		h := links[0]
		switch h.Kind {
		case vault.Reissued:
			fact = "was reissued to " + h.To
		case vault.Unchanged:
			fact = fmt.Sprintf("was reissued to %s, with its seed unchanged", h.To)
		default:
			fact = "was given to " + h.To
		}
	}
	if t.ReseedDue {
		fact += "; its seed is still the leaver's: tokendesk reseed " + string(t.ID)
	}
	return fact
}

// next is what to do about a token that the leaver has.
func (l Leaver) next(item vault.LeaverItem) string {
	switch {
	case item.State == vault.Returned && l.heir(item.Token) != "":
		return l.reissue(item.Token)
	case item.State != vault.Open:
		return l.settle(item.Token, item.State)
	case time.Now().After(l.Deadline):
		return l.settle(item.Token, vault.NotReturned)
	}
	return l.settle(item.Token, vault.Returned)
}

// takeBack is what to do about a token whose device is here.
func (l Leaver) takeBack(id device.TokenID) string {
	if l.heir(id) != "" {
		return l.reissue(id)
	}
	return l.settle(id, vault.Returned)
}

func (l Leaver) reissue(id device.TokenID) string {
	command := fmt.Sprintf("tokendesk reissue %s --to %s", id, l.Successor)
	if !reseedable(id) { // it is given away with its seed, and two codes show that it is the one
		command += " CODE CODE"
	}
	return command
}

func (l Leaver) settle(id device.TokenID, state vault.ReturnState) string {
	return fmt.Sprintf("tokendesk leavers settle %s %s --%s", l.User, id, strings.ReplaceAll(string(state), " ", "-"))
}
