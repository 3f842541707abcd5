package syncer

import (
	"context"
	"fmt"
	"strings"
	"sync"
)

// inventory is what all providers have, in little room.
type inventory struct {
	providers []string
	problems  []string // why a provider was not reached, or not to its end; empty if it was
	counts    []int    // tokens by provider

	mu     sync.Mutex
	index  map[string]int // lower-case central names
	names  []string       // as they were read first; empty once taken
	cells  []cell         // len(providers) for each name
	users  []string
	userAt map[string]uint32
}

// cell is one token at one provider.
type cell struct {
	counter    uint64
	user       uint32 // in users
	generation int32
	flags      uint8
}

const (
	cellExists = 1 << iota
	cellEnabled
	cellOurs
)

// gather reads all providers at the same time.
func (d *Drift) gather(ctx context.Context) (*inventory, error) {
	providers := d.c.Providers()
	inv := &inventory{providers: providers, problems: make([]string, len(providers)), counts: make([]int, len(providers)),
		index: map[string]int{}, users: []string{""}, userAt: map[string]uint32{"": 0}}
	errs := make([]error, len(providers))
	var all sync.WaitGroup
	for i, p := range providers {
		all.Go(func() {
			errs[i] = patiently(ctx, d.cfg.Patience, func(ctx context.Context, alive func()) error {
				return d.c.Inventory(ctx, p, func(page []Entry) error {
					alive()
					inv.add(i, page)
					return nil
				})
			})
		})
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	reached := false
	var last error
	for i, err := range errs {
		if err != nil {
			inv.problems[i], last = err.Error(), err
			continue
		}
		reached = true
	}
	if !reached && len(providers) > 0 {
		return nil, fmt.Errorf("no provider of the central service can be read: %w", last)
	}
	return inv, nil
}

func (v *inventory) add(provider int, page []Entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range page {
		folded := strings.ToLower(e.Central)
		i, ok := v.index[folded]
		if !ok {
			i = len(v.names)
			v.index[folded] = i
			v.names = append(v.names, e.Central)
			v.cells = append(v.cells, make([]cell, len(v.providers))...)
		}
		user, ok := v.userAt[e.Owner]
		if !ok {
			user = uint32(len(v.users))
			v.users = append(v.users, e.Owner)
			v.userAt[e.Owner] = user
		}
		c := cell{counter: e.Counter, user: user, generation: int32(min(e.Generation, 1<<31-1)), flags: cellExists}
		if e.Enabled {
			c.flags |= cellEnabled
		}
		if e.Ours {
			c.flags |= cellOurs
		}
		v.cells[i*len(v.providers)+provider] = c
		v.counts[provider]++
	}
}

// take returns a token at all providers, and remembers that it was asked for.
func (v *inventory) take(central string) []ProviderSide {
	i, ok := v.index[strings.ToLower(central)]
	if !ok {
		i = -1
	} else {
		v.names[i] = ""
	}
	return v.sides(i)
}

// rest calls fn for every token that was not taken and is at a provider that was reached.
func (v *inventory) rest(fn func(central string, there []ProviderSide) error) error {
	for i, name := range v.names {
		if name == "" {
			continue
		}
		there, exists := v.sides(i), false
		for _, p := range there {
			exists = exists || p.Exists
		}
		if !exists {
			continue
		}
		if err := fn(name, there); err != nil {
			return err
		}
	}
	return nil
}

func (v *inventory) sides(i int) []ProviderSide {
	all := make([]ProviderSide, len(v.providers))
	for p, name := range v.providers {
		all[p] = ProviderSide{Provider: name, Problem: v.problems[p]}
		if i < 0 || v.problems[p] != "" {
			continue
		}
		c := v.cells[i*len(v.providers)+p]
		all[p].Exists, all[p].Enabled, all[p].Ours = c.flags&cellExists != 0, c.flags&cellEnabled != 0, c.flags&cellOurs != 0
		all[p].Owner, all[p].Counter, all[p].Generation = v.users[c.user], c.counter, int(c.generation)
	}
	return all
}
