package api

// Miss is why codes did not fit. It holds none.
type Miss struct {
	Kind   string `json:"kind" enum:"used,reversed,gap,beyond,other-token,nothing,not-codes,repeated,count,unverified,restored,changed" doc:"used: behind the counter; gap: touches in between are missing; beyond: further ahead than one officer may move the counter"`
	Gap    int    `json:"gap,omitempty" doc:"gap: how many codes are missing"`
	Ahead  uint64 `json:"ahead,omitempty" doc:"reversed, gap, beyond: how far ahead of the counter the oldest code is"`
	Behind uint64 `json:"behind,omitempty" doc:"used: how far behind the counter it is"`
	Token  string `json:"token,omitempty" doc:"other-token: whose codes they are; absent if that is not the caller's to know"`
	Owner  string `json:"owner,omitempty" doc:"other-token: who has that one"`
}

// MaxResyncLines is how many lines a resync of many tokens takes.
const MaxResyncLines = 10_000

// ResyncLines asks for a resync of many tokens.
type ResyncLines struct {
	Lines []ResyncLine `json:"lines" minItems:"1" maxItems:"10000"`
}

// ResyncLine is a token and consecutive codes of it.
type ResyncLine struct {
	Line  int      `json:"line" doc:"Where it stands, for people"`
	Token string   `json:"token" maxLength:"64" example:"yk-12345678/otp2"`
	Codes []string `json:"codes" maxItems:"3" doc:"Two or three, oldest first"`
}

// ResyncResult is what became of a line.
type ResyncResult struct {
	Line    int    `json:"line"`
	Token   string `json:"token"`
	Owner   string `json:"owner,omitempty"`
	From    uint64 `json:"from,omitempty" doc:"The next moving factor before"`
	To      uint64 `json:"to,omitempty" doc:"The next moving factor since; absent if the line failed"`
	Problem *Error `json:"problem,omitempty" doc:"Why the counter was not moved"`
}

// ResyncEvent is one line of the answer to a resync of many tokens: progress first, then the results, some at a time, in the order of
// the lines. The answer is whole once Done equals Of and all results are there.
type ResyncEvent struct {
	Done    int            `json:"done,omitempty" doc:"Lines that are done"`
	Of      int            `json:"of,omitempty"`
	Results []ResyncResult `json:"results,omitempty"`
	Last    bool           `json:"last,omitempty" doc:"There are no more results"`
	Error   *Error         `json:"error,omitempty"`
}
