package smartcard

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
)

// newKey generates a key with policies, and returns the elements of its public key.
func (h host) newKey(slot, algorithm, pin, touch byte) tlvs {
	h.Helper()
	control := appendTLV(nil, tagAlgorithm, algorithm)
	control = appendTLV(control, tagPINPolicy, pin)
	control = appendTLV(control, tagTouchPolicy, touch)
	got := h.must(fmt.Sprintf("004700%02x", slot), appendTLV(nil, tagControl, control...))
	e, ok := inner(got, tagPublicKey)
	if !ok {
		h.Fatalf("no public key: %x", got)
	}
	return e
}

func use(tag uint32, data []byte) []byte {
	return appendTLV(nil, tagTemplate, append([]byte{tagResponse, 0}, appendTLV(nil, tag, data...)...)...)
}

// result takes the response out of its template.
func (h host) result(b []byte) []byte {
	h.Helper()
	e, ok := inner(b, tagTemplate)
	r, has := e.get(tagResponse)
	if !ok || !has {
		h.Fatalf("no response: %x", b)
	}
	return r
}

func (h host) sign(slot, algorithm byte, data []byte) []byte {
	h.Helper()
	return h.result(h.must(fmt.Sprintf("0087%02x%02x", algorithm, slot), use(tagChallenge, data)))
}

func TestRSA(t *testing.T) {
	digest := sha256.Sum256([]byte("message"))
	// DigestInfo of SHA-256, padded as PKCS #1 version 1.5 does (RFC 8017, section 9.2).
	info := append(unhex(t, "3031300d060960864801650304020105000420"), digest[:]...)
	for _, algorithm := range []byte{algRSA1024, algRSA2048} {
		h := withPIV(t, "5.4.3")
		h.manage()
		e := h.newKey(slotAuthentication, algorithm, pinNever, touchNever)
		modulus, _ := e.get(tagModulus)
		exponent, _ := e.get(tagExponent)
		size := rsaBits[algorithm] / 8
		if len(modulus) != size || !bytes.Equal(exponent, []byte{1, 0, 1}) {
			t.Fatalf("the public key has %d bytes, and exponent %x", len(modulus), exponent)
		}
		public := &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: publicExponent}
		padded := append([]byte{0, 1}, bytes.Repeat([]byte{0xFF}, size-3-len(info))...)
		padded = append(append(padded, 0), info...)
		signature := h.sign(slotAuthentication, algorithm, padded)
		if err := rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature); err != nil {
			t.Errorf("RSA %d: %v", size*8, err)
		}
		head := fmt.Sprintf("0087%02x9a", algorithm)
		h.refused(head, use(tagChallenge, padded[1:]), swWrongData)
		h.refused(head, use(tagChallenge, bytes.Repeat([]byte{0xFF}, size)), swWrongData) // more than the modulus
		h.refused(head, use(tagExponentiation, padded), swWrongData)
	}
}

func TestImportRSA(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	element := func(tag uint32, n *big.Int) []byte { return appendTLV(nil, tag, n.FillBytes(make([]byte, 128))...) }
	parts := [][]byte{
		element(1, private.Primes[0]), element(2, private.Primes[1]),
		element(3, private.Precomputed.Dp), element(4, private.Precomputed.Dq), element(5, private.Precomputed.Qinv),
	}
	h := withPIV(t, "5.4.3")
	h.refused("00fe079d", bytes.Join(parts, nil), swSecurity)
	h.manage()
	h.refused("00fe069d", bytes.Join(parts, nil), swWrongData)     // too long for RSA 1024
	h.refused("00fe079d", bytes.Join(parts[:4], nil), swWrongData) // one is missing
	swapped := [][]byte{parts[0], parts[1], element(3, private.Precomputed.Dq), element(4, private.Precomputed.Dp), parts[4]}
	h.refused("00fe079d", bytes.Join(swapped, nil), swWrongData)
	even := [][]byte{element(1, new(big.Int).Add(private.Primes[0], big.NewInt(1))), parts[1], parts[2], parts[3], parts[4]}
	h.refused("00fe079d", bytes.Join(even, nil), swWrongData)
	h.must("00fe079d", bytes.Join(parts, nil))
	want := appendTLV([]byte{1, 1, algRSA2048, 2, 2, pinOnce, touchNever, 3, 1, 2}, 4,
		appendTLV(appendTLV(nil, tagModulus, private.N.Bytes()...), tagExponent, 1, 0, 1)...)
	if got := h.must("00f7009d", nil); !bytes.Equal(got, want) {
		t.Errorf("the metadata are %x", got)
	}
	h.want("00f99d0000", "6a80") // it cannot be attested

	secret := []byte("secret")
	padded := append([]byte{0, 2}, bytes.Repeat([]byte{0xA5}, 256-3-len(secret))...)
	padded = append(append(padded, 0), secret...)
	crypt := new(big.Int).Exp(new(big.Int).SetBytes(padded), big.NewInt(publicExponent), private.N).FillBytes(make([]byte, 256))
	h.verify()
	plain := h.sign(slotKeyManagement, algRSA2048, crypt)
	if !bytes.Equal(plain, padded) {
		t.Errorf("decrypted: %x", plain)
	}
}

