package smartcard

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"
)

// Known answers of SP 800-67, appendix B, and of FIPS 197, appendix C.
func TestCiphers(t *testing.T) {
	for _, c := range []struct {
		algorithm         byte
		key, plain, crypt string
	}{
		{alg3DES, "0123456789abcdef23456789abcdef01456789abcdef0123", "5468652071756663", "a826fd8ce53b855f"},
		{algAES128, "000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
		{algAES192, "000102030405060708090a0b0c0d0e0f1011121314151617", "00112233445566778899aabbccddeeff", "dda97ca4864cdfe06eaf70a0ec0d7191"},
		{algAES256, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "00112233445566778899aabbccddeeff", "8ea2b7ca516745bfeafc49904b496089"},
	} {
		h := withPIV(t, "5.4.3")
		h.manage()
		key := unhex(t, c.key)
		h.must("00ffffff", append([]byte{c.algorithm, refManagement, byte(len(key))}, key...))
		h.selectPIV()
		h.card.piv.session.witness = unhex(t, c.plain) // as if the card had sent it
		plain := unhex(t, c.plain)
		both := append(appendTLV(nil, tagWitness, plain...), appendTLV(nil, tagChallenge, plain...)...)
		answer := h.must(fmt.Sprintf("0087%02x9b", c.algorithm), appendTLV(nil, tagTemplate, both...))
		if got := hex.EncodeToString(answer); got != fmt.Sprintf("7c%02x82%02x%s", len(plain)+2, len(plain), c.crypt) {
			t.Errorf("algorithm %02x: the answer is %s, not of %s", c.algorithm, got, c.crypt)
		}
	}
}

func TestMutual(t *testing.T) {
	h := withPIV(t, "5.4.3")
	k := h.card.piv.management
	witness := func() []byte {
		t.Helper()
		e, ok := inner(h.must("0087039b", []byte{tagTemplate, 2, tagWitness, 0}), tagTemplate)
		crypt, _ := e.get(tagWitness)
		if !ok || len(crypt) != 8 {
			t.Fatalf("the witness is %x", crypt)
		}
		plain := make([]byte, 8)
		k.block.Decrypt(plain, crypt)
		return plain
	}
	answer := func(witness []byte) []byte {
		challenge := appendTLV(nil, tagChallenge, 1, 2, 3, 4, 5, 6, 7, 8)
		return appendTLV(nil, tagTemplate, append(appendTLV(nil, tagWitness, witness...), challenge...)...)
	}
	h.refused("0087039b", answer(make([]byte, 8)), swSecurity) // no witness was asked for
	right := witness()
	wrong := bytes.Clone(right)
	wrong[0] ^= 1
	h.refused("0087039b", answer(wrong), swSecurity)
	h.refused("0087039b", answer(right), swSecurity) // it counts once
	right = witness()
	got := h.must("0087039b", answer(right))
	if !bytes.Equal(got, template(tagResponse, k.encrypt([]byte{1, 2, 3, 4, 5, 6, 7, 8}))) {
		t.Errorf("the card answers %x", got)
	}
	h.refused("0087039b", answer(right), swSecurity)
	h.refused("00ffffff", append([]byte{alg3DES, refManagement, 24}, bytes.Repeat([]byte{7}, 24)...), swSecurity) // that failed again
	h.refused("0087089b", []byte{tagTemplate, 2, tagWitness, 0}, swWrongData)
	h.refused("0087039b", []byte{tagTemplate, 2, tagResponse, 0}, swWrongData)
	h.refused("0087039b", []byte{tagTemplate, 3, tagWitness, 0}, swWrongData)
	h.must("0087009b", []byte{tagTemplate, 2, tagWitness, 0}) // 00 is 3DES as well
}

func TestSetManagementKey(t *testing.T) {
	key := bytes.Repeat([]byte{0x25, 0x52}, 16)
	set := func(algorithm byte, size int) []byte {
		return append([]byte{algorithm, refManagement, byte(size)}, key[:size]...)
	}
	h := withPIV(t, "5.4.3")
	h.refused("00ffffff", set(alg3DES, 24), swSecurity)
	h.manage()
	h.refused("00ffff00", set(alg3DES, 24), swP1P2)
	h.refused("00ffffff", set(alg3DES, 16), swWrongData)
	h.refused("00ffffff", set(algAES192, 16), swWrongData)
	h.refused("00ffffff", set(0x77, 24), swWrongData)
	h.refused("00ffffff", append([]byte{alg3DES, refManagement, 24}, bytes.Repeat([]byte{0xFE}, 24)...), swWrongData) // weak
	h.refused("00ffffff", append([]byte{alg3DES, refManagement, 24}, make([]byte, 24)...), swWrongData)               // likewise
	h.must("00fffffe", set(algAES256, 32))
	h.want("00f7009b00", "01010c020200020501009000")
	h.selectPIV()
	h.manage()
	h.must("00ffffff", append([]byte{algAES192, refManagement, 24}, factoryManagementKey...))
	h.want("00f7009b00", "01010a020200010501009000") // the factory's was of 3DES

	old := withPIV(t, "5.2.7")
	old.manage()
	old.refused("00ffffff", set(algAES128, 16), swWrongData)
	old.must("00ffffff", set(alg3DES, 24))
}
