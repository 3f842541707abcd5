package vault

import (
	"encoding/json"
	"fmt"
	"time"

	"tokendesk/device"
	"tokendesk/vault/audit"
)

// Status is what a token is fit for. Who owns it is a separate fact.
type Status string

// Statuses.
const (
	Pending     Status = "pending"     // its seed was never verified
	Active      Status = "active"      // verified; accepted centrally while it has an owner
	Disabled    Status = "disabled"    // temporarily refused centrally
	Limbo       Status = "limbo"       // the device may hold either of two seeds; resolve settles it
	Expired     Status = "expired"     // its time is over (Token.Expires); refused centrally until it is given more
	Compromised Status = "compromised" // refused centrally for ever, for the reason in Token.Loss
)

// LossKind is why a token is compromised.
type LossKind string

// Kinds of loss. Other takes words.
const (
	Lost      LossKind = "lost"
	Stolen    LossKind = "stolen"
	Damaged   LossKind = "damaged"
	Destroyed LossKind = "destroyed"
	Other     LossKind = "other"
)

// Loss is the end of a token that never comes back.
type Loss struct {
	Kind  LossKind  `json:"kind"`
	Words string    `json:"words,omitempty"` // an officer's, up to 200 bytes
	Time  time.Time `json:"time"`
	Owner string    `json:"owner,omitempty"` // who had it last
}

// Token is one authenticator in the inventory. It is stored readable but authenticated.
type Token struct {
	ID         device.TokenID `json:"id"`
	Serial     device.Serial  `json:"serial"`
	Firmware   device.Version `json:"firmware"`
	Status     Status         `json:"status"`
	Owner      string         `json:"owner,omitempty"`
	Digits     int            `json:"digits"`
	Identifier bool           `json:"identifier,omitempty"` // the token types its identifier before each code
	Enter      bool           `json:"enter,omitempty"`      // the token presses Enter after each code
	Counter    uint64         `json:"counter"`              // the next moving factor expected (RFC 4226)
	Generation int            `json:"generation"`           // of the seed that Counter belongs to; 0 before the first is verified
	Emulated   bool           `json:"emulated"`             // for ever, once true (rule D6)
	Created    time.Time      `json:"created"`
	Updated    time.Time      `json:"updated"`            // when more than the counter changed
	LastUsed   time.Time      `json:"last_used,omitzero"` // when a code of it was last seen, by the desk or, as far as that is known, centrally
	// Stale says that the vault was restored from a backup since: the counter is old, and one code proves nothing before two
	// have moved it on (resync before use).
	Stale       bool   `json:"stale,omitempty"`
	Seen        string `json:"seen,omitempty"`        // what each provider of the central service showed last, in package syncer's short form
	WentBack    bool   `json:"went_back,omitempty"`   // Seen tells of a provider that went back
	Batch       string `json:"batch,omitempty"`       // the delivery or enrollment that it came with
	Tenant      string `json:"tenant,omitempty"`      // empty for the only one
	Description string `json:"description,omitempty"` // an officer's words

	Address string `json:"address,omitempty"` // where its codes are sent, if it is one whose codes are sent

	// ReseedDue says that it was taken from its owner while the device was not at hand: whoever has that has the seed. A fresh
	// seed, once verified, ends it.
	ReseedDue  bool           `json:"reseed_due,omitempty"`
	Replaces   device.TokenID `json:"replaces,omitempty"`    // the token in whose place it came
	ReplacedBy device.TokenID `json:"replaced_by,omitempty"` // the one that came in its place

	Expires time.Time `json:"expires,omitzero"` // from then on it is refused; zero: never
	Loss    Loss      `json:"loss,omitzero"`    // of a compromised token
	Wiped   time.Time `json:"wiped,omitzero"`   // when a compromised token was erased on its device
}

