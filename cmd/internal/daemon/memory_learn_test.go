package daemon_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"go.etcd.io/bbolt"

	"tokendesk/vault/secret"
	"tokendesk/vault/stretch"
	"tokendesk/vault/tpmseal"
	"tokendesk/vault/vaulttest"
)

// This reads a vault's file with nothing but its recovery identity, as README describes the file.

// head is of a vault's header what leads to its keys.
type head struct {
	ID, Sealer, Level string
	PIN               bool
	Seals             [][]byte
	Anchor            struct{ Auth []byte }
	Key               struct {
		Version uint32
		Wrapped []byte
	}
	Recovery []byte
}

// learnVault learns every secret in the vault's file.
func (m *memory) learnVault() {
	m.t.Helper()
	m.view(m.learnFile)
}

func (m *memory) view(fn func(*bbolt.Tx) error) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "copy")
	if err := os.WriteFile(file, read(m.t, filepath.Join(m.w.Dir, "vault.db")), 0o600); err != nil {
		m.t.Fatal(err)
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		m.t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(fn); err != nil {
		m.t.Fatal(err)
	}
}

func readHead(tx *bbolt.Tx) (h head, err error) {
	encoded := tx.Bucket([]byte("meta")).Get([]byte("header"))
	return h, json.Unmarshal(encoded[bytes.Index(encoded, []byte(`{"id":`)):], &h)
}

// learnKey learns what a PIN is stretched to for the vault's seal. Any TPM does that; none is asked.
func (m *memory) learnKey(name, pin string) {
	m.t.Helper()
	var h head
	m.view(func(tx *bbolt.Tx) (err error) {
		h, err = readHead(tx)
		return err
	})
	given := secret.New([]byte(pin))
	defer given.Wipe()
	key, err := m.stretcher.Key(given, h.Seals[0])
	if err != nil {
		m.t.Fatal(err)
	}
	m.known[name] = bytes.Clone(key.Reveal()[stretch.Size:]) // what is before is no secret
	key.Wipe()
}

// startStretcher starts a TPM for learnKey.
func (m *memory) startStretcher() {
	m.t.Helper()
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { os.RemoveAll(dir) })
	device, stop, err := vaulttest.StartSWTPMProcess(dir)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := stop(); err != nil {
			m.t.Error(err)
		}
	})
	if m.stretcher, err = tpmseal.Open(device); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { m.stretcher.Close() })
}

func (m *memory) learnFile(tx *bbolt.Tx) error {
	h, err := readHead(tx)
	if err != nil {
		return err
	}
	ids, err := age.ParseIdentities(bytes.NewReader(read(m.t, m.w.Identity)))
	if err != nil {
		return err
	}
	envelope, err := age.Decrypt(bytes.NewReader(h.Recovery), ids...)
	if err != nil {
		return err
	}
	root, err := io.ReadAll(envelope)
	if err != nil {
		return err
	}
	mode := "unattended"
	if h.PIN {
		mode = "pin"
	}
	m.known["the root secret"] = root
	kek := derived(root, h.ID, "tokendesk key encryption", uint32(2), h.Sealer, h.Level, mode)
	m.known["the key encryption key"] = kek
	dek := opened(kek, h.Key.Wrapped, framed("data key", h.ID, h.Key.Version))
	m.known["the data key"] = dek
	m.known["the counters' authorization"] = opened(kek, h.Anchor.Auth, framed("anchor", h.ID))
	for _, purpose := range []string{"record", "secret", "ledger"} {
		m.known["the key of "+purpose+"s"] = derived(dek, h.ID, "tokendesk "+purpose, h.Key.Version)
	}
	for i := range uint32(2) {
		m.known[fmt.Sprint("sum key ", i)] = derived(dek, h.ID, "tokendesk element", h.Key.Version, i)
	}
	for _, bucket := range []string{"seeds", "codes", "system"} {
		err := tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
			const prefix = 13 // schema and versions
			s := opened(m.known["the key of secrets"], v[prefix:], append(framed("secret", h.ID, bucket, k), v[:prefix]...))
			m.known[fmt.Sprintf("%q of %s", k, bucket)] = s
			if string(k) == "audit" {
				expanded := sha512.Sum512(s) // RFC 8032, section 5.1.5
				m.known["the audit key"] = expanded[:]
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func framed(parts ...any) (out []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			out = append(binary.BigEndian.AppendUint64(out, uint64(len(p))), p...)
		case []byte:
			out = append(binary.BigEndian.AppendUint64(out, uint64(len(p))), p...)
		case uint32:
			out = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(out, 4), p)
		}
	}
	return out
}

func derived(from []byte, vault string, info ...any) []byte {
	k, err := hkdf.Key(sha256.New, from, []byte(vault), string(framed(info...)), 32)
	if err != nil {
		panic(err)
	}
	return k
}

func opened(key, sealed, aad []byte) []byte {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	plain, err := a.Open(nil, sealed[:a.NonceSize()], sealed[a.NonceSize():], aad)
	if err != nil {
		panic(err)
	}
	return plain
}

// learnIdentity learns the recovery identity: its text, and the X25519 key in it (Bech32, BIP 173).
func (m *memory) learnIdentity() {
	m.t.Helper()
	const prefix, letters, checksum = "AGE-SECRET-KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 6
	text, ok := strings.CutPrefix(strings.TrimSpace(string(read(m.t, m.w.Identity))), prefix)
	if !ok {
		m.t.Fatal("this is no identity")
	}
	m.known["the identity"] = []byte(text)
	number := new(big.Int)
	for _, c := range text[:len(text)-checksum] {
		number.Add(number.Lsh(number, 5), big.NewInt(int64(strings.IndexRune(letters, c))))
	}
	m.known["the identity's key"] = number.Rsh(number, 4).FillBytes(make([]byte, 32)) // 52 letters are 260 bits
}
