package tpmseal

import (
	"bytes"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

// Whoever listens to the bus, for as long as they like, learns nothing of what is sealed, with a PIN or without.
func TestBusShowsNoSecret(t *testing.T) {
	var bus []byte
	record := func(next transport.TPM, command []byte) ([]byte, error) {
		response, err := next.Send(command)
		bus = append(append(bus, command...), response...)
		return response, err
	}
	var send func(transport.TPM, []byte) ([]byte, error)
	tpm := openTapped(t, vaulttest.StartSWTPM(t), cheap(), &send)
	setLimits(t, tpm, 100, 1000)
	send = record
	secrets := map[string]secret.Secret{"PIN": pin(rightPIN), "wrong PIN": pin("staple-battery-99")}

	name, value, auth := newCounter(t, tpm)
	secrets["counter's auth"] = auth.Clone()
	if err := tpm.Increment(name, auth); err != nil {
		t.Fatal(err)
	}
	value++
	if now, err := tpm.Count(name, auth); err != nil || now != value {
		t.Fatalf("counter %d, %v", now, err)
	}
	for mode, p := range map[string]string{"attended": rightPIN, "unattended": ""} {
		plain, k := secret.Random(48), key(t, tpm, p, nil)
		secrets[mode+" plain"] = plain.Clone()
		blob := seal(t, tpm, plain, k, vault.Mark{Counter: name, Value: value})
		opens(t, tpm, blob, k, plain)
		b, err := decodeBlob(blob)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(bus, b.private) {
			t.Fatal("the recorder missed the sealed object, so it proves nothing")
		}
		parts, err := splitKey(k)
		if err != nil {
			t.Fatal(err)
		}
		if p == "" {
			parts.auth = secret.New(bytes.Clone(b.auth))
		}
		secrets[mode+" auth"], secrets[mode+" half"] = parts.auth, parts.half
		err = tpm.run("see what the TPM guards", func() error {
			object, err := tpm.release(b, parts.auth)
			secrets[mode+" object"] = object
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if p != "" {
			wrong := key(t, tpm, "staple-battery-99", blob)
			if parts, err := splitKey(wrong); err != nil {
				t.Fatal(err)
			} else {
				secrets["wrong auth"] = parts.auth
			}
			_, err = tpm.Unseal(blob, wrong)
			wantState(t, err, vault.StateWrongPIN, "")
		}
	}
	old := secret.Random(32)
	secrets["old plain"] = old
	send = nil // how version 1 was sealed is of no interest
	blob := oldBlob(t, tpm, old)
	send = record
	opens(t, tpm, blob, secret.Secret{}, old)
	moved := secret.Random(64)
	secrets["moved"] = moved
	w, err := Wrap(parentOf(t, tpm), moved)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tpm.Unwrap(w); err != nil || !got.Equal(moved) {
		t.Fatal(err)
	}
	if err := tpm.DropCounter(name); err != nil {
		t.Fatal(err)
	}
	for what, s := range secrets {
		if s.Len() < 8 && what != "unattended half" {
			t.Errorf("%s has %d bytes: too few to look for", what, s.Len())
		}
		for i := 0; i+8 <= s.Len(); i++ {
			if bytes.Contains(bus, s.Reveal()[i:i+8]) {
				t.Errorf("the bus shows the %s", what)
				break
			}
		}
	}
	send = nil
	empty(t, tpm)
}

// A bus that is tampered with can hinder, but it cannot make a counter look as if it stood elsewhere.
func TestTamperedBusCannotLieAboutACounter(t *testing.T) {
	var send func(transport.TPM, []byte) ([]byte, error)
	tpm := openTapped(t, vaulttest.StartSWTPM(t), cheap(), &send)
	name, value, auth := newCounter(t, tpm)
	send = func(next transport.TPM, command []byte) ([]byte, error) {
		response, err := next.Send(command)
		if err == nil && commandCode(command) == tpm2.TPMCCNVRead {
			response = bytes.Clone(response)
			response[headerSize+4+2+7] ^= 1 // the value's last byte, after sizes of parameters and data
		}
		return response, err
	}
	_, err := tpm.Count(name, auth)
	wantState(t, err, vault.StateTPMAbsent, "HMAC")
	var replay []byte
	send = func(next transport.TPM, command []byte) ([]byte, error) {
		response, err := next.Send(command)
		if err == nil && commandCode(command) == tpm2.TPMCCNVRead {
			if replay != nil {
				return replay, nil
			}
			replay = bytes.Clone(response)
		}
		return response, err
	}
	if now, err := tpm.Count(name, auth); err != nil || now != value {
		t.Fatalf("counter %d, %v", now, err)
	}
	_, err = tpm.Count(name, auth)
	wantState(t, err, vault.StateTPMAbsent, "HMAC")
	send = nil
	if now, err := tpm.Count(name, auth); err != nil || now != value {
		t.Errorf("counter %d, %v", now, err)
	}
	empty(t, tpm)
}
