package api

// CaptureEvent is one line of an answer while inserted keys are touched. The first names the capture, and what is awaited; the
// last has what it has come to, or an error.
type CaptureEvent struct {
	Capture    string         `json:"capture,omitempty" doc:"Names the capture, for ending it early"`
	Devices    []string       `json:"devices,omitempty" doc:"With the name: the keys that are listened to, each of which says when it is ready"`
	Tokens     []TrayToken    `json:"tokens,omitempty" doc:"With the name: every token that is to be touched"`
	Token      *TrayToken     `json:"token,omitempty" doc:"One of them, as it is now"`
	Key        *CapturedKey   `json:"key,omitempty" doc:"What became of a key"`
	Note       string         `json:"note,omitempty"`
	Identified *IdentifiedKey `json:"identified,omitempty"`
	Resynced   *Tray          `json:"resynced,omitempty"`
	Error      *Error         `json:"error,omitempty"`
}

// CapturedKey is an inserted key that is listened to.
type CapturedKey struct {
	Device string `json:"device" example:"yk-12345678"`
	State  string `json:"state" enum:"ready,away,no code" doc:"It can be touched; it was pulled, or cannot be used; it has typed something that is no code"`
	Codes  int    `json:"codes,omitempty" doc:"How many of its codes have been captured"`
	Text   string `json:"text,omitempty" doc:"Why it is away, or why one code more is needed"`
}

// TrayToken is a token on one of several keys that are resynced together.
type TrayToken struct {
	Token   string `json:"token" example:"yk-12345678/otp2"`
	Owner   string `json:"owner,omitempty" doc:"Empty for stock"`
	State   string `json:"state" enum:"waiting,touched,resynced,failed,untouched" doc:"Nothing was typed yet; codes came, and do not fit yet; done; it cannot be resynced by what was typed; the capture has ended without a code of it"`
	Codes   int    `json:"codes,omitempty" doc:"Codes captured that have not placed it"`
	From    uint64 `json:"from" doc:"Next moving factor before"`
	To      uint64 `json:"to,omitempty" doc:"And after"`
	Surplus int    `json:"surplus,omitempty" doc:"Codes after those that have placed it, which moved the counter as well"`
	Problem *Error `json:"problem,omitempty" doc:"Why it failed"`
}

// Tray is what a resync of several inserted keys has come to.
type Tray struct {
	Tokens  []TrayToken `json:"tokens"`
	Ended   string      `json:"ended,omitempty" doc:"Why it was over before every token was done"`
	Changes []Change    `json:"changes,omitempty" doc:"What became of the last change of each token for the central service"`
}

// IdentifiedKey is what the codes of a key say of whose they are.
type IdentifiedKey struct {
	Device string `json:"device" doc:"The key that has typed them" example:"yk-12345678"`
	Identified
	Warning string `json:"warning,omitempty" doc:"The token that they are of is on another device than this key"`
}
