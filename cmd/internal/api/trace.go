package api

// RecordTrace asks for the traffic of an enroll with a seed that is published.
type RecordTrace struct {
	Seed      string `json:"seed" enum:"rfc4226,rfc2202-2,rfc2202-5" doc:"Name of the published seed"`
	Digits    int    `json:"digits" enum:"6,8"`
	Overwrite bool   `json:"overwrite,omitempty" doc:"Also if there is something in it, which is lost"`
}
