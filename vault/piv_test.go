package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"tokendesk/device"
	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

const card device.TokenID = "yk-1001/piv"

// pivSecrets are the secrets of a card, told apart by generation.
func pivSecrets(generation int) map[vault.PIVSecret][]byte {
	return map[vault.PIVSecret][]byte{
		vault.ManagementKey: bytes.Repeat([]byte{byte(generation)}, device.ManagementKeySize),
		vault.PUK:           []byte(fmt.Sprintf("puk-%04d", generation%10000)),
		vault.PIN:           []byte(fmt.Sprintf("pi%04d", generation%10000)),
	}
}

func sealCard(tx *vault.Tx, id device.TokenID, generation int) (err error) {
	for kind, s := range pivSecrets(generation) {
		err = errors.Join(err, tx.SetPIVSecret(id, generation, kind, secret.New(bytes.Clone(s))))
	}
	return err
}

func putCard(tx *vault.Tx, id device.TokenID, generation int) error {
	return errors.Join(sealCard(tx, id, generation), tx.PutToken(vault.Token{ID: id, Status: vault.Active, Owner: "alice", Generation: generation}))
}

// wantSecrets checks which secrets of a card are there: "1m 1u" are generation 1's management key and PUK.
func wantSecrets(t *testing.T, v *vault.Vault, id device.TokenID, want string) {
	t.Helper()
	var got []string
	view(t, v, func(tx *vault.Tx) error {
		generations, err := tx.PIVGenerations(id)
		for _, g := range generations {
			for _, kind := range []vault.PIVSecret{vault.ManagementKey, vault.PIN, vault.PUK} {
				s, err := tx.PIVSecret(id, g, kind)
				there, herr := tx.HasPIVSecret(id, g, kind)
				if there != (err == nil) || herr != nil || err != nil && !errors.Is(err, vault.ErrNotFound) {
					t.Errorf("%v of generation %d: %v, %v, %v", kind, g, there, err, herr)
				}
				if err == nil {
					if !bytes.Equal(s.Reveal(), pivSecrets(g)[kind]) {
						t.Errorf("%v of generation %d is another one", kind, g)
					}
					got = append(got, fmt.Sprintf("%d%c", g, kind))
				}
				s.Wipe()
			}
		}
		return err
	})
	if now := strings.Join(got, " "); now != want {
		t.Errorf("%s has %q, want %q", id, now, want)
	}
}

