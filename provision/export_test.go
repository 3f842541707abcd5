package provision

import (
	"slices"

	"tokendesk/vault/secret"
)

// Next is the step at which a job of a plan stands once step i is committed.
func Next(plan string, i int) int { return next(plans()[plan], i) }

// Begins tells whether a transaction begins with step i of a plan.
func Begins(plan string, i int) bool { return i == 0 || Next(plan, i-1) == i }

// Mutate changes the transition table until restore is called.
func Mutate(change func([]Rule)) (restore func()) {
	before := lifecycle
	lifecycle = Lifecycle()
	change(lifecycle)
	return func() { lifecycle = before }
}

// Forbid takes an action from the type of all tokens until restore is called.
func Forbid(a Action) (restore func()) {
	before := types
	types = slices.Clone(types)
	for i := range types {
		types[i].Actions = slices.DeleteFunc(slices.Clone(types[i].Actions), func(b Action) bool { return a == b })
	}
	return func() { types = before }
}

// Unclaimed tells whether nobody has a claim to anything.
func (r *Runner) Unclaimed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.busy) == 0
}

// Prove checks codes of 6 digits against a seed from its first counter on, and the one before.
func Prove(seed, old secret.Secret, codes []string) (next uint64, ok bool, err error) {
	return proof{seed: seed, digits: 6, old: old}.check(codes)
}

// Fresh draws a seed for codes of 6 digits that is to replace another one.
func Fresh(old secret.Secret) secret.Secret {
	return proof{digits: 6, old: old, oldCounter: 7, start: 16}.freshSeed()
}
