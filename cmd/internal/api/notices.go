package api

import "time"

// Notice is mail to a token's holder that was not sent yet.
type Notice struct {
	ID        uint64     `json:"id"`
	Kind      string     `json:"kind" example:"invitation"`
	User      string     `json:"user" doc:"To whom; the address is looked up when it is sent"`
	Token     string     `json:"token"`
	State     string     `json:"state" enum:"waiting,paused,parked" doc:"paused: it is tried again later; parked: it waits for an officer"`
	Attempts  int        `json:"attempts"`
	NotBefore *time.Time `json:"not_before,omitempty"`
	Created   time.Time  `json:"created"`
	Problem   string     `json:"problem,omitempty" doc:"What the last attempt failed with"`
}

// Notices is one page of them, the oldest first.
type Notices struct {
	Notices []Notice      `json:"notices"`
	Next    uint64        `json:"next,omitempty" doc:"Pass as 'after' for the next page"`
	State   NoticesStatus `json:"state"`
}

// NoticesStatus is how the sending of notices stands.
type NoticesStatus struct {
	Configured bool   `json:"configured" doc:"Notices are written and sent"`
	Waiting    int    `json:"waiting" doc:"Not sent yet, those that are parked included"`
	Parked     int    `json:"parked"`
	Problem    string `json:"problem,omitempty" doc:"Why nothing can be sent to anybody just now"`
}
