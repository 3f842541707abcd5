// Package emulator is a bench of stateful tokens in software. A YubiKey speaks the bytes of the OTP interface, keeps
// its slots and counters while pulled and plugged, types codes when touched, and misbehaves on demand. A NitrokeyPro does the
// same with what package nitrokeypro stands for, and types nothing; a Nitrokey3 is nothing but a smart card.
//
// It exists so that everything above the bus can be tested and demonstrated without hardware, with the
// same waiting, the same silence after a refused write and the same sudden absence. It is written from
// the protocol description alone and shares no code with the driver (otpslot), or both could be wrong
// in the same way. It is not a security device: seeds lie in memory and are gone with the process.
//
// Left out: NDEF and device configuration, which are refused; static passwords, whose slots type one-time
// passwords as if the flag were not set.
//
// A key can have a smart card (package smartcard), which is one with it: it has the same serial and OTP application, waits for the
// same finger, and goes when the key is pulled. It is served to a reader of vpcd, a driver of pcscd, or is the CCID interface of the
// key's USB device.
//
// A Token can be used in process, through Open, or over a Server: Listen makes one that serves the contract
// of package bussocket, Attach one whose tokens are devices of this machine's USB. All are safe for concurrent
// use.
package emulator
