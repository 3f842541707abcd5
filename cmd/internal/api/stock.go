package api

// Registration asks for a token whose codes are sent to an address.
type Registration struct {
	Type        string `json:"type" enum:"mail,phone"`
	User        string `json:"user,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9._@-]*$" doc:"Empty: as stock"`
	Address     string `json:"address" minLength:"3" maxLength:"320" pattern:"^[^\\p{Cc}]*$" patternDescription:"an address in one line" doc:"Where its codes are sent: name@example.org, or +4915112345678"`
	Description string `json:"description,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line"`
	Tenant      string `json:"tenant,omitempty" maxLength:"64" pattern:"^[a-z0-9-]*$" doc:"Whose it is; empty: the one in which the caller is an officer"`
}

// Import asks for fobs to be taken into the stock. The table of them is a secret.
type Import struct {
	Batch  string `json:"batch,omitempty" maxLength:"64" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line" doc:"The delivery they came with"`
	Tenant string `json:"tenant,omitempty" maxLength:"64" pattern:"^[a-z0-9-]*$" doc:"Whose it is; empty: the one in which the caller is an officer"`
}

// Imported is what has become of the lines of a table.
type Imported struct {
	Lines []ImportedLine `json:"lines"`
}

// ImportedLine is one of them.
type ImportedLine struct {
	Line  int    `json:"line" doc:"From 1, which names the columns"`
	Token string `json:"token,omitempty" example:"fob-2308001"`
	Error string `json:"error,omitempty" doc:"Why it was not taken in"`
}