func TestEC(t *testing.T) {
	digest := sha256.Sum256([]byte("message"))
	for algorithm, curve := range map[byte]elliptic.Curve{algECCP256: elliptic.P256(), algECCP384: elliptic.P384()} {
		h := withPIV(t, "5.4.3")
		h.manage()
		e := h.newKey(slotKeyManagement, algorithm, pinNever, touchNever)
		point, _ := e.get(tagPoint)
		public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(public, digest[:], h.sign(slotKeyManagement, algorithm, digest[:])) {
			t.Error("the signature is not by the key")
		}
		head := fmt.Sprintf("0087%02x9d", algorithm)
		h.refused(head, use(tagChallenge, make([]byte, curve.Params().BitSize/8+1)), swWrongData)
		h.refused("0087079d", use(tagChallenge, digest[:]), swWrongData) // it is not RSA

		own, err := public.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		peer, err := own.Curve().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		want, err := peer.ECDH(own)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.result(h.must(head, use(tagExponentiation, peer.PublicKey().Bytes()))); !bytes.Equal(got, want) {
			t.Errorf("they agree on %x and %x", got, want)
		}
		off := peer.PublicKey().Bytes()
		off[len(off)-1] ^= 1
		h.refused(head, use(tagExponentiation, off), swWrongData) // not on the curve
	}
}

// RFC 8032, section 7.1, test 2, and RFC 7748, section 6.1.
func Test25519(t *testing.T) {
	h := withPIV(t, "5.7.1")
	h.manage()
	h.must("00fee09a", appendTLV(nil, tagEd25519Seed, unhex(t, "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")...))
	h.verify()
	const signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
	if got := hex.EncodeToString(h.sign(slotAuthentication, algEd25519, []byte{0x72})); got != signature {
		t.Errorf("the signature is %s", got)
	}
	h.refused("0087e09a", use(tagExponentiation, make([]byte, 32)), swWrongData)

	h.must("00fee19d", appendTLV(nil, tagX25519Private, unhex(t, "77076d0a7318a57d3c16c17251b26645d4a2f46a3a4d4ddb6f4c0f1d0d0f5b60")...))
	h.refused("0087e19d", use(tagChallenge, make([]byte, 32)), swWrongData)
	h.refused("0087e19d", use(tagExponentiation, make([]byte, 32)), swWrongData) // of low order
	e := h.newKey(slotKeyManagement, algX25519, pinNever, touchNever)
	point, _ := e.get(tagPoint)
	public, err := ecdh.X25519().NewPublicKey(point)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.ECDH(public)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.result(h.must("0087e19d", use(tagExponentiation, peer.PublicKey().Bytes()))); !bytes.Equal(got, want) {
		t.Errorf("they agree on %x and %x", got, want)
	}
	e = h.newKey(slotSignature, algEd25519, pinNever, touchNever)
	point, _ = e.get(tagPoint)
	if !ed25519.Verify(point, []byte("message"), h.sign(slotSignature, algEd25519, []byte("message"))) {
		t.Error("the signature is not by the key")
	}
}

func TestGenerateGates(t *testing.T) {
	control := func(b ...byte) []byte { return appendTLV(nil, tagControl, b...) }
	h := withPIV(t, "5.4.3")
	h.refused("0047009a", control(tagAlgorithm, 1, algECCP256), swSecurity)
	h.manage()
	for _, b := range [][]byte{
		nil, control(), control(tagAlgorithm, 1, 0x99), control(tagAlgorithm, 2, algECCP256, 0), control(tagAlgorithm, 1, algEd25519),
		control(tagAlgorithm, 1, algRSA3072), control(tagAlgorithm, 1, algECCP256, tagPINPolicy, 1, 4),
		control(tagAlgorithm, 1, algECCP256, tagTouchPolicy, 1, 4), control(tagAlgorithm, 1, algECCP256, tagTouchPolicy, 0),
		append(control(tagAlgorithm, 1, algECCP256), 0),
	} {
		h.refused("0047009a", b, swWrongData)
	}
	h.refused("0047009b", control(tagAlgorithm, 1, algECCP256), swP1P2)
	h.refused("0047019a", control(tagAlgorithm, 1, algECCP256), swP1P2)
	old := withPIV(t, "4.2.8")
	old.manage()
	old.refused("0047009a", control(tagAlgorithm, 1, algECCP256, tagTouchPolicy, 1, touchCached), swWrongData)
	old.must("0047009a", control(tagAlgorithm, 1, algECCP256, tagTouchPolicy, 1, touchAlways))
}

