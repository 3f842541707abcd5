package api

// Identify asks whose codes these are.
type Identify struct {
	Codes []string `json:"codes" minItems:"2" maxItems:"3" doc:"Two or three consecutive codes of one token, oldest first"`
}

// Identified is what codes say of whose they are. It changes nothing and grants nothing.
type Identified struct {
	Certain bool   `json:"certain" doc:"They are one token's, and it is no chance"`
	More    bool   `json:"more" doc:"Two codes do not tell: touch the token once more, and give all three"`
	Hidden  bool   `json:"hidden,omitempty" doc:"They are those of a token that the caller does not see"`
	Token   *Token `json:"token,omitempty" doc:"Whose they are, if that is certain and the caller sees it"`
	Counter uint64 `json:"counter,omitempty" doc:"Counter of the first code, if there is a token"`
	Ahead   uint64 `json:"ahead,omitempty" doc:"How far the first code is ahead of the counter that is expected next"`
	Other   bool   `json:"other_seed,omitempty" doc:"They are of a seed of unfinished work, not of the one that the token has"`
	Matches int    `json:"matches" doc:"How many tokens give these codes, others' included"`
	Why     string `json:"why,omitempty" doc:"Why nothing is certain"`
	Next    string `json:"next,omitempty" doc:"What to do"`

	Codes    int     `json:"codes" doc:"How many codes were looked for"`
	Searched int     `json:"searched,omitempty" doc:"How many seeds were searched; not told to who has a role in a tenant only"`
	Window   int     `json:"window" doc:"How far ahead of its counter each was searched"`
	Chance   float64 `json:"chance" doc:"How many matches such codes have by chance: seeds, times window, times 10 to the minus digits. To who has a role in a tenant only, the next power of ten"`
}
