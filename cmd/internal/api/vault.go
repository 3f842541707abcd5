package api

import "time"

// Vault is how the vault is.
type Vault struct {
	State      string     `json:"state" enum:"open,locked,absent,in-use,wrong-pin,da-lockout,wrong-passphrase,tpm-absent,tpm-changed,permission,rollback-suspected,counter-lost,corrupt,newer-format,wrong-sealer,moved" example:"open"`
	Problem    string     `json:"problem,omitempty" doc:"Why it is not open"`
	Cure       string     `json:"cure,omitempty"`
	ID         string     `json:"id,omitempty"`
	Path       string     `json:"path"`
	Level      string     `json:"level,omitempty" enum:"tpm,emulated,passphrase,keyfile"`
	PIN        bool       `json:"pin" doc:"It is opened by a PIN or passphrase; otherwise by itself"`
	Means      string     `json:"means,omitempty" doc:"What level and mode protect against"`
	Guesses    *int       `json:"guesses,omitempty" doc:"How many wrong PINs the TPM bears before it locks itself, while a PIN is asked for"`
	Until      *time.Time `json:"until,omitempty" doc:"When the TPM takes a PIN again"`
	Epoch      uint64     `json:"epoch,omitempty" doc:"Value of the TPM's counter that the vault is held against"`
	Writes     uint64     `json:"writes,omitempty" doc:"Writes to the TPM's memory so far"`
	Recipients []string   `json:"recipients" doc:"age recipients that can restore it"`
	Backup     *Backup    `json:"backup,omitempty" doc:"The newest backup"`
	Backups    int        `json:"backups" doc:"How many backups were made"`
	Overdue    string     `json:"backup_overdue,omitempty" doc:"Why the schedule's last backup is missing"`
	Shred      *time.Time `json:"shred,omitempty" doc:"Since when the file's unused pages hold seeds that were destroyed, still sealed"`
	AuditKey   string     `json:"audit_key,omitempty"`
	Acts       uint64     `json:"acts,omitempty" doc:"Entries of the audit trail"`
	Unlocked   string     `json:"unlocked_memory,omitempty" doc:"Why some secrets are in memory that may be swapped"`
	Waiting    *Waiting   `json:"waiting,omitempty" doc:"What waits while it is not open, read without keys and therefore unproven"`
}

// Waiting is what waits in a locked vault.
type Waiting struct {
	Tokens  int      `json:"tokens"`
	CutOffs []Change `json:"cut_offs" doc:"Changes that end somebody's access"`
	Changes int      `json:"changes" doc:"All changes that the central service has not confirmed"`
	Jobs    int      `json:"jobs" doc:"Unfinished work"`
}

// Backup is one backup that was made.
type Backup struct {
	Name  string    `json:"name" doc:"Its file"`
	Time  time.Time `json:"time"`
	Epoch uint64    `json:"epoch"`
	Size  int64     `json:"size" doc:"Bytes"`
	There bool      `json:"there" doc:"The file is still where it was written"`
	Held  int       `json:"destroyed_seeds" doc:"Seeds that were destroyed since and that it still holds"`
}

// Backups lists the backups that were made, newest first.
type Backups struct {
	Backups []Backup `json:"backups"`
}

// VaultInit asks for a new vault. Its secrets: PIN (may be empty), identity file of a recipient.
type VaultInit struct {
	Recipients []string `json:"recipients" minItems:"1" maxItems:"16" maxLength:"4000" pattern:"^age1[0-9a-z]+$"`
}

// VaultLock asks to lock the vault.
type VaultLock struct {
	Force bool `json:"force,omitempty" doc:"Interrupt work with keys that is going on; resolve settles it later"`
}

// VaultRotate asks for new keys.
type VaultRotate struct {
	Recipients []string `json:"recipients,omitempty" maxItems:"16" maxLength:"4000" pattern:"^age1[0-9a-z]+$" doc:"Recovery recipients from now on; absent: those of before"`
}

// VaultRestore asks for a vault from a backup. Its secrets: PIN of the new vault (may be empty), identity file.
type VaultRestore struct {
	Backup string `json:"backup" doc:"Absolute path of the backup, readable by the daemon"`
}

// VaultMove is one step of a move to another board. Out: wraps to Parent and writes To. In: reads From; secret: PIN. Cancel:
// takes a move back.
type VaultMove struct {
	Step        string `json:"step" enum:"request,out,in,cancel"`
	Parent      []byte `json:"parent,omitempty" doc:"out: public part of the new TPM's storage root key, as 'request' gave it there"`
	Fingerprint string `json:"fingerprint,omitempty" doc:"out: its fingerprint, as somebody read it on the new board's screen"`
	File        string `json:"file,omitempty" doc:"out, in: absolute path of the file that carries the vault"`
}

// VaultOutcome is what an operation on the vault has led to.
type VaultOutcome struct {
	Vault       Vault   `json:"vault"`
	Text        string  `json:"text,omitempty"`
	Backup      *Backup `json:"backup,omitempty"`
	Parent      []byte  `json:"parent,omitempty"`
	Fingerprint string  `json:"fingerprint,omitempty"`
}

// Act is an entry of the audit trail.
type Act struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Epoch   uint64    `json:"epoch"`
	UID     int64     `json:"uid" doc:"-1: the desk itself"`
	Officer string    `json:"officer"`
	Action  string    `json:"action"`
	Object  string    `json:"object"`
	Outcome string    `json:"outcome"`
	Reason  string    `json:"reason,omitempty"`
}

// Acts is a page of the audit trail, oldest first.
type Acts struct {
	Acts []Act  `json:"acts"`
	Next uint64 `json:"next,omitempty" doc:"Pass as 'from' for the next page"`
	Last uint64 `json:"last" doc:"Number of the last entry"`
	Key  string `json:"key" doc:"What the trail is verified with"`
	Head string `json:"head" doc:"The signed head, one line"`
}