func TestPIVSecrets(t *testing.T) {
	v := vaulttest.New(t)
	update(t, v, func(tx *vault.Tx) error { return putCard(tx, card, 1) })
	wantSecrets(t, v, card, "1m 1p 1u")
	set := func(kind vault.PIVSecret, generation int, s string) func(*vault.Tx) error {
		return func(tx *vault.Tx) error { return tx.SetPIVSecret(card, generation, kind, secret.New([]byte(s))) }
	}
	refused(t, v, "another one is there already", set(vault.PUK, 1, "87654321"))
	refused(t, v, "another one is there already", set(vault.ManagementKey, 1, strings.Repeat("k", 24)))
	refused(t, v, "not 24", set(vault.ManagementKey, 2, "short"))
	refused(t, v, "not 6 to 8", set(vault.PIN, 1, "12345"))
	refused(t, v, "not 6 to 8", set(vault.PUK, 2, "123456789"))
	refused(t, v, "generations start at 1", set(vault.PIN, 0, "123123"))
	refused(t, v, "there is none", set(0, 1, "123123"))
	refused(t, v, "no PIV application", func(tx *vault.Tx) error {
		return tx.SetPIVSecret(alice, 1, vault.PIN, secret.New([]byte("123123")))
	})
	refused(t, v, "a PIV application has none", func(tx *vault.Tx) error { return tx.SetSeed(card, 1, secret.Random(20)) })
	refused(t, v, "is missing", func(tx *vault.Tx) error { return tx.DeletePIVSecret(card, 1, vault.PUK) })
	refused(t, v, "does not exist", func(tx *vault.Tx) error { return sealCard(tx, "yk-7/piv", 1) })

	before := v.Condition().Shred
	update(t, v, func(tx *vault.Tx) error { // a PIN is replaced, and taken out
		return errors.Join(set(vault.PIN, 1, "999999")(tx), set(vault.PIN, 1, "pi0001")(tx))
	})
	if v.Condition().Shred.Equal(before) {
		t.Error("nothing says that older pages hold a PIN")
	}
	update(t, v, func(tx *vault.Tx) error { return tx.DeletePIVSecret(card, 1, vault.PIN) })
	wantSecrets(t, v, card, "1m 1u")

	// The next ones are there beside those that the card may still have.
	update(t, v, func(tx *vault.Tx) error { return sealCard(tx, card, 2) })
	wantSecrets(t, v, card, "1m 1u 2m 2p 2u")
	if err := errors.Join(v.Check(), v.Rotate(officer, nil), v.Check()); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, v, card, "1m 1u 2m 2p 2u")
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutToken(vault.Token{ID: card, Status: vault.Active, Generation: 2}), tx.ForgetPIV(card, 2))
	})
	wantSecrets(t, v, card, "2m 2p 2u")

	// Of one that was buried its card may have everything; nobody needs its PIN.
	update(t, v, func(tx *vault.Tx) error { return tx.Bury(vault.Tombstone{ID: card}) })
	wantSecrets(t, v, card, "2m 2u")
	refused(t, v, "is that of a token that was deleted", func(tx *vault.Tx) error {
		return tx.SetPIVSecret(card, 1, vault.PIN, secret.New([]byte("123123")))
	})
	refused(t, v, "does not exist", set(vault.PIN, 3, "123123"))
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutToken(vault.Token{ID: card, Status: vault.Pending}), sealCard(tx, card, 3))
	})
	wantSecrets(t, v, card, "2m 2u 3m 3p 3u")
	update(t, v, func(tx *vault.Tx) error { return tx.DeleteToken(card) })
	wantSecrets(t, v, card, "")
}

// A vault that an earlier version has made gets the buckets when it is opened.
func TestPIVInVaultOfAnEarlierVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault")
	v := created(t, path)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	raw(t, path, func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket([]byte("piv")), tx.DeleteBucket([]byte("certificates")))
	})
	v, err := open(path)
	if err != nil {
		t.Fatal(err)
	}
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(putCard(tx, card, 1), tx.PutCertificate(&vault.Certificate{Token: card, Slot: "9c", DER: []byte("c"), RevokeDue: time.Now()}))
	})
	if n := revocations(t, v); n != 1 {
		t.Errorf("%d are due", n)
	}
	if err := errors.Join(v.Check(), v.Close()); err != nil {
		t.Error(err)
	}
}

func revocations(t *testing.T, v *vault.Vault) (n int) {
	view(t, v, func(tx *vault.Tx) error { n = tx.Counts().Revocations; return nil })
	return n
}

