// Package nitrokeypro is the one-time code part of a Nitrokey Pro, a Nitrokey Storage or a Librem Key in software: what stands
// behind their feature reports. It has no transport: SetFeature takes reports and GetFeature gives them, whoever carries them.
//
// It is written from the firmware of the Pro and of the Storage and from what libnitrokey expects of them, old firmware
// included, and shares no code with the driver (device/nitrokey). It is not a security device: seeds lie in memory and are gone
// with the process.
//
// Left out: TOTP slots, which are empty and cannot be written; the password safe and the encrypted volumes; the OpenPGP card,
// of which there is no more than two PINs, and the fourth HOTP slot, against which the device itself checks codes.
package nitrokeypro
