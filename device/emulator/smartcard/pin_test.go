package smartcard

import "testing"

const (
	verifyWrong = "0020008008363534333231ffff"
	changePIN   = "0024008010313233343536ffff363534333231ffff"
	changePUK   = "00240081103132333435363738" + "3837363534333231"
	unblockPIN  = "002c0080103132333435363738" + "363534333231ffff"
)

func TestVerify(t *testing.T) {
	h := withPIV(t, "5.4.3")
	h.want("0020008000", "63c3")
	h.want("00200080", "63c3")
	h.verify()
	h.want("0020008000", "9000")
	h.want("0020ff8000", "9000") // forget it
	h.want("0020008000", "63c3")
	h.verify()
	h.selectPIV()
	h.want("0020008000", "63c3")
	h.verify()
	h.card.PowerUp()
	h.selectPIV()
	h.want("0020008000", "63c3")

	h.want("0020008007313233343536ff", "6a80") // costs no try
	h.want("0020010000", "6a88")
	h.want("0020018000", "6a86")
	h.verify()
	h.want(verifyWrong, "63c2")
	h.want("0020008000", "63c2") // and forgets what was verified
	h.verify()
	for _, answer := range []string{"63c2", "63c1", "63c0", "6983", "6983"} {
		h.want(verifyWrong, answer)
	}
	h.want("0020008000", "6983")
	h.want("0020008008313233343536ffff", "6983")
	h.want("00f7008000", "0101ff050101060203009000")
}

func TestChangeReference(t *testing.T) {
	h := withPIV(t, "5.4.3")
	h.want(changePIN, "9000")
	h.want("00f7008000", "0101ff050100060203039000")
	h.want(changePIN, "63c2")
	h.want("0024008010363534333231ffff3132333435ffffff", "6a80") // too short
	h.want("0024008010363534333231ffff313233ff3435ffff", "6a80")
	h.want(verifyWrong, "9000") // it is right now
	h.want(changePUK, "9000")
	h.want("00f7008100", "0101ff050100060203039000")
	h.want(changePUK, "63c2")
	h.want("0024008200", "6a88")
	const binary = "0024008010313233343536ffff8182838485868788"
	withPIV(t, "5.4.3").want(binary, "9000")
	withPIV(t, "5.7.1").want(binary, "6a80")
	h.want("002400800f313233343536ffff363534333231ff", "6a80")
}

func TestUnblock(t *testing.T) {
	h := withPIV(t, "5.4.3")
	for range 3 {
		h.send(verifyWrong)
	}
	h.want("00fb000000", "6985") // the PUK is not blocked
	h.want(unblockPIN, "9000")
	h.want("0020008000", "63c3")
	h.want(verifyWrong, "9000")
	empty := "002c008010ffffffffffffffffffffffffffffffff" // as yubikit blocks a PUK
	for _, answer := range []string{"63c2", "63c1", "63c0", "6983"} {
		h.want(empty, answer)
	}
	h.want(unblockPIN, "6983")
	h.want(changePUK, "6983")
}

func TestReset(t *testing.T) {
	h := withPIV(t, "5.7.1")
	h.manage()
	h.must("0047009a", []byte{tagControl, 3, tagAlgorithm, 1, algECCP256})
	h.must("00db3fff", []byte{0x5C, 3, 0x5F, 0xC1, 5, 0x53, 1, 7})
	h.must("00fffffe", append([]byte{algAES128, refManagement, 16}, make([]byte, 16)...))
	attestation := h.must("00cb3fff", []byte{0x5C, 3, 0x5F, 0xFF, 1})
	h.want("00fb000000", "6985")
	for range 3 {
		h.send(verifyWrong)
		h.send("0024008110" + "ffffffffffffffffffffffffffffffff")
	}
	h.want("00fb010000", "6a86")
	h.want("00fb000000", "9000")
	h.want("00f7008000", "0101ff050101060203039000")
	h.want("00f7008100", "0101ff050101060203039000")
	h.want("00f7009b00", "01010a020200010501019000")
	h.want("00f7009a00", "6a88")
	h.want("00cb3fff055c035fc105", "6a82")
	h.refused("00db3fff", []byte{0x5C, 3, 0x5F, 0xC1, 5, 0x53, 1, 7}, swSecurity)
	if again := h.must("00cb3fff", []byte{0x5C, 3, 0x5F, 0xFF, 1}); string(again) != string(attestation) {
		t.Error("it has another attestation certificate")
	}
	h.verify()
}

func TestSetRetries(t *testing.T) {
	h := withPIV(t, "5.4.3")
	h.want("00fa050700", "6982")
	h.verify()
	h.want("00fa050700", "6982")
	h.manage()
	h.want("00fa000700", "6a80")
	h.want(changePIN, "9000")
	h.want("00fa140700", "9000")
	h.want("0020008000", "63cf") // 20 do not fit
	h.want("00f7008000", "0101ff050101060214149000")
	h.want("00f7008100", "0101ff050101060207079000")
	h.verify()
	h.selectPIV()
	h.verify()
	h.want("00fa050700", "6982")
}
