package api

import "time"

// Handover is a token given to a person: one link of its chain of custody.
type Handover struct {
	ID         uint64    `json:"id"`
	Kind       string    `json:"kind" enum:"issued,assigned,reissued,replaced,seed unchanged"`
	Token      string    `json:"token" example:"yk-12345678/otp2"`
	Serial     uint32    `json:"serial"`
	Generation int       `json:"generation" doc:"Of its seed"`
	From       string    `json:"from,omitempty" doc:"Who had it before; absent: it was stock"`
	To         string    `json:"to"`
	Old        string    `json:"old,omitempty" doc:"The token in whose place it came"`
	OldStatus  string    `json:"old_status,omitempty" doc:"What became of that"`
	OldSerial  uint32    `json:"old_serial,omitempty"`
	Officer    string    `json:"officer"`
	UID        int64     `json:"uid"`
	Time       time.Time `json:"time"`
	Reason     string    `json:"reason,omitempty" doc:"An officer's words"`
	Offline    bool      `json:"offline,omitempty" doc:"It went on before the central service had confirmed the cut-off"`
	Emulated   bool      `json:"emulated,omitempty" doc:"Not a hardware token"`
	Proof      Proof     `json:"proof"`

	Revoke []Certificate `json:"revoke,omitempty" doc:"Certificates of who had the device before, to be revoked at their issuers"`

	Act uint64 `json:"act" doc:"Number of the entry of the audit trail about it"`
}

// Proof is what was seen of a token's seed when it was given to somebody.
type Proof struct {
	Codes         int    `json:"codes" doc:"How many codes in a row are those of the seed; 0: none was asked for"`
	Generation    int    `json:"generation,omitempty" doc:"Of that seed"`
	Counter       uint64 `json:"counter,omitempty" doc:"Moving factor of the first of them"`
	OldGeneration int    `json:"old_generation,omitempty" doc:"Of the seed before, to which none of them belongs; absent: there was none"`
	OldFrom       uint64 `json:"old_from,omitempty" doc:"That seed was searched from this moving factor on"`
	OldWindow     int    `json:"old_window,omitempty" doc:"so far"`
	Typed         bool   `json:"typed,omitempty" doc:"Somebody typed them in; they were not captured from the device"`
	Text          string `json:"text" doc:"That in words"`
}

// Handovers is one page of a chain of custody, newest first.
type Handovers struct {
	Handovers []Handover `json:"handovers"`
	Next      uint64     `json:"next,omitempty" doc:"Pass as 'before' for the next page"`
}
