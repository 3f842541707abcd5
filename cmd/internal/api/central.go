package api

import "time"

// Central is how the push stands.
type Central struct {
	Name      string     `json:"name,omitempty" doc:"Absent without a central service" example:"openldap"`
	Waiting   int        `json:"waiting"`
	CutOffs   int        `json:"cut_offs" doc:"Waiting changes that end somebody's access"`
	Parked    int        `json:"parked"`
	Oldest    *time.Time `json:"oldest,omitempty"`
	Problem   string     `json:"problem,omitempty"`
	Read      *time.Time `json:"read,omitempty" doc:"When all counters were last read back"`
	Missing   []string   `json:"missing,omitempty" doc:"Providers that could not be read then, and why"`
	Rollbacks []Rollback `json:"rollbacks,omitempty" doc:"Providers that went back, and accepted used codes again: those still open, and the last day's"`
}

// Rollback is one provider's having gone back in one token's counter.
type Rollback struct {
	Token    string     `json:"token"`
	Provider string     `json:"provider"`
	From     uint64     `json:"from" doc:"Next moving factor that the provider had shown"`
	To       uint64     `json:"to" doc:"The lowest that it showed afterwards: codes in between were accepted again"`
	LastGood time.Time  `json:"last_good" doc:"Begin of the exposure, at the earliest"`
	Noticed  time.Time  `json:"noticed"`
	Repaired *time.Time `json:"repaired,omitempty" doc:"End of the exposure; absent while it lasts"`
}

// Drift is the desk and every provider of the central service, side by side.
type Drift struct {
	Providers []string   `json:"providers"`
	Missing   []string   `json:"missing,omitempty" doc:"Providers that could not be read, and why"`
	Agree     int        `json:"agree" doc:"Tokens without a difference"`
	Differ    int        `json:"differ"`
	Settling  int        `json:"settling" doc:"Of those that differ: changes in the outbox will settle them"`
	Breaches  int        `json:"breaches" doc:"Of those that differ: they are open there, and must not be"`
	Rows      []DriftRow `json:"rows" doc:"Those that differ, the first thousand"`
}

// DriftRow is one token, here and there.
type DriftRow struct {
	Token       string       `json:"token,omitempty" doc:"Absent if the desk never had such a token"`
	Central     string       `json:"central_name"`
	Desk        *DeskSide    `json:"desk,omitempty" doc:"Absent if the desk does not know it"`
	Deleted     *Deleted     `json:"deleted,omitempty" doc:"The desk had it, and deleted it"`
	There       []There      `json:"there" doc:"In the order of the providers"`
	Differences []Difference `json:"differences"`
}

// DeskSide is what the desk has of a token.
type DeskSide struct {
	Owner      string `json:"owner"`
	Status     string `json:"status"`
	Counter    uint64 `json:"counter"`
	Generation int    `json:"generation"`
}

// Deleted is what the desk has of a token that it has deleted.
type Deleted struct {
	Time       time.Time `json:"time"`
	Generation int       `json:"generation" doc:"Of its last seed"`
}

// There is what a provider has of it.
type There struct {
	Provider   string `json:"provider"`
	Problem    string `json:"problem,omitempty" doc:"Why the provider could not be read"`
	Exists     bool   `json:"exists"`
	Owner      string `json:"owner,omitempty"`
	Enabled    bool   `json:"enabled"`
	Counter    uint64 `json:"counter"`
	Generation int    `json:"generation,omitempty"`
	Ours       bool   `json:"ours" doc:"The seed was put there by this desk"`
}

// Difference is one between the desk and a provider.
type Difference struct {
	Kind     string `json:"kind" example:"owner"`
	Provider string `json:"provider"`
	Text     string `json:"text"`
	Breach   bool   `json:"breach,omitempty" doc:"Open there, and must not be"`
	Pending  string `json:"pending,omitempty" doc:"What will settle it without a repair"`
}

// RepairChoice says what becomes of changes that were made in the server's own tools.
type RepairChoice struct {
	Choice string   `json:"choice" enum:"put-back,take-over"`
	Tokens []string `json:"tokens,omitempty" maxItems:"1000" doc:"Only these; absent: all that differ"`
}

// Repair carries out a plan that was shown.
type Repair struct {
	RepairChoice
	Digest string `json:"digest" minLength:"1" maxLength:"100" doc:"Of the plan that was shown"`
}

// RepairPlan is what a repair would do.
type RepairPlan struct {
	Steps   []RepairStep `json:"steps"`
	Skipped []RepairSkip `json:"skipped,omitempty"`
	Digest  string       `json:"digest"`
}

// RepairStep is what would be done about one token.
type RepairStep struct {
	Token  string `json:"token"`
	Do     string `json:"do"`
	Why    string `json:"why"`
	Breach bool   `json:"breach,omitempty"`
}

// RepairSkip is a token that differs and that a repair leaves alone.
type RepairSkip struct {
	Central string `json:"central_name"`
	Why     string `json:"why"`
}

// Repaired is what a repair has led to.
type Repaired struct {
	Steps   int      `json:"steps"`
	Changes []Change `json:"changes" doc:"What became of the changes for the central service, the first hundred"`
	More    int      `json:"more,omitempty" doc:"Further changes, in the outbox"`
}
