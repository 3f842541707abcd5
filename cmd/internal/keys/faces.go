package keys

import (
	"fmt"
	"slices"
	"strings"

	"tokendesk/device"
)

// isCard tells whether a port is that of a smart card, and not an HID interface.
func (p *port) isCard() bool { return !p.key.HID() }

func (p *port) name() string { return portKey(p.key.Bus, p.key.Info.Path) }

// samePort tells whether two faces are on one USB port, and whether that is known.
func samePort(a, b *port) (same, known bool) {
	x, y := a.key.Info.Port, b.key.Info.Port
	return x == y, x != "" && y != ""
}

// mayBeOne tells whether two ports may be faces of one physical key, as far as is known of them.
func mayBeOne(a, b *port) bool {
	if a.isCard() == b.isCard() {
		return false
	}
	if b.isCard() {
		a, b = b, a
	}
	if m, known := device.FindModel(b.key.Info.Vendor, b.key.Info.Product); known && !m.Has(device.CCID) {
		return false
	}
	if same, known := samePort(a, b); known {
		return same
	}
	return a.key.ID == "" || b.key.ID == "" || a.key.ID == b.key.ID
}

// areOne tells whether two ports are known to be faces of one physical key.
func areOne(a, b *port) bool {
	_, known := samePort(a, b)
	return mayBeOne(a, b) && (known || a.key.ID != "" && b.key.ID != "")
}

// other is the other face of the physical key that p is a face of; nil if none is known. Of several that say so, as twins do,
// it is always the same.
func (r *Registry) other(p *port) *port {
	if q := r.likeliest(p); q != nil && r.likeliest(q) == p {
		return q
	}
	return nil
}

func (r *Registry) likeliest(p *port) (best *port) {
	rank := func(q *port) string {
		if _, known := samePort(p, q); known {
			return "port " + q.name()
		}
		return "serial " + q.name()
	}
	for _, q := range r.ports {
		if areOne(p, q) && (best == nil || rank(q) < rank(best)) {
			best = q
		}
	}
	return best
}

// principals are the ports by which keys are known, in the order of the keys' names: HID interfaces, and cards
// without one. A card that is being identified may still turn out to be another face of a key.
func (r *Registry) principals() (all []*port) {
	for _, p := range r.ports {
		if !p.isCard() || p.announced && r.other(p) == nil {
			all = append(all, p)
		}
	}
	order := func(p *port) string { return string(r.whole(p).ID) + " " + p.key.Info.Path }
	slices.SortFunc(all, func(a, b *port) int { return strings.Compare(order(a), order(b)) })
	return all
}

// whole is the key that p is a face of, whatever other keys there are.
func (r *Registry) whole(p *port) Key {
	q := r.other(p)
	if p.isCard() && q != nil {
		p, q = q, p
	}
	key := p.key
	key.New = !p.announced
	switch {
	case p.isCard():
		key.Card.Problem, key.Card.Cure = key.Problem, key.Cure
	case q != nil && hasForeignCard(key):
		// An OpenPGP card, which the desk leaves alone: nothing to tell.
	case q != nil:
		key.Card = q.key.Card
		key.Card.Problem, key.Card.Cure = q.key.Problem, q.key.Cure
		key.Info.Emulated = key.Info.Emulated || q.key.Card.Emulated
		key.Card.Emulated = key.Info.Emulated
		for _, h := range q.key.Holds {
			if !slices.ContainsFunc(key.Holds, func(known device.Holding) bool { return known.Name == h.Name }) {
				key.Holds = append(slices.Clip(key.Holds), h)
			}
		}
		if key.ID == "" {
			key.ID, key.Serial, key.Firmware = q.key.ID, q.key.Serial, q.key.Firmware
		}
	}
	return key
}

// hasForeignCard tells whether the smart card of a key is nothing that the desk works with.
func hasForeignCard(k Key) bool {
	m, _ := device.FindModel(k.Info.Vendor, k.Info.Product)
	return m.Has(device.NitrokeySlots)
}

// wholeOf is whole for who does not hold the registry.
func (r *Registry) wholeOf(p *port) Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.whole(p)
}

// lent is the key of a face whose owner knows it as key, as it is lent to somebody.
func (r *Registry) lent(p *port, key Key) Key {
	whole := r.wholeOf(p)
	whole.ID, whole.Serial, whole.Firmware, whole.New = key.ID, key.Serial, key.Firmware, false
	if key.HID() {
		whole.Problem, whole.Cure = key.Problem, key.Cure
	}
	whole.Holds = key.Holds
	return whole
}

// view is the key that is known by p, with what follows from the other keys.
func (r *Registry) view(p *port) Key {
	key := r.whole(p)
	if key.ID == "" {
		return key
	}
	for _, other := range r.principals() {
		if k := r.whole(other); other != p && k.ID == key.ID {
			key.Problem, key.Cure = twins(key.ID, key, k), "pull one of them"
		}
	}
	return key
}

func (r *Registry) list() (list []Key) {
	for _, p := range r.principals() {
		list = append(list, r.view(p))
	}
	return list
}

// TwinsError says that two inserted keys claim one serial number.
type TwinsError struct{ words string }

func (e *TwinsError) Error() string { return e.words }

func twins(id device.ID, a, b Key) string {
	x, y := where(a), where(b)
	if y < x {
		x, y = y, x
	}
	return fmt.Sprintf("two inserted keys say they are %s (%s and %s)", id, x, y)
}

// where says where a key is that may have no name.
func where(k Key) string {
	if k.HID() {
		return fmt.Sprintf("%s port %s", k.Bus, k.Info.Port)
	}
	return fmt.Sprintf("%s reader %s", k.Bus, k.Card.Reader)
}
