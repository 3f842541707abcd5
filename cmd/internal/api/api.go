// Package api holds what travels between tokendesk and tokendeskd: wire types, error codes, the version.
//
// It imports nothing of the desk, so that the command line stays small and without cgo. No type in here
// has room for a seed, an access code or a password.
package api

import (
	"fmt"
	"net/http"
	"time"
)

// Version is the version of these types. It changes when an older peer would misunderstand a newer one.
const Version = "1"

// VersionHeader carries Version in every request and response.
const VersionHeader = "Tokendesk-Api-Version"

// DefaultSocket is where the daemon listens unless its configuration says otherwise.
const DefaultSocket = "/run/tokendesk/desk.sock"

// SocketVariable names the environment variable that tells clients of another socket.
const SocketVariable = "TOKENDESK_SOCKET"

// Code classifies an error.
type Code string

// Codes.
const (
	Invalid      Code = "invalid"       // the request itself is wrong
	NotFound     Code = "not-found"     // no such token
	Refused      Code = "refused"       // not possible as things are
	Forbidden    Code = "forbidden"     // not possible for this caller
	Device       Code = "device"        // the key is absent, pulled, busy, or refuses
	NotVerified  Code = "not-verified"  // codes do not fit, or no touch came
	Unfinished   Code = "unfinished"    // stopped in the middle; resolve settles it
	WrongVersion Code = "wrong-version" // client and daemon are of different versions
	VaultTrouble Code = "vault"         // the vault cannot be read or written
	Internal     Code = "internal"      // a fault of the desk
	Unreachable  Code = "unreachable"   // no daemon answers; made by the client
)

