package provision

// Next is the step at which a job of a plan stands once step i is committed.
func Next(plan string, i int) int { return next(plans()[plan], i) }

// Begins tells whether a transaction begins with step i of a plan.
func Begins(plan string, i int) bool { return i == 0 || Next(plan, i-1) == i }
