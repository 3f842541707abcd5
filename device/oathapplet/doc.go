// Package oathapplet is the OATH application of security keys over PC/SC (YKOATH): named HOTP and TOTP credentials, whose codes the
// key calculates when it is asked to. It is the seam device.Session, and its credentials are device.HOTPTokens.
//
// Two dialects of one protocol are spoken, and SELECT's answer says which. That of YubiKeys (developers.yubico.com, OATH: YKOATH
// protocol; yubikit, oath.py) has a password, which is proven both ways and opens the application until another one is selected.
// That of the Nitrokey 3 (Nitrokey/trussed-secrets-app) tells its serial number, writes over nothing, and asks for a touch before
// it deletes. Credentials that the desk writes are not protected by a Nitrokey 3's PIN: that would take a touch and the PIN for
// every code. The PIN is needed only where somebody else has protected a credential of the same name.
//
// CALCULATE moves the counter of an HOTP credential, even if its answer is lost, and no command tells the counter. CALCULATE ALL is
// never sent.
package oathapplet
