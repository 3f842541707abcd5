package api

// Reissue asks to take a token from whoever has it, and to give its access to somebody, on the same device or another.
type Reissue struct {
	User            string   `json:"user,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9._@-]*$" doc:"The new owner; with 'with' it may be the old one, or absent"`
	WithoutDevice   bool     `json:"without_device,omitempty" doc:"Cut the owner off now; the device gets a fresh seed when it turns up, and resolve is called"`
	With            string   `json:"with,omitempty" maxLength:"64" pattern:"^[a-z]{2,8}-[0-9a-z]{1,20}(/[a-z0-9]+(:[a-z0-9._-]+)?)?$" patternDescription:"the name of a token" doc:"The token that comes in its place" example:"yk-12345678/otp2"`
	Old             string   `json:"old,omitempty" enum:"stock,lost,stolen,damaged,destroyed,other" doc:"What becomes of the token that is replaced"`
	Words           string   `json:"words,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line" doc:"More about that; other needs them"`
	ContinueOffline bool     `json:"continue_offline,omitempty" doc:"Go on although the central service does not confirm the cut-off; takes a reason"`
	Reason          string   `json:"reason,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line"`
	Codes           []string `json:"codes,omitempty" maxItems:"2" doc:"Two codes in a row of a device whose seed cannot be replaced"`
	Owner           *string  `json:"owner,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9._@-]*$" doc:"Who had it when the caller decided: refused if that is not so any more; absent: whoever has it"`

	Digits     int  `json:"digits,omitempty" enum:"6,8" doc:"Of a replacement that is not in the inventory"`
	Identifier bool `json:"identifier,omitempty"`
	Enter      bool `json:"enter,omitempty"`
	Overwrite  bool `json:"overwrite,omitempty" doc:"Replace what the slot of the replacement holds now"`
}
