package api

import "time"

// Loss is why a token is compromised.
type Loss struct {
	Kind  string    `json:"kind" enum:"lost,stolen,damaged,destroyed,other"`
	Words string    `json:"words,omitempty" doc:"An officer's"`
	Time  time.Time `json:"time"`
	Owner string    `json:"owner,omitempty" doc:"Who had it last"`
}

// Order asks for one action on one or several tokens: all of them or none.
type Order struct {
	Tokens      []string   `json:"tokens" minItems:"1" maxItems:"1000" maxLength:"64" pattern:"^[a-z]{2,8}-[0-9a-z]{1,20}(/[a-z0-9]+(:[a-z0-9._-]+)?)?$" patternDescription:"the name of a token" example:"[\"yk-12345678/otp2\"]"`
	User        string     `json:"user,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9._@-]*$" doc:"assign: to whom"`
	Loss        string     `json:"loss,omitempty" enum:"lost,stolen,damaged,destroyed,other" doc:"compromise: why; other takes a reason"`
	Reason      string     `json:"reason,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line"`
	Description *string    `json:"description,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line" doc:"edit: the new one; absent: as it is"`
	Address     *string    `json:"address,omitempty" maxLength:"320" pattern:"^[^\\p{Cc}]*$" patternDescription:"an address in one line" doc:"edit, of a token whose codes are sent: the new one; absent: as it is"`
	Tenant      *string    `json:"tenant,omitempty" maxLength:"64" pattern:"^[a-z0-9-]*$" doc:"edit: whose it is to be from now on; empty: the desk's; absent: as it is"`
	Expires     *time.Time `json:"expires,omitempty" doc:"edit: when its time is over; 0001-01-01T00:00:00Z: never; absent: as it is"`
}

// Effect is what an order does to one token.
type Effect struct {
	Token    string   `json:"token"`
	From     string   `json:"from" doc:"Status before"`
	To       string   `json:"to,omitempty" doc:"Status afterwards; absent: it is gone"`
	Owner    string   `json:"owner,omitempty" doc:"Who has it now"`
	NewOwner string   `json:"new_owner,omitempty" doc:"Who has it afterwards"`
	Pushes   []string `json:"pushes" doc:"Changes for the central service" example:"[\"unassign\",\"disable\"]"`
	LastOf   string   `json:"last_of,omitempty" doc:"The user who is left without an active token"`
	Warning  string   `json:"warning,omitempty" doc:"What speaks against it, and what to do instead"`
}

// Intent is what an order would do.
type Intent struct {
	Effects   []Effect `json:"effects"`
	Why       []string `json:"why" doc:"Why a second officer has to approve it; empty: nobody has to"`
	Permanent bool     `json:"permanent" doc:"It cannot be taken back"`
}

// Outcomes is what an order has led to.
type Outcomes struct {
	Tokens   []Token   `json:"tokens" doc:"As they are now, without those that are gone"`
	Changes  []Change  `json:"changes" doc:"What became of the changes for the central service"`
	Approval *Approval `json:"approval,omitempty" doc:"Nothing was done: it waits for a second officer"`
	Text     string    `json:"text,omitempty"`

	Revoke []Certificate `json:"revoke,omitempty" doc:"Certificates that are to be revoked at their issuers now"`
}

// OptionalReason says why an officer does something, where the rule may not want it.
type OptionalReason struct {
	Reason string `json:"reason,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line"`
}

// Words is the reason, if one was given.
func (r *OptionalReason) Words() string {
	if r == nil {
		return ""
	}
	return r.Reason
}

// Approval is something that an officer has asked for and a second one has to approve.
type Approval struct {
	ID      uint64    `json:"id"`
	Action  string    `json:"action" example:"compromise"`
	Object  string    `json:"object" example:"yk-12345678/otp2"`
	Text    []string  `json:"text" doc:"What will happen, and why that takes two"`
	Officer string    `json:"officer" doc:"Who asked"`
	UID     int64     `json:"uid"`
	Reason  string    `json:"reason"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// Approvals lists them, oldest first.
type Approvals struct {
	Approvals []Approval `json:"approvals"`
}

// LifecycleRule is one line of the table of what may be done with a token.
type LifecycleRule struct {
	Action    string   `json:"action" example:"disable"`
	From      []string `json:"from" doc:"Statuses in which it is possible"`
	Owner     string   `json:"owner" enum:"any,owned,stock"`
	To        string   `json:"to,omitempty" doc:"Status afterwards; absent: as before, or gone"`
	Pushes    []string `json:"pushes" doc:"Changes for the central service"`
	Role      string   `json:"role,omitempty" enum:"officer,approver,auditor,administrator" doc:"Who may; absent: the desk does it by itself"`
	Reason    bool     `json:"reason" doc:"It takes a reason"`
	Permanent bool     `json:"permanent" doc:"It cannot be taken back"`
	Text      string   `json:"text" doc:"What it does"`
}

// Lifecycle is the whole table.
type Lifecycle struct {
	Rules []LifecycleRule `json:"rules"`
}

// Type is a type of token, as the administrator names it.
type Type struct {
	Code        string   `json:"code" example:"yubikey-hotp"`
	Name        string   `json:"name"`
	Description string   `json:"description,omitempty"`
	Offered     bool     `json:"offered" doc:"New ones can be added"`
	Retired     bool     `json:"retired" doc:"No new ones are enrolled"`
	Instead     string   `json:"instead,omitempty" doc:"What to register instead of a retired one"`
	Actions     []string `json:"actions" doc:"What can be done with one at all"`
}

// Types lists them.
type Types struct {
	Types []Type `json:"types"`
}
