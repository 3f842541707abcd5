package api

// UserTokens is all that is known of one user's tokens.
type UserTokens struct {
	User      string      `json:"user"`
	Known     bool        `json:"known" doc:"The central service knows the user"`
	Problem   string      `json:"problem,omitempty"`
	Tokens    []UserToken `json:"tokens"`
	Leaver    *Leaver     `json:"leaver,omitempty" doc:"The user leaves, or has left"`
	Types     []UserType  `json:"types" doc:"What could be added for the user: types that are retired are not"`
	Handovers []Handover  `json:"handovers" doc:"What the user was given or has given back, the newest five"`
}

// UserToken is one of them.
type UserToken struct {
	Token       string       `json:"token,omitempty"`
	Central     string       `json:"central_name"`
	Ours        bool         `json:"ours" doc:"The desk has it, or has deleted it; what is not its own is changed with the tools that have made it"`
	Desk        *DeskSide    `json:"desk,omitempty" doc:"Absent if the desk does not know it"`
	Deleted     *Deleted     `json:"deleted,omitempty" doc:"The desk had it, and deleted it"`
	There       *Seen        `json:"there,omitempty" doc:"All providers together; absent if they were not asked"`
	Problem     string       `json:"problem,omitempty"`
	Differences []Difference `json:"differences"`
	Waiting     int          `json:"waiting"`
	Unfinished  string       `json:"unfinished,omitempty" doc:"Work on it that waits to be resolved"`
	Actions     []string     `json:"actions" doc:"What the caller can do with it now"`
}

// Seen is what the central service shows of a token. Whose seed it has is not seen: see DriftRow.
type Seen struct {
	Provider string `json:"provider"`
	Exists   bool   `json:"exists"`
	Owner    string `json:"owner,omitempty"`
	Enabled  bool   `json:"enabled"`
	Counter  uint64 `json:"counter"`
}

// UserType is a type of which a token could be added.
type UserType struct {
	Code        string `json:"code"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Problem     string `json:"problem,omitempty" doc:"Why none can be added now"`
}
