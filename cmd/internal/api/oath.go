package api

// OATH is what an OATH applet holds.
type OATH struct {
	Device      string       `json:"device" example:"yk-12345678"`
	Firmware    string       `json:"firmware" example:"5.4.3"`
	Emulated    bool         `json:"emulated"`
	Locked      bool         `json:"locked" doc:"It wants its password, which the desk does not know"`
	Cure        string       `json:"cure,omitempty"`
	Capacity    int          `json:"capacity,omitempty" doc:"How many credentials fit in, if that is known"`
	Credentials []Credential `json:"credentials"`
}

// Credential is one in an OATH applet.
type Credential struct {
	Name      string `json:"name" example:"tokendesk:alice"`
	Type      string `json:"type,omitempty" example:"HOTP"`
	Algorithm string `json:"algorithm,omitempty" example:"SHA-1"`
	Token     string `json:"token,omitempty" doc:"The desk's name of it, if the desk has enrolled it" example:"yk-12345678/oath:alice"`
	Status    string `json:"status,omitempty"`
	Owner     string `json:"owner,omitempty"`
}