func TestCertificates(t *testing.T) {
	v := vaulttest.New(t)
	key := vault.Certificate{Token: card, Generation: 1, Slot: "9a", Algorithm: device.ECCP256, Attested: true, PublicKey: []byte("key")}
	spare := key
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(putCard(tx, card, 1), tx.PutCertificate(&key), tx.PutCertificate(&spare))
	})
	if key.ID != 1 || key.Created.IsZero() || key.SHA256() != "" || key.Due() {
		t.Errorf("%+v", key)
	}
	key.DER, key.Subject, key.NotAfter, key.Imported = []byte("certificate"), "CN=alice", time.Now().Add(time.Hour), time.Now()
	update(t, v, func(tx *vault.Tx) error { return errors.Join(tx.PutCertificate(&key), tx.DeleteKey(spare.ID)) })
	ids := func(all []vault.Certificate, err error) (out []uint64) {
		for _, c := range all {
			out = append(out, c.ID)
		}
		if err != nil {
			t.Error(err)
		}
		return out
	}
	want := func(of, due, same []uint64) {
		t.Helper()
		view(t, v, func(tx *vault.Tx) error {
			if got := ids(tx.CertificatesOf(card)); !slices.Equal(got, of) {
				t.Errorf("of the card: %v, want %v", got, of)
			}
			if got := ids(tx.CertificatesDue()); !slices.Equal(got, due) || tx.Counts().Revocations != len(due) {
				t.Errorf("due: %v, want %v; %d counted", got, due, tx.Counts().Revocations)
			}
			if got := ids(tx.CertificatesBySHA256(key.SHA256())); !slices.Equal(got, same) {
				t.Errorf("by fingerprint: %v, want %v", got, same)
			}
			return nil
		})
	}
	want([]uint64{1}, nil, []uint64{1})
	key.RevokeDue, key.DueWhy = time.Now(), "wiped"
	found := vault.Certificate{Token: card, Slot: "9a", DER: key.DER, RevokeDue: time.Now()}
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(tx.PutCertificate(&key), tx.PutCertificate(&found), tx.Bury(vault.Tombstone{ID: card}))
	})
	want([]uint64{1, 3}, []uint64{1, 3}, []uint64{1, 3}) // they outlive the token
	if err := errors.Join(v.Check(), v.Rotate(officer, nil), v.Check()); err != nil {
		t.Fatal(err)
	}
	key.Revoked, key.RevokedBy = time.Now(), "olga"
	update(t, v, func(tx *vault.Tx) error { return tx.PutCertificate(&key) })
	want([]uint64{1, 3}, []uint64{3}, []uint64{1, 3})
	view(t, v, func(tx *vault.Tx) error {
		got, err := tx.Certificate(1)
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", key) {
			t.Errorf("%+v\n%+v", got, key)
		}
		return err
	})
	for what, spoil := range map[string]func(c *vault.Certificate){
		"another one":                 func(c *vault.Certificate) { c.DER = []byte("other") },
		"is no PIV application":       func(c *vault.Certificate) { c.Token = alice },
		"of yk-1001/piv":              func(c *vault.Certificate) { c.Token = "yk-1002/piv" },
		"not a PIV slot":              func(c *vault.Certificate) { c.Slot = "9b" },
		"written as 9a":               func(c *vault.Certificate) { c.Slot = "9A" },
		"no generation -1":            func(c *vault.Certificate) { c.Generation = -1 },
		"neither a key nor":           func(c *vault.Certificate) { c.ID, c.DER, c.PublicKey = 0, nil, nil },
		"nothing to revoke":           func(c *vault.Certificate) { c.ID, c.DER = 0, nil },
		"more than 16384 bytes":       func(c *vault.Certificate) { c.Request = make([]byte, 20_000) },
		"names have more than 4096":   func(c *vault.Certificate) { c.Subject = strings.Repeat("a", 5000) },
		"certificate 99: not found":   func(c *vault.Certificate) { c.ID = 99 },
		"a user has at most 256 byte": func(c *vault.Certificate) { c.Owner = strings.Repeat("a", 257) },
	} {
		bad := key
		spoil(&bad)
		refused(t, v, what, func(tx *vault.Tx) error { return tx.PutCertificate(&bad) })
	}
	refused(t, v, "what was certified is kept", func(tx *vault.Tx) error { return tx.DeleteKey(1) })
	refused(t, v, "not found", func(tx *vault.Tx) error { return tx.DeleteKey(2) })
}

// What stands in the new buckets without belonging there is found.
func TestCheckOfPIV(t *testing.T) {
	for name, spoil := range map[string]func(*vault.Tx) error{
		"a certificate never given": func(tx *vault.Tx) error {
			return tx.PutRecord("certificates", number(2), vault.Certificate{ID: 2, Token: card, Slot: "9a", DER: []byte("c")})
		},
		"a certificate of another number": func(tx *vault.Tx) error {
			return tx.PutRecord("certificates", number(1), vault.Certificate{ID: 2, Token: card, Slot: "9a", DER: []byte("c")})
		},
		"a certificate that was moved": func(tx *vault.Tx) error {
			return tx.PutRecord("certificates", number(1), vault.Certificate{ID: 1, Token: "yk-2/piv", Slot: "9a", DER: []byte("c")})
		},
		"a certificate of nothing": func(tx *vault.Tx) error {
			return tx.PutRecord("certificates", number(1), vault.Certificate{ID: 1, Token: card, Slot: "9a"})
		},
		"a certificate of no number": func(tx *vault.Tx) error { return tx.DeleteNumbered('r', string(card), 1) },
		"one due that is not listed": func(tx *vault.Tx) error { return tx.DeleteNumbered('d', "", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			v := vaulttest.New(t)
			update(t, v, func(tx *vault.Tx) error {
				return errors.Join(putCard(tx, card, 1), tx.PutCertificate(&vault.Certificate{Token: card, Slot: "9a", DER: []byte("c"), RevokeDue: time.Now()}))
			})
			if err := v.Check(); err != nil {
				t.Fatal(err)
			}
			update(t, v, spoil)
			wantState(t, v.Check(), vault.StateCorrupt, "")
			if err := v.Close(); err != nil { // it would fail the check at the end
				t.Error(err)
			}
		})
	}
}