func TestPINPolicies(t *testing.T) {
	digest := use(tagChallenge, make([]byte, 32))
	h := withPIV(t, "5.4.3")
	h.manage()
	for slot, want := range map[byte]byte{0x9A: pinOnce, 0x9C: pinAlways, 0x9D: pinOnce, 0x9E: pinNever, 0x82: pinOnce} {
		h.newKey(slot, algECCP256, policyDefault, policyDefault)
		if got := h.must(fmt.Sprintf("00f700%02x", slot), nil)[5]; got != want {
			t.Errorf("slot %02x has policy %d", slot, got)
		}
	}
	h.refused("0087119a", digest, swSecurity)
	h.refused("0087079a", digest, swSecurity) // not even the algorithm is told
	h.refused("0087119c", digest, swSecurity)
	h.refused("00871183", digest, swWrongData)
	h.refused("008711f9", digest, swP1P2)
	h.must("0087119e", digest)
	h.verify()
	h.must("0087119c", digest)
	h.refused("0087119c", digest, swSecurity)
	h.must("0087119a", digest)
	h.must("0087119a", digest)
	h.verify()
	h.must("0087119a", digest)
	h.refused("0087119c", digest, swSecurity) // the PIN was used up by the other one
}

func TestTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, allow := 0, true
		h := host{t, New(Options{Firmware: device.Version{Major: 5, Minor: 4, Build: 3}, Touch: func(ctx context.Context) bool {
			asked++
			if !allow {
				<-ctx.Done()
			}
			return allow
		}})}
		defer h.card.PowerDown()
		digest := use(tagChallenge, make([]byte, 32))
		h.selectPIV()
		h.manage()
		h.newKey(0x9A, algECCP256, pinNever, touchAlways)
		h.newKey(0x9C, algECCP256, pinNever, touchCached)
		h.newKey(0x9E, algECCP256, pinNever, touchNever)
		want := func(n int) {
			t.Helper()
			if asked != n {
				t.Errorf("it asked for %d touches, not %d", asked, n)
			}
			asked = 0
		}
		h.must("0087119e", digest)
		want(0)
		h.must("0087119c", digest)
		h.must("0087119c", digest)
		want(1)
		h.must("0087119a", digest)
		h.must("0087119a", digest)
		want(2)
		time.Sleep(touchCache)
		h.must("0087119c", digest)
		want(1)

		allow = false
		start := time.Now()
		h.refused("0087119a", digest, swSecurity)
		if d := time.Since(start); d != touchTime {
			t.Errorf("it waited for %v", d)
		}
		start = time.Now()
		go func() { time.Sleep(time.Second); h.card.PowerDown() }()
		if got := h.card.Transmit(append(unhex(t, "0087119a"), append([]byte{byte(len(digest))}, digest...)...)); got != nil {
			t.Errorf("without power it answers %x", got)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("it waited for %v after the power was gone", d)
		}
	})
}

func TestMove(t *testing.T) {
	h := withPIV(t, "5.7.1")
	h.want("00f6829a00", "6982")
	h.manage()
	h.want("00f6829a00", "6a88")
	h.newKey(0x9A, algECCP256, pinNever, touchNever)
	h.newKey(0x83, algECCP256, pinNever, touchNever)
	before := h.must("00f7009a", nil)
	h.want("00f6839a00", "6a80") // there is one
	h.want("00f6f99a00", "6a86")
	h.want("00f6829b00", "6a86")
	h.want("00f6829a00", "9000")
	if after := h.must("00f70082", nil); !bytes.Equal(before, after) {
		t.Errorf("it became %x", after)
	}
	h.want("00f7009a00", "6a88")
	h.want("00f6ff8200", "9000")
	h.want("00f7008200", "6a88")
	h.want("00f6fff900", "9000")
	h.want("00f9830000", "6985") // nothing to attest with
}