// Job is a piece of multi-step work in the journal. It is there from its first step until it has
// finished or was undone, and a restart finds it.
type Job struct {
	ID      uint64          `json:"id"`
	Kind    string          `json:"kind"` // names the plan: see package provision
	Token   device.TokenID  `json:"token"`
	Step    int             `json:"step"` // how many steps of the plan are done
	Params  json.RawMessage `json:"params"`
	Officer string          `json:"officer"`
	Created time.Time       `json:"created"`
	Updated time.Time       `json:"updated"`
	Problem string          `json:"problem,omitempty"` // why it stopped
}

// ChangeKind is what an outbox entry asks of the central service.
type ChangeKind string

// Changes. Cut-offs end somebody's access and are never coalesced or dropped.
const (
	Put      ChangeKind = "put"      // the token with its counter as of Generation, and with its secret while its codes may be accepted
	Assign   ChangeKind = "assign"   // bind the token to User
	Unassign ChangeKind = "unassign" // cut-off: release it from User
	Disable  ChangeKind = "disable"  // cut-off: codes are refused from now on
	Enable   ChangeKind = "enable"   // codes are accepted again
	Advance  ChangeKind = "advance"  // move the counter forward to Counter
	Remove   ChangeKind = "remove"   // cut-off: the token is deleted, or its name is to be free for a new one
)

// CutOff reports whether the change ends somebody's access.
func (k ChangeKind) CutOff() bool { return k == Unassign || k == Disable || k == Remove }

// Change is one entry of the outbox: committed here, not yet confirmed there. It holds no secret;
// the seed is looked up by Token and Generation when it is delivered.
type Change struct {
	Seq        uint64         `json:"seq"`
	Kind       ChangeKind     `json:"kind"`
	Token      device.TokenID `json:"token"`
	User       string         `json:"user,omitempty"`
	Generation int            `json:"generation"`
	Counter    uint64         `json:"counter"` // the next moving factor when the change was made
	Digits     int            `json:"digits"`
	Created    time.Time      `json:"created"`
	After      uint64         `json:"after,omitempty"` // the Seq of a change, of whatever token, that has to be confirmed first
	Attempts   int            `json:"attempts"`
	NotBefore  time.Time      `json:"not_before,omitzero"` // backoff: no attempt earlier
	Parked     bool           `json:"parked,omitempty"`    // waits for an officer; holds back its token, and those who depend on it
	ParkedBy   audit.Officer  `json:"parked_by,omitzero"`  // the officer who parked it; zero: the desk did, see Problem
	Reason     string         `json:"reason,omitempty"`    // why that officer did
	Problem    string         `json:"problem,omitempty"`   // what the last attempt failed with
	Closed     bool           `json:"closed,omitempty"`    // of a Remove: nobody can log in with the token, and something of it is left
}

// Level says how well a vault is protected. It stands in the authenticated header.
type Level string

// Levels.
const (
	LevelTPM        Level = "tpm"        // bound to this board's TPM
	LevelEmulated   Level = "emulated"   // bound to a software TPM: for tests only
	LevelPassphrase Level = "passphrase" // software only
	LevelKeyFile    Level = "keyfile"    // software only, and the key lies beside it
)

// Describe says honestly what the level protects against, with a PIN or without.
func (l Level) Describe(pin bool) string {
	switch {
	case l == LevelTPM && pin:
		return "bound to this board and a PIN; whoever breaks or listens to the TPM still has to guess the PIN"
	case l == LevelTPM:
		return "bound to this board; any process with TPM access and the file can open it"
	case l == LevelEmulated && pin:
		return "EMULATED TPM: bound to a software TPM and a PIN; protects like a passphrase at best; for tests only"
	case l == LevelEmulated:
		return "EMULATED TPM: bound to a software TPM, protects nothing; for tests only"
	case l == LevelPassphrase:
		return "software: protected by passphrase only; copies can be attacked offline; no rollback detection"
	case l == LevelKeyFile:
		return "obfuscation: the key lies in a file; whoever copies both can open it; no rollback detection"
	}
	return fmt.Sprintf("unknown level %q", string(l))
}
