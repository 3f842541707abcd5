package provision

import (
	"slices"

	"tokendesk/vault"
)

// Action is something an officer does with a token that is in the inventory.
type Action string

// Actions.
const (
	ActTest       Action = "test"
	ActResync     Action = "resync"
	ActEdit       Action = "edit"
	ActAssign     Action = "assign"
	ActUnassign   Action = "unassign"
	ActDisable    Action = "disable"
	ActEnable     Action = "enable"
	ActExpire     Action = "expire"
	ActReseed     Action = "reseed"
	ActReissue    Action = "reissue"
	ActWipe       Action = "wipe"
	ActCompromise Action = "compromise"
	ActDelete     Action = "delete"
)

// Ownership is whom a token has to belong to.
type Ownership string

// Ownerships.
const (
	Any   Ownership = "any"
	Owned Ownership = "owned"
	Stock Ownership = "stock" // nobody owns it
)

func (o Ownership) admits(owner string) bool { return o == Any || (o == Owned) == (owner != "") }

// Roles. What nobody's role allows, the desk does by itself.
const (
	RoleOfficer       = "officer"
	RoleApprover      = "approver"
	RoleAuditor       = "auditor"
	RoleAdministrator = "administrator"
)

// Rule is a row of the transition table: what an action does with a token in one of some statuses.
type Rule struct {
	Action    Action
	From      []vault.Status
	Ownership Ownership
	To        vault.Status       // empty: the status stays
	Frees     bool               // the owner goes
	Gone      bool               // the token goes, and leaves a tombstone
	Pushes    []vault.ChangeKind // what the central service is told, in this order; Unassign only if there is an owner
	Reason    bool               // always takes a reason
	Permanent bool               // cannot be taken back
	Device    bool               // needs the device at hand
	Role      string             // who may; empty: only the desk itself
}

var (
	every = []vault.Status{vault.Pending, vault.Active, vault.Disabled, vault.Limbo, vault.Expired, vault.Compromised}
	alive = []vault.Status{vault.Pending, vault.Active, vault.Disabled, vault.Limbo, vault.Expired}
	fit   = []vault.Status{vault.Active, vault.Disabled}
)

// lifecycle is the transition table. At most one row is about an action on a token in some status, owned or not.
// An edit makes an expired token active only if it gives it more time.
var lifecycle = []Rule{
	{Action: ActTest, From: fit, Ownership: Any, Pushes: []vault.ChangeKind{vault.Advance}, Role: RoleOfficer},
	{Action: ActResync, From: fit, Ownership: Any, Pushes: []vault.ChangeKind{vault.Advance}, Role: RoleOfficer},
	{Action: ActEdit, From: []vault.Status{vault.Pending, vault.Active, vault.Disabled, vault.Limbo, vault.Compromised}, Ownership: Any, Role: RoleOfficer},
	{Action: ActEdit, From: []vault.Status{vault.Expired}, Ownership: Any, To: vault.Active, Pushes: []vault.ChangeKind{vault.Enable}, Role: RoleOfficer},
	{Action: ActAssign, From: []vault.Status{vault.Active}, Ownership: Stock, Pushes: []vault.ChangeKind{vault.Assign}, Role: RoleOfficer},
	{Action: ActUnassign, From: alive, Ownership: Owned, Frees: true, Pushes: []vault.ChangeKind{vault.Unassign}, Role: RoleOfficer},
	{Action: ActDisable, From: []vault.Status{vault.Active}, Ownership: Any, To: vault.Disabled, Pushes: []vault.ChangeKind{vault.Disable}, Role: RoleOfficer},
	{Action: ActEnable, From: []vault.Status{vault.Disabled}, Ownership: Any, To: vault.Active, Pushes: []vault.ChangeKind{vault.Enable}, Role: RoleOfficer},
	{Action: ActExpire, From: []vault.Status{vault.Active}, Ownership: Any, To: vault.Expired, Pushes: []vault.ChangeKind{vault.Disable}},
	{Action: ActReseed, From: []vault.Status{vault.Active}, Ownership: Any, Pushes: []vault.ChangeKind{vault.Put}, Device: true, Role: RoleOfficer},
	{
		Action: ActReissue, From: []vault.Status{vault.Active}, Ownership: Any,
		Pushes: []vault.ChangeKind{vault.Unassign, vault.Put, vault.Assign}, Device: true, Role: RoleOfficer,
	},
	{
		Action: ActWipe, From: alive, Ownership: Any, Frees: true, Gone: true,
		Pushes: []vault.ChangeKind{vault.Unassign, vault.Remove}, Permanent: true, Device: true, Role: RoleOfficer,
	},
	{Action: ActWipe, From: []vault.Status{vault.Compromised}, Ownership: Any, Permanent: true, Device: true, Role: RoleOfficer},
	{
		Action: ActCompromise, From: alive, Ownership: Any, To: vault.Compromised, Frees: true,
		Pushes: []vault.ChangeKind{vault.Unassign, vault.Disable}, Reason: true, Permanent: true, Role: RoleOfficer,
	},
	{Action: ActDelete, From: every, Ownership: Any, Frees: true, Gone: true, Pushes: []vault.ChangeKind{vault.Remove}, Permanent: true, Role: RoleOfficer},
}

// Lifecycle returns the transition table.
func Lifecycle() []Rule {
	rules := slices.Clone(lifecycle)
	for i := range rules {
		rules[i].From, rules[i].Pushes = slices.Clone(rules[i].From), slices.Clone(rules[i].Pushes)
	}
	return rules
}

// ruleFor returns the row about an action on a token as it is.
func ruleFor(t vault.Token, a Action) (Rule, bool) {
	for _, r := range lifecycle {
		if r.Action == a && slices.Contains(r.From, t.Status) && r.Ownership.admits(t.Owner) {
			return r, slices.Contains(TypeOf(t.ID).Actions, a)
		}
	}
	return Rule{}, false
}

// Allowed returns what somebody can do with a token as it is, in the order of the table.
func Allowed(t vault.Token) []Action {
	var out []Action
	for _, row := range lifecycle {
		if r, ok := ruleFor(t, row.Action); ok && r.Role != "" && !slices.Contains(out, r.Action) {
			out = append(out, r.Action)
		}
	}
	return out
}
