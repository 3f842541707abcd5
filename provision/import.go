package provision

import (
	"bytes"
	"encoding/base32"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Bounds of what fobs come with: RFC 4226 section 4 (R6) wants seeds of at least 128 bits, and HMAC-SHA-1 takes no more than
// 512 without hashing them first.
const (
	minFobSeed = 16
	maxFobSeed = 64
)

// Imported is what has become of a line of an import.
type Imported struct {
	Line  int            // from 1, which is the one with the columns' names
	Token device.TokenID // empty if the line does not name one
	Err   error
}

// Delivery is what fobs that are imported together have in common.
type Delivery struct {
	Batch  string
	Tenant string // whose they are; empty: the desk's
	// May tells whether the caller may know of a tenant's tokens. Nil: of all.
	May func(tenant string) bool
}

// taken refuses a name that is, or was, another tenant's, and says nothing else of it.
func (d Delivery) taken(tenant string) error {
	if d.May == nil || d.May(tenant) {
		return nil
	}
	return refuse("ask an officer of the whole desk", "this name is not free")
}

// Import takes fobs into the stock, which come with their seeds, in lines of comma-separated values (RFC 4180). The first line
// names the columns: serial, then the seed as either "seed" in hexadecimal or "secret" in base32, and, where they are wanted,
// counter (the next moving factor; 0), digits (6 or 8; 6) and description. Every line has a result, and one that is wrong
// stops no other. Seeds that this vault has ever held are refused.
func (r *Runner) Import(by audit.Officer, table secret.Secret, of Delivery) (all []Imported, err error) {
	var fobs []fob
	secret.Do(func() { fobs, err = parseFobs(table.Reveal()) })
	defer func() {
		for _, f := range fobs {
			f.seed.Wipe()
		}
	}()
	if err := errors.Join(err, legible("batch", of.Batch, vault.MaxLabel)); err != nil {
		return nil, err
	}
	defer r.wake()
	err = r.Vault.Update(func(tx *vault.Tx) error {
		all = nil
		for _, f := range fobs {
			result := Imported{f.line, f.token.ID, f.err}
			if f.err == nil {
				f.token.Batch, f.token.Tenant, f.token.Created = of.Batch, of.Tenant, time.Now().UTC()
				if result.Err, err = admit(tx, by, f, of); err != nil {
					return err
				}
			}
			all = append(all, result)
		}
		return nil
	})
	return all, err
}

// admit takes one fob in, or says why it is refused. Any other error ends the import.
func admit(tx *vault.Tx, by audit.Officer, f fob, of Delivery) (refused, err error) {
	there, err := tx.Token(f.token.ID)
	if err == nil {
		if refused := of.taken(there.Tenant); refused != nil {
			return refused, nil
		}
		return refuse("", "%s is in the inventory already", f.token.ID), nil
	}
	if !errors.Is(err, vault.ErrNotFound) {
		return nil, err
	}
	before, buried, err := tx.Tombstone(f.token.ID)
	if err != nil {
		return nil, err
	}
	if buried {
		if refused := of.taken(before.Tenant); refused != nil {
			return refused, nil
		}
	}
	f.token.Generation = before.Generation + 1 // the central service tells seeds of one name apart by it
	err = tx.SetSeed(f.token.ID, f.token.Generation, f.seed)
	if errors.Is(err, vault.ErrSeedSeen) {
		return refuse("a seed is of one token, and is used once", "%s has a seed that this vault has held before", f.token.ID), nil
	}
	if err != nil {
		return nil, err
	}
	if err := tx.PutToken(f.token); err != nil {
		return nil, err
	}
	_, err = enqueue(tx, f.token, vault.Put, "")
	return nil, errors.Join(err, tx.Audit(vault.Done(by, "import", f.token.ID, "")))
}

// fob is a line of an import.
type fob struct {
	line  int
	token vault.Token
	seed  secret.Secret
	err   error
}

// parseFobs reads what Import takes. Its errors repeat nothing of the lines: the seed may stand in any of them.
func parseFobs(table []byte) ([]fob, error) {
	var columns []string
	number := 0
	var all []fob
	for line := range bytes.Lines(table) {
		number++
		record, err := valuesOf(line)
		switch {
		case columns == nil && err != nil:
			return nil, refuse("it names the columns: serial,seed,counter,digits,description", "the first line is not comma-separated values")
		case columns == nil:
			if columns, err = columnsOf(record); err != nil {
				return nil, err
			}
		case err != nil || len(bytes.TrimSpace(line)) > 0:
			f := fob{line: number, err: err}
			if err == nil {
				f.err = f.fill(columns, record)
			}
			all = append(all, f)
		}
	}
	if columns == nil {
		return nil, refuse("it names the columns: serial,seed,counter,digits,description", "the first line is empty")
	}
	return all, nil
}

// valuesOf reads one line by itself, so that a quote too many spoils no other: no value goes over several lines.
func valuesOf(line []byte) ([]string, error) {
	in := csv.NewReader(bytes.NewReader(line))
	in.FieldsPerRecord, in.TrimLeadingSpace = -1, true
	record, err := in.Read()
	if err != nil && err != io.EOF {
		return nil, refuse("write quotes only around a whole value", "it is not comma-separated values")
	}
	return record, nil
}

var fobColumns = []string{"serial", "seed", "secret", "counter", "digits", "description"}

func columnsOf(first []string) ([]string, error) {
	var columns []string
	for i, name := range first {
		name = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff")))
		if !slices.Contains(fobColumns, name) || slices.Contains(columns, name) {
			return nil, refuse("the columns are "+strings.Join(fobColumns, ", ")+", each once", "the first line names the columns, and its value %d is none", i+1)
		}
		columns = append(columns, name)
	}
	switch seed, base32 := slices.Contains(columns, "seed"), slices.Contains(columns, "secret"); {
	case !slices.Contains(columns, "serial"):
		return nil, refuse("", "there is no column serial")
	case seed == base32:
		return nil, refuse("", "of the columns seed (hexadecimal) and secret (base32) there has to be one")
	}
	return columns, nil
}

// fill takes a line's values.
func (f *fob) fill(columns, record []string) (err error) {
	if len(record) != len(columns) {
		return refuse("", "it has %d values and there are %d columns", len(record), len(columns))
	}
	f.token = vault.Token{Status: vault.Active, Digits: 6}
	for i, value := range record {
		value = strings.TrimSpace(value)
		switch columns[i] {
		case "serial":
			if f.token.ID, err = device.FobToken(value); err != nil {
				return refuse("", "its serial is not 1 to %d letters and digits", device.MaxFobSerial)
			}
			if n, err := strconv.ParseUint(value, 10, 32); err == nil {
				f.token.Serial = device.Serial(n)
			}
		case "seed":
			err = f.take(hex.DecodeString(value))
		case "secret":
			err = f.take(base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(strings.TrimRight(value, "="))))
		case "counter":
			if value != "" {
				if f.token.Counter, err = strconv.ParseUint(value, 10, 63); err != nil {
					err = refuse("", "its counter is not a number from 0 to 2^63-1")
				}
			}
		case "digits":
			if value != "" && value != "6" && value != "8" {
				err = refuse("", "its digits are neither 6 nor 8")
			} else if value == "8" {
				f.token.Digits = 8
			}
		case "description":
			if f.token.Description = value; legible("description", value, vault.MaxDescription) != nil {
				err = refuse("", "its description is too long, or not text in one line")
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take keeps a seed that was decoded, and wipes what it was decoded to.
func (f *fob) take(seed []byte, err error) error {
	defer clear(seed)
	if err != nil || len(seed) < minFobSeed || len(seed) > maxFobSeed {
		return refuse("", "its seed is not %d to %d bytes in the form that the column says", minFobSeed, maxFobSeed)
	}
	f.seed = secret.New(bytes.Clone(seed))
	return nil
}
