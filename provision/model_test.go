package provision_test

import (
	"fmt"

	"tokendesk/device"
	"tokendesk/vault"
)

// shadow is what the test believes of a token, from what is expected of the actions alone.
type shadow struct {
	situation
	generation int
	job        string // the unfinished plan
	user       string // whom the plan will give it to
	next       int    // the generation that the plan will lead to
	enrolled   bool   // by the desk: it is in the emulated key
	erased     bool   // compromised, and wiped
}

// believed is the vault and the central service as they should be.
type believed struct {
	tokens map[device.TokenID]*shadow
	buried map[device.TokenID]int // the generation that a tombstone has to tell
	there  map[device.TokenID]central
}

// central is a token at a central service that does what it is told.
type central struct {
	enabled    bool
	user       string
	generation int
}

// deliver applies changes to a copy of the central service.
func (m *believed) deliver(changes []vault.Change) map[device.TokenID]central {
	there := map[device.TokenID]central{}
	for id, c := range m.there {
		there[id] = c
	}
	for _, c := range changes {
		at, exists := there[c.Token]
		switch c.Kind {
		case vault.Put:
			at.generation = c.Generation
			s := m.tokens[c.Token]                                                                          // a put carries the status that the token has when it is delivered
			at.enabled = s != nil && (s.status == vault.Active || s.status == vault.Limbo && s.owner != "") // which is being reseeded
		case vault.Enable:
			at.enabled = true
		case vault.Disable:
			at.enabled = false
		case vault.Assign:
			at.user = c.User
		case vault.Unassign:
			at.user = ""
		case vault.Remove:
			delete(there, c.Token)
			continue
		}
		if exists || c.Kind == vault.Put || c.Kind == vault.Assign {
			there[c.Token] = at
		}
	}
	return there
}

// agree checks that vault and central service, once all changes are delivered, are what the test believes.
func (m *believed) agree(b *bench) []string { return append(m.agreeHere(b), m.agreeThere(b)...) }

// agreeHere checks that the vault is what the test believes.
func (m *believed) agreeHere(b *bench) (found []string) {
	bad := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	b.view(func(tx *vault.Tx) error {
		seen := 0
		for t, err := range tx.AllTokens(vault.Filter{}) {
			if err != nil {
				return err
			}
			seen++
			s := m.tokens[t.ID]
			if s == nil {
				bad("%s is in the vault: %+v", t.ID, t)
				continue
			}
			job, _, err := tx.JobFor(t.ID)
			if err != nil {
				return err
			}
			if t.Status != s.status || t.Owner != s.owner || t.Generation != s.generation || job.Kind != s.job {
				bad("%s is %s of %q, generation %d, in %q; expected is %+v", t.ID, t.Status, t.Owner, t.Generation, job.Kind, *s)
			}
		}
		if seen != len(m.tokens) {
			bad("%d tokens are in the vault, expected are %d", seen, len(m.tokens))
		}
		for id, generation := range m.buried {
			grave, ok, err := tx.Tombstone(id)
			if err != nil || !ok || grave.Generation != generation {
				bad("the tombstone of %s says %+v (%v, %v), expected is generation %d", id, grave, ok, err, generation)
			}
		}
		return nil
	})
	return found
}

// agreeThere checks what the central service is told.
func (m *believed) agreeThere(b *bench) (found []string) {
	bad := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	b.view(func(tx *vault.Tx) error {
		changes, err := tx.ChangesFrom(0, 0)
		if err != nil {
			return err
		}
		there := m.deliver(changes)
		for id, s := range m.tokens {
			at := there[id]
			accepted := s.owner != "" && (s.status == vault.Active || s.status == vault.Limbo) // a reseed goes on with the old seed until the new one is there
			if in := at.enabled && at.user != ""; in != accepted || accepted && (at.user != s.owner || at.generation != s.generation) {
				bad("%s is %s of %q, generation %d here, and %+v there", id, s.status, s.owner, s.generation, at)
			}
		}
		for id := range m.buried {
			if at, exists := there[id]; exists && m.tokens[id] == nil {
				bad("%s was deleted, and is %+v there", id, at)
			}
		}
		return nil
	})
	return found
}

// keepUp has the central service confirm everything.
func (p *player) keepUp() {
	p.view(func(tx *vault.Tx) error {
		changes, err := tx.ChangesFrom(0, 0)
		p.m.there = p.m.deliver(changes)
		return err
	})
	p.bench.deliver()
}
