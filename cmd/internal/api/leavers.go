package api

import "time"

// Leaver is somebody who leaves, and how their tokens stand.
type Leaver struct {
	User      string        `json:"user"`
	Successor string        `json:"successor,omitempty" doc:"Who is to get their token; absent: it goes back to stock"`
	Deadline  time.Time     `json:"deadline" doc:"By then every token is to be returned, or given up"`
	Overdue   bool          `json:"overdue,omitempty" doc:"It has passed, and something is open"`
	Words     string        `json:"words,omitempty" doc:"An officer's"`
	Officer   string        `json:"officer" doc:"Who has put them into the queue"`
	Created   time.Time     `json:"created"`
	Settled   *time.Time    `json:"settled,omitempty" doc:"When nothing was left to be done"`
	Open      int           `json:"open" doc:"Tokens about which something is left to be done"`
	Tokens    []LeaverToken `json:"tokens"`
}

// LeaverToken is one of a leaver's tokens.
type LeaverToken struct {
	Token    string     `json:"token" example:"yk-12345678/otp2"`
	State    string     `json:"state" enum:"open,returned,not returned,written off" doc:"What an officer has said of it"`
	Time     *time.Time `json:"time,omitempty" doc:"When that was said"`
	Officer  string     `json:"officer,omitempty"`
	Words    string     `json:"words,omitempty"`
	Fact     string     `json:"fact" doc:"What is so, whatever was said" example:"alice can still log in with it"`
	Held     bool       `json:"held,omitempty" doc:"The leaver has it still"`
	Settled  bool       `json:"settled" doc:"Nothing is left to be done"`
	Next     string     `json:"next,omitempty" doc:"The command to go on with"`
	Inserted bool       `json:"inserted,omitempty" doc:"Its device is inserted"`
}

// Leavers is the queue: first those whose successor waits, then by deadline.
type Leavers struct {
	Leavers []Leaver `json:"leavers"`
}

// NewLeaver puts somebody into the queue, or changes what is said of somebody who is there.
type NewLeaver struct {
	User      string     `json:"user" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._@-]+$"`
	Successor string     `json:"successor,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9._@-]*$" doc:"Who is to get the token"`
	Deadline  *time.Time `json:"deadline,omitempty" doc:"Absent: the end of today"`
	Words     string     `json:"words,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line"`
}

// Added is a leaver who was put into the queue.
type Added struct {
	Leaver Leaver   `json:"leaver"`
	Notes  []string `json:"notes,omitempty" doc:"What is worth knowing about their tokens"`
}

// LeaverLines are several of them, each taken or not by itself.
type LeaverLines struct {
	Leavers []NewLeaver `json:"leavers" minItems:"1" maxItems:"100"`
}

// LeaverResults say what became of each, in the same order.
type LeaverResults struct {
	Results []LeaverResult `json:"results"`
}

// LeaverResult is one of them.
type LeaverResult struct {
	Added   *Added `json:"added,omitempty"`
	Problem *Error `json:"problem,omitempty" doc:"Why this one was not taken"`
}

// Settlement says what became of a leaver's token, or of all that are open.
type Settlement struct {
	Token  string `json:"token,omitempty" maxLength:"64" pattern:"^([a-z]{2,8}-[0-9a-z]{1,20}(/[a-z0-9]+(:[a-z0-9._-]+)?)?)?$" patternDescription:"the name of a token" doc:"Absent: all that are open"`
	State  string `json:"state" enum:"returned,not returned,written off"`
	Reason string `json:"reason,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line"`
}

// Settled is what that has led to.
type Settled struct {
	Leaver   Leaver    `json:"leaver"`
	Changes  []Change  `json:"changes" doc:"What became of the changes for the central service"`
	Approval *Approval `json:"approval,omitempty" doc:"What was said is kept, and the cut-off waits for a second officer"`
	Text     string    `json:"text,omitempty"`
}
