// Package smartcard is the smart card of a YubiKey in software: its PIV application, its management application, and as
// much of its OTP application as others need to identify it by. It has no transport: Transmit takes command APDUs and
// gives response APDUs, whoever carries them.
//
// It is written from SP 800-73-4, from Yubico's description of its extensions to PIV, and from what other clients expect of
// a key (piv-go, yubico-piv-tool, yubikit, OpenSC), and shares no code with the driver (pivcard). It is not a security
// device: keys lie in memory and are gone with the process. What it attests, it attests under a root of its own, whose
// private key is in the source.
//
// Left out: OATH, OpenPGP, FIDO and the security domain, which are not there to be selected; changes to the configuration
// in the management application; fingerprints, and FIPS mode.
package smartcard