// Status is the HTTP status of a code: the only place where one becomes the other.
func (c Code) Status() int {
	switch c {
	case Invalid:
		return http.StatusUnprocessableEntity
	case NotFound:
		return http.StatusNotFound
	case Refused, Unfinished:
		return http.StatusConflict
	case Forbidden:
		return http.StatusForbidden
	case Device, NotVerified:
		return http.StatusFailedDependency
	case WrongVersion:
		return http.StatusUpgradeRequired
	case VaultTrouble, Unreachable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// ExitCode is the exit code of a command that ended with a code: the only place where one becomes the other.
func (c Code) ExitCode() int {
	switch c {
	case Invalid:
		return 2
	case Unreachable, WrongVersion:
		return 3
	case NotFound:
		return 4
	case Refused, Forbidden:
		return 5
	case Device:
		return 6
	case NotVerified:
		return 7
	case Unfinished:
		return 8
	case VaultTrouble:
		return 9
	}
	return 1
}

// Error is how every failure is told.
type Error struct {
	Code    Code   `json:"code" doc:"Class of the error" example:"not-found"`
	Message string `json:"message" doc:"What happened and what to do"`
	Miss    *Miss  `json:"miss,omitempty" doc:"Of codes that did not fit: why"`

	Recorded bool `json:"-"` // it stands in the audit trail already
}

func (e *Error) Error() string { return e.Message }

// GetStatus makes the HTTP status known to the router.
func (e *Error) GetStatus() int { return e.Code.Status() }

// Errorf builds an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Key is an inserted device.
type Key struct {
	ID       string `json:"id,omitempty" doc:"Device name, absent while it cannot be identified" example:"yk-12345678"`
	Serial   uint32 `json:"serial,omitempty"`
	Model    string `json:"model" example:"YubiKey"`
	Firmware string `json:"firmware,omitempty" example:"5.4.3"`
	Bus      string `json:"bus" example:"usb"`
	Port     string `json:"port" example:"1-1"`
	Emulated bool   `json:"emulated" doc:"Not a hardware token"`
	New      bool   `json:"new" doc:"Plugged in just now and still being identified"`
	Unknown  bool   `json:"unknown,omitempty" doc:"The desk has no token of it, and never had"`
	Slots    []Slot `json:"slots,omitempty"`

	Applets []Applet `json:"applets,omitempty" doc:"Applications with credentials, as far as they were seen"`

	Card    *Card  `json:"card,omitempty" doc:"Its smart card; absent if none is seen"`
	Problem string `json:"problem,omitempty" doc:"Why the device cannot be used"`
	Cure    string `json:"cure,omitempty" doc:"What to do about the problem, if that is known"`
}

// Card is the smart card of an inserted key.
type Card struct {
	Reader   string `json:"reader" example:"Yubico YubiKey OTP+FIDO+CCID 00 00"`
	Emulated bool   `json:"emulated" doc:"Not a hardware token"`
	PIV      *App   `json:"piv,omitempty" doc:"Absent if it has no PIV application, or does not say"`
	Problem  string `json:"problem,omitempty" doc:"Why the card cannot be used"`
	Cure     string `json:"cure,omitempty"`
}

// App is an application of an inserted key that is no slot.
type App struct {
	Token  string `json:"token" example:"yk-12345678/piv"`
	Status string `json:"status,omitempty" doc:"Status in the inventory, absent if the desk did not provision it"`
	Owner  string `json:"owner,omitempty"`
	Due    string `json:"due,omitempty" doc:"What is to be done with it next, if anything"`
}

// Slot is one OTP slot of an inserted key.
type Slot struct {
	Token      string `json:"token" example:"yk-12345678/otp2"`
	Configured bool   `json:"configured"`
	Status     string `json:"status,omitempty" doc:"Status in the inventory, absent if the desk did not enroll it"`
	Owner      string `json:"owner,omitempty"`
	Due        string `json:"due,omitempty" doc:"What is to be done with it next, if anything: it is unfinished, compromised, a leaver's, to be reseeded, expired, or not what the inventory says"`
}

// Applet is an application of an inserted key that holds credentials.
type Applet struct {
	Name     string `json:"name" example:"oath"`
	Locked   bool   `json:"locked,omitempty" doc:"It tells nothing without its password"`
	Used     int    `json:"used" doc:"Credentials in it, the desk's and others"`
	Capacity int    `json:"capacity,omitempty" doc:"How many fit in, if that is known"`
	Tokens   []Slot `json:"tokens,omitempty" doc:"Those of them that the desk has enrolled"`
}

// Keys lists inserted devices and why a bus shows none.
type Keys struct {
	Keys  []Key `json:"devices"`
	Buses []Bus `json:"buses"`
}

// Bus is a way to reach devices.
type Bus struct {
	Name    string `json:"name" example:"usb"`
	Problem string `json:"problem,omitempty" doc:"Why nothing is seen there"`
}

// KeyEvent is one change among the inserted devices.
type KeyEvent struct {
	Event string    `json:"event" enum:"present,added,changed,removed"`
	Time  time.Time `json:"time"`
	Key   Key       `json:"device"`
}

// Token is one authenticator in the inventory.
type Token struct {
	ID         string     `json:"id" example:"yk-12345678/otp2"`
	Device     string     `json:"device" example:"yk-12345678"`
	Central    string     `json:"central_name" doc:"Its name in the central service" example:"YK12345678-2"`
	Type       string     `json:"type" doc:"Code of its type" example:"yubikey-hotp"`
	TypeName   string     `json:"type_name" doc:"What the administrator calls that"`
	OutOfDate  string     `json:"out_of_date,omitempty" doc:"Why it should be replaced, and by what"`
	Status     string     `json:"status" enum:"pending,active,disabled,limbo,expired,compromised"`
	Owner      string     `json:"owner" doc:"Empty for stock"`
	Digits     int        `json:"digits"`
	Identifier bool       `json:"identifier" doc:"Types its token identifier before each code"`
	Counter    uint64     `json:"counter" doc:"Next moving factor expected"`
	Generation int        `json:"generation" doc:"Seed generation"`
	Firmware   string     `json:"firmware"`
	Emulated   bool       `json:"emulated"`
	Created    time.Time  `json:"created"`
	Updated    time.Time  `json:"updated"`
	LastUsed   *time.Time `json:"last_used,omitempty" doc:"When the desk last saw a code of it"`
	Unfinished string     `json:"unfinished,omitempty" doc:"Work on it that waits to be resolved"`
	Stale      bool       `json:"stale,omitempty" doc:"The vault was restored since its counter was last seen: resync it before use"`
	Waiting    int        `json:"waiting" doc:"Changes of it that the central service has not confirmed"`

	Address     string     `json:"address,omitempty" doc:"Where its codes are sent, if they are"`
	Description string     `json:"description,omitempty" doc:"An officer's words"`
	Batch       string     `json:"batch,omitempty"`
	Tenant      string     `json:"tenant,omitempty"`
	Expires     *time.Time `json:"expires,omitempty" doc:"From then on it is refused"`
	Loss        *Loss      `json:"loss,omitempty" doc:"Why it is compromised"`
	Wiped       *time.Time `json:"wiped,omitempty" doc:"When the compromised token was erased on its device"`
	Actions     []string   `json:"actions" doc:"What the caller can do with it now"`

	ReseedDue    bool          `json:"reseed_due,omitempty" doc:"It was freed while its device was not at hand: whoever had it may have its seed"`
	Due          string        `json:"due,omitempty" doc:"What is to be done with it next, if anything"`
	Certificates []Certificate `json:"certificates,omitempty" doc:"Of a PIV application: those that are for its keys"`

	Replaces   string `json:"replaces,omitempty" doc:"The token in whose place it came"`
	ReplacedBy string `json:"replaced_by,omitempty" doc:"The token that came in its place"`
}

// Tokens is one page of the inventory.
type Tokens struct {
	Tokens []Token `json:"tokens"`
	Next   string  `json:"next,omitempty" doc:"Pass as 'after' for the next page"`
}

// Outcome is what an action has led to.
type Outcome struct {
	Token   *Token   `json:"token,omitempty"`
	Changes []Change `json:"changes,omitempty" doc:"What became of the changes for the central service"`
	Text    string   `json:"text,omitempty"`
	Trace   string   `json:"trace,omitempty" doc:"What went over the device's interface, in the format of package trace"`

	Requests []PIVRequest  `json:"requests,omitempty" doc:"Certificate requests of the keys that were generated"`
	Revoke   []Certificate `json:"revoke,omitempty" doc:"Certificates that are to be revoked at their issuers now"`

	Approval *Approval `json:"approval,omitempty" doc:"Nothing was done: it waits for a second officer"`
}

// Progress is one thing to show while work goes on.
type Progress struct {
	Kind  string `json:"kind" enum:"done,touch,note"`
	Step  string `json:"step,omitempty"`
	Text  string `json:"text"`
	Slot  int    `json:"slot,omitempty"`
	Codes int    `json:"codes,omitempty"`
}

// Event is one line of an answer that comes in pieces. The last line has Outcome or Error.
type Event struct {
	Progress *Progress `json:"progress,omitempty"`
	Outcome  *Outcome  `json:"outcome,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// Status is how the desk is.
type Status struct {
	Version     string         `json:"version"`
	Since       time.Time      `json:"since"`
	Vault       Vault          `json:"vault"`
	Tokens      map[string]int `json:"tokens" doc:"Number of tokens by status"`
	Stock       int            `json:"stock" doc:"Active tokens without owner"`
	Stale       int            `json:"stale,omitempty" doc:"Tokens to be resynced before use, since the vault was restored"`
	Revocations int            `json:"revocations,omitempty" doc:"Certificates that are to be revoked at their issuers"`
	Keys        int            `json:"devices" doc:"Inserted devices"`
	Buses       []Bus          `json:"buses"`
	Central     Central        `json:"central"`
	Unfinished  []string       `json:"unfinished" doc:"Work that waits to be resolved"`
	Notices     *NoticesStatus `json:"notices,omitempty" doc:"Mail to tokens' holders; absent while the vault is not open"`
	Leavers     int            `json:"leavers,omitempty" doc:"People whose tokens are to come back"`
	Overdue     int            `json:"leavers_overdue,omitempty" doc:"Of those, whose deadline has passed"`
}

// Finding is one thing that doctor looked at.
type Finding struct {
	Area string `json:"area" example:"vault"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
	Cure string `json:"cure,omitempty"`
}

// Findings is what doctor found.
type Findings struct {
	Findings []Finding `json:"findings"`
}

// Enroll asks for a new token.
type Enroll struct {
	Device       string `json:"device" pattern:"^[a-z]{2,8}-[0-9a-z]{1,20}$" patternDescription:"the name of a device" example:"yk-12345678"`
	App          string `json:"app" maxLength:"40" pattern:"^[a-z0-9]+(:[a-z0-9._-]+)?$" patternDescription:"the name of an application" example:"otp2" doc:"The application: otp1 or otp2 of a YubiKey, hotp1 to hotp3 of a Nitrokey, oath:NAME for a credential of an OATH applet"`
	User         string `json:"user,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9._@-]*$" doc:"Empty: as stock"`
	Digits       int    `json:"digits" enum:"6,8"`
	StartCounter uint64 `json:"start_counter,omitempty" maximum:"9223372036854775807" doc:"First moving factor; the slots of YubiKeys take multiples of 16 up to 1048560"`
	Identifier   bool   `json:"identifier,omitempty"`
	Enter        bool   `json:"enter,omitempty"`
	Overwrite    bool   `json:"overwrite,omitempty"`
	Tenant       string `json:"tenant,omitempty" maxLength:"64" pattern:"^[a-z0-9-]*$" doc:"Whose it is; empty: the one in which the caller is an officer"`
	Typed        bool   `json:"typed,omitempty" doc:"Do not capture codes: leave the token unfinished, for resolve with two typed codes"`
}

// User names a user.
type User struct {
	User string `json:"user" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9._@-]+$"`
}

// Codes gives captured codes, or asks the daemon to capture them from the inserted key.
type Codes struct {
	Codes   []string `json:"codes,omitempty" maxItems:"3" doc:"Consecutive codes, oldest first"`
	Capture bool     `json:"capture,omitempty" doc:"Capture them by touches of the inserted key"`
}

// Resolve says how to settle unfinished work.
type Resolve struct {
	Undo  bool     `json:"undo,omitempty" doc:"Erase what an unfinished enroll has left, or call a reissue off"`
	Codes []string `json:"codes,omitempty" minItems:"2" maxItems:"2" doc:"Two codes in a row that the key has typed since it was programmed"`

	ContinueOffline bool   `json:"continue_offline,omitempty" doc:"Of a reissue: go on although the central service does not confirm the cut-off; takes a reason"`
	Reason          string `json:"reason,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line"`
}
