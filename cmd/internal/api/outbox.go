package api

import "time"

// Change is an outbox entry.
type Change struct {
	Seq       uint64     `json:"seq"`
	Kind      string     `json:"kind" example:"unassign"`
	Token     string     `json:"token"`
	User      string     `json:"user,omitempty"`
	CutOff    bool       `json:"cut_off" doc:"Ends somebody's access"`
	State     string     `json:"state" enum:"confirmed,waiting,parked,local" doc:"local: there is no central service to tell"`
	Attempts  int        `json:"attempts"`
	NotBefore *time.Time `json:"not_before,omitempty"`
	Created   time.Time  `json:"created"`
	Problem   string     `json:"problem,omitempty" doc:"What the last attempt failed with, or why an officer parked it"`
}

// Changes is one page of the outbox.
type Changes struct {
	Changes []Change `json:"changes"`
	Note    string   `json:"note,omitempty" doc:"What is to be done next"`
	Next    uint64   `json:"next,omitempty" doc:"Pass as 'after' for the next page"`
	Drain   *Drain   `json:"drain,omitempty" doc:"Absent while nothing is being delivered"`

	Approval *Approval `json:"approval,omitempty" doc:"Nothing was done: it waits for a second officer"`
}

// Drain is how far the outbox has come since it last began to deliver.
type Drain struct {
	Done      int        `json:"done"`
	Left      int        `json:"left"`
	PerSecond float64    `json:"per_second"`
	Until     *time.Time `json:"until,omitempty" doc:"When it will be empty at this pace"`
}

// ChangeDetail is a change and what holds it back.
type ChangeDetail struct {
	Change
	Holds []Hold `json:"holds" doc:"Empty: it is delivered next"`
}

// Hold is one thing that a change waits for.
type Hold struct {
	Seq  uint64 `json:"seq,omitempty" doc:"The change that goes first"`
	Text string `json:"text"`
}

// Reason says why an officer does something.
type Reason struct {
	Reason string `json:"reason" minLength:"1" maxLength:"200" pattern:"^[^\\p{Cc}]*[^\\p{Cc}\\s][^\\p{Cc}]*$" patternDescription:"some words in one line"`
}
