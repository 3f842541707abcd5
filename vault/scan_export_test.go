package vault

import (
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"
)

// Ending tells whether the vault is about to be locked. It must only be called by who keeps it open.
func (v *Vault) Ending() bool { return v.session.ending.Load() }

// Raw changes the file of an open vault past everything that the vault knows of it.
func (v *Vault) Raw(fn func(*bbolt.Tx) error) error { return v.session.db.Update(fn) }

// CompareSearched reads a token's record in both ways.
func CompareSearched(t Token) error {
	body, err := json.Marshal(&t)
	if err != nil {
		return err
	}
	var want searched
	if err := json.Unmarshal(body, &want); err != nil {
		return err
	}
	if got, err := readSearched(body); err != nil || got != want {
		return fmt.Errorf("%s: %+v, %v, want %+v", body, got, err, want)
	}
	return nil
}

// ComparePlain reads anything in both ways, if the plain one takes it.
func ComparePlain(record []byte) error {
	got, ok := plainSearched(record)
	var want searched
	if !ok || exact(record, &want) != nil {
		return nil
	}
	if got != want {
		return fmt.Errorf("%q: %+v, want %+v", record, got, want)
	}
	return nil
}

// exact is json.Unmarshal, which takes names in any case, and each any number of times; a record has each once, as it is.
func exact(record []byte, out *searched) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(record, &members); err != nil {
		return err
	}
	for name, to := range map[string]any{"owner": &out.Owner, "tenant": &out.Tenant, "digits": &out.Digits, "counter": &out.Counter, "generation": &out.Generation} {
		if value, ok := members[name]; ok {
			if err := json.Unmarshal(value, to); err != nil {
				return err
			}
		}
	}
	return nil
}
