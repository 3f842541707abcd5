package syncer

// Capabilities say what a central service can do, and how. What differs between services stands here, and is asked for
// here, and nowhere else.
type Capabilities struct {
	Stores        Moment      // which moving factor it keeps; connectors translate
	LookAhead     int         // codes beyond the next one that a login may skip; 0 if the service does not tell
	ResyncCodes   int         // consecutive codes that its own resync takes; 0: it has none, and the desk computes the counter
	SetCounter    CounterMove // what somebody else may do to a counter
	CompareAndSet bool        // a counter is only written if it is still what was read
	FailClosed    bool        // after a Disable nobody logs in with the token, and not without it either
	ReadsBack     Facts       // what can be seen of a token
	FindsUsers    bool        // FindUser tells whether a user exists
	TokensPerUser int         // how many one user can have; 0: any number
}

// Moment is a moving factor relative to a login.
type Moment string

// Moments.
const (
	NextCounter Moment = "next"
	LastCounter Moment = "last-used"
)

// CounterMove is what may be done to a counter from outside.
type CounterMove string

// Moves.
const (
	MoveAbsolute CounterMove = "absolute"
	MoveForward  CounterMove = "forward-only"
	MoveNone     CounterMove = "none"
)

// Facts are what a service shows of a token.
type Facts struct {
	Counter     bool
	Owner       bool
	LastUsed    bool
	Fingerprint bool // whether a known seed is there, without showing it
}