// Whatever is done to a card's secrets and certificates, in whatever order: the vault stays in order, and says what a model says.
func TestPIVProperty(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	v := vaulttest.New(t)
	there, generation, due := false, 0, 0
	secrets := map[string]bool{}
	for step := range 300 {
		g := generation + 1
		switch action := random.IntN(6); {
		case action == 0 && !there:
			update(t, v, func(tx *vault.Tx) error { return putCard(tx, card, g) })
			there, generation = true, g
			for _, kind := range "mpu" {
				secrets[fmt.Sprintf("%d%c", g, kind)] = true
			}
		case action == 1 && there:
			update(t, v, func(tx *vault.Tx) error { return tx.DeletePIVSecret(card, generation, vault.PIN) })
			delete(secrets, fmt.Sprintf("%dp", generation))
		case action == 2 && there:
			update(t, v, func(tx *vault.Tx) error { return tx.Bury(vault.Tombstone{ID: card}) })
			there = false
			for s := range secrets {
				if strings.HasSuffix(s, "p") {
					delete(secrets, s)
				}
			}
		case action == 3 && there:
			update(t, v, func(tx *vault.Tx) error { return tx.ForgetPIV(card, generation) })
			for s := range secrets {
				if s[:len(s)-1] != fmt.Sprint(generation) {
					delete(secrets, s)
				}
			}
		case action == 4:
			update(t, v, func(tx *vault.Tx) error {
				return tx.PutCertificate(&vault.Certificate{Token: card, Slot: "9a", DER: []byte{byte(step), 1}, RevokeDue: time.Now()})
			})
			due++
		case action == 5 && due > 0:
			update(t, v, func(tx *vault.Tx) error {
				all, err := tx.CertificatesDue()
				c := all[random.IntN(len(all))]
				c.Revoked = time.Now()
				return errors.Join(err, tx.PutCertificate(&c))
			})
			due--
		}
		if step%25 == 0 {
			if err := v.Check(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			var want []string
			for g := range generation + 1 {
				for _, kind := range "mpu" {
					if s := fmt.Sprintf("%d%c", g, kind); secrets[s] {
						want = append(want, s)
					}
				}
			}
			wantSecrets(t, v, card, strings.Join(want, " "))
			if n := revocations(t, v); n != due {
				t.Fatalf("seed %d, step %d: %d are due, want %d", seed, step, n, due)
			}
		}
	}
}

// A PIN of a backup was perhaps taken since: only work that goes on needs it.
func TestRestoreForgetsPINs(t *testing.T) {
	const working device.TokenID = "yk-1002/piv"
	v, _ := stocked(t, "1234")
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity := withIdentity(t, v, id.Recipient(), id)
	update(t, v, func(tx *vault.Tx) error {
		return errors.Join(putCard(tx, card, 1), putCard(tx, working, 1), tx.PutJob(&vault.Job{Kind: "piv unblock", Token: working}))
	})
	r, _ := another(t)
	if err := r.Restore(backup(t, v, t.TempDir()).Path(), identity, vault.Setup{}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Unlock(secret.Secret{}), r.Check()); err != nil {
		t.Fatal(err)
	}
	wantSecrets(t, r, card, "1m 1u")
	wantSecrets(t, r, working, "1m 1p 1u")
}
