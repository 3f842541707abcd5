// Package smartcard is the smart card of a YubiKey in software: its PIV and OATH applications, its management
// application, and its OTP application, which it shares with the key's keyboard. It can be that of a Nitrokey 3, too, with the
// secrets application. It has no transport: Transmit takes command APDUs and gives response APDUs, whoever carries them.
//
// It is written from SP 800-73-4, from Yubico's descriptions of its extensions to PIV and of YKOATH, from what other clients
// expect of a key (piv-go, yubico-piv-tool, yubikit, OpenSC), and from what the firmware of a Nitrokey 3 does, and shares no
// code with the drivers (pivcard, oathapplet). It is not a security device: keys lie in memory and are gone with the process.
// What it attests, it attests under a root of its own, whose private key is in the source.
//
// Left out: OpenPGP, FIDO and the security domain, which are not there to be selected; changes to the configuration
// in the management application; fingerprints, and FIPS mode; of a Nitrokey 3 all that is not its secrets application.
package smartcard
