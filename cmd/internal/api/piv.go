package api

import "time"

// PIV is the PIV application of a device. What the card tells is there while it is inserted; the rest is on record.
type PIV struct {
	Device   string `json:"device" example:"yk-12345678"`
	Serial   uint32 `json:"serial"`
	Firmware string `json:"firmware,omitempty" example:"5.4.3"`
	Emulated bool   `json:"emulated" doc:"Not a hardware token"`
	Inserted bool   `json:"inserted" doc:"The card was asked; otherwise everything is from the record"`
	Token    *Token `json:"token,omitempty" doc:"Absent if the desk has not provisioned it"`
	// PINRetries and PUKRetries are absent if the card does not tell.
	PINRetries *int     `json:"pin_retries,omitempty" doc:"Tries left of the PIN; 0: it is blocked"`
	PUKRetries *int     `json:"puk_retries,omitempty" doc:"Tries left of the PUK; 0: it is blocked"`
	Fresh      bool     `json:"fresh,omitempty" doc:"As it left the factory, as far as the card tells"`
	Defaults   []string `json:"defaults,omitempty" doc:"Which of its secrets are those of the factory: PIN, PUK, management key"`
	NotTold    bool     `json:"defaults_not_told,omitempty" doc:"The card is too old to tell which they are"`
	PINWaits   bool     `json:"pin_waits,omitempty" doc:"Its PIN was not taken yet: the vault has it"`

	Slots   []PIVSlot `json:"slots"`
	Problem string    `json:"problem,omitempty" doc:"Why the card could not be asked"`
	Cure    string    `json:"cure,omitempty" doc:"What to do about the problem, if that is known"`
}

// PIVSlot is a slot of a PIV application that holds a key or a certificate.
type PIVSlot struct {
	Slot        string       `json:"slot" example:"9a"`
	Algorithm   string       `json:"algorithm,omitempty" example:"eccp256"`
	Public      string       `json:"public,omitempty" doc:"SHA-256 of the public key (SubjectPublicKeyInfo), in hex"`
	PINPolicy   string       `json:"pin_policy,omitempty" example:"once"`
	TouchPolicy string       `json:"touch_policy,omitempty" example:"never"`
	Attested    bool         `json:"attested" doc:"The card has proven that the key was generated there"`
	Waits       bool         `json:"request_pending,omitempty" doc:"The key has no certificate yet"`
	Certificate *Certificate `json:"certificate,omitempty"`
	Problem     string       `json:"problem,omitempty" doc:"Where the card and the record differ"`
}

// Certificate is one that was made for a key on a card.
type Certificate struct {
	Token     string     `json:"token,omitempty" doc:"Absent if it was found on a card and is not on record" example:"yk-12345678/piv"`
	Slot      string     `json:"slot" example:"9a"`
	Subject   string     `json:"subject"`
	Issuer    string     `json:"issuer" doc:"Who can revoke it"`
	Serial    string     `json:"serial" doc:"Number that its issuer gave it, in hex"`
	NotAfter  time.Time  `json:"not_after,omitzero"`
	SHA256    string     `json:"sha256" doc:"Of the certificate, in hex"`
	Owner     string     `json:"owner,omitempty" doc:"Whose it is, or was"`
	RevokeDue *time.Time `json:"revoke_due,omitempty" doc:"Since when it is to be revoked at its issuer"`
	Why       string     `json:"why,omitempty"`
	Revoked   *time.Time `json:"revoked,omitempty" doc:"When an officer said that it was"`
	RevokedBy string     `json:"revoked_by,omitempty"`
}

// Certificates are those that are to be revoked at their issuers.
type Certificates struct {
	Certificates []Certificate `json:"certificates"`
}

// ProvisionPIV asks for a PIV application with secrets and keys of its own.
type ProvisionPIV struct {
	User      string    `json:"user,omitempty" maxLength:"64" pattern:"^[A-Za-z0-9._@-]*$" doc:"Empty: as stock"`
	Tenant    string    `json:"tenant,omitempty" maxLength:"64" pattern:"^[a-z0-9-]*$" doc:"Whose it is; empty: the one in which the caller is an officer"`
	Reason    string    `json:"reason,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line"`
	Subject   string    `json:"subject,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line" doc:"Of the requests, as RFC 4514 writes it; empty: CN= and the user" example:"CN=anna,O=Example"`
	Keys      []PIVWish `json:"keys,omitempty" maxItems:"24" doc:"None: one key in slot 9a"`
	Overwrite bool      `json:"overwrite,omitempty" doc:"Erase what the card holds now"`
}

// PIVWish is a key to be generated on a card.
type PIVWish struct {
	Slot        string `json:"slot" pattern:"^(9[acde]|8[2-9a-f]|9[0-5])$" example:"9a"`
	Algorithm   string `json:"algorithm,omitempty" enum:"rsa2048,eccp256,eccp384,rsa3072,rsa4096,ed25519,x25519" doc:"Absent: eccp256"`
	PINPolicy   string `json:"pin_policy,omitempty" enum:"never,once,always" doc:"Absent: once; always in slot 9c, never in 9e"`
	TouchPolicy string `json:"touch_policy,omitempty" enum:"never,always,cached" doc:"Absent: never"`
}

// CSR asks for a certificate request.
type CSR struct {
	Slot    string `json:"slot" pattern:"^(9[acde]|8[2-9a-f]|9[0-5])$" example:"9a"`
	Subject string `json:"subject,omitempty" maxLength:"200" pattern:"^[^\\p{Cc}]*$" patternDescription:"words in one line" doc:"Distinguished name, as RFC 4514 writes it; empty: CN= and the owner" example:"CN=anna,O=Example"`
}

// PIVRequest is a certificate request that a card has signed.
type PIVRequest struct {
	Slot string `json:"slot" example:"9a"`
	PEM  string `json:"pem" doc:"PKCS #10"`
}

// ImportCertificate gives a certificate for a key on a card.
type ImportCertificate struct {
	Slot string `json:"slot" pattern:"^(9[acde]|8[2-9a-f]|9[0-5])$" example:"9a"`
	PEM  string `json:"pem" maxLength:"16384" doc:"X.509, and nothing else"`
}
