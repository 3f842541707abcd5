// Package bussocket is the wire contract of the emulator's bus socket, and its client.
//
// Emulated tokens live in another process (cmd/tokenemu), so that no production binary contains one.
// What connects the two is a Unix stream socket, mode 0600, that carries the bytes of real keys with
// the habits of the real USB library: feature reports with their number, timed reads, a slow and exclusive open,
// a close that gives the keyboard back, and keys that vanish in mid-call. Bus is the device.Bus on
// this side of it, Control the hand that plugs and touches. There is no authentication beyond the
// socket's mode, and no framing for anything but the HID interfaces that device.Bus knows: smart cards are reached by PC/SC.
// Another server only needs this page.
//
// # Lines
//
// Both sides send JSON objects, one a line, ended by "\n", UTF-8. A request line has at most
// MaxRequest bytes, an answer line at most MaxAnswer, newline included. A connection has one request
// in flight: the client waits for the answer before it sends again. Unknown fields are refused in
// requests and ignored in answers. Bytes travel as hexadecimal strings.
//
// An answer is one of
//
//	{"ok":true, …}                               done; what else it carries depends on the request
//	{"error":{"code":"busy","text":"…"}}         refused; the connection stays usable
//	{"event":"added","interface":{…}}            only after watch
//
// A line that is no request is answered with the code bad-request. After an overlong line the server
// answers so and closes the connection.
//
// # Error codes
//
//	gone         the key is not plugged in, or was pulled (device.ErrGone)
//	busy         another handle, or another program, holds the key (device.ErrBusy)
//	permission   the key may not be opened (device.ErrPermission)
//	timeout      the key did not answer in time (device.ErrTimeout)
//	bad-request  the line is no request, or not one that fits here
//	unknown-key  a control request names no key
//	ambiguous    it names several: keys may share a serial, never a port
//	failed       anything else
//
// # The bus
//
// An interface is {"path":"emu1:1.0","port":"emu1","vendor":4176,"product":1031}. The port belongs to
// one key for the server's lifetime; the path names its HID interface while it is plugged in: the OTP keyboard of a
// YubiKey, or what a Nitrokey has for its slots. Vendor and product say which it is, and so the size of its feature
// reports (device.Model); those of models that the table does not have are as a YubiKey's.
//
//	{"op":"list"}                    ok with "interfaces": those plugged in
//	{"op":"watch"}                   no ok: an "added" event for each interface present, one "synced"
//	                                 event, then "added" and "removed" as they happen, until the
//	                                 client closes. A watcher that falls MaxBacklog events behind is
//	                                 sent an error and closed.
//	{"op":"open","path":"emu1:1.0"}  may take as long as it does on a real bus. ok has the "interface"; after
//	                                 it the connection is that handle, and what the key types comes here only
//
// On a handle:
//
//	{"op":"set-feature","data":"00…"}      data has 9 bytes, or 65 for a Nitrokey: report number 0, then the report
//	{"op":"get-feature"}                   ok with "data" of as many bytes, likewise
//	{"op":"read-input","timeout_ms":100}   ok with "data", one 8-byte boot-keyboard report, or without
//	                                       data if none came in time; 0 polls; at most MaxReadTimeout
//	{"op":"close"}                         ok once the keyboard has been given back; the server closes
//
// Closing the connection closes the handle as well, even in the middle of a read. When the key is
// pulled, the call in flight and all later ones are answered with gone, also after it is plugged in
// again: that is another opening.
//
// # Control
//
// A key is named by its serial number, its name or its port: "12345678", "nk-00005d19", "emu1". The serial of a Nitrokey
// has eight hexadecimal digits.
//
//	{"op":"insert","key":"12345678"}    plug in; nothing happens if it is
//	{"op":"remove","key":"emu1"}        pull; nothing happens if it is out
//	{"op":"touch","key":"emu1","long":true,"times":2}
//	                                    ok with "touches": for each {"to":"window","text":"…"}, or
//	                                    {"to":"holder"} if a handle received it, or {"to":"nobody"} if
//	                                    that slot types nothing, or {"to":"challenge"} if a challenge
//	                                    waited for it. times is 1 to MaxTouches, 1 if absent
//	{"op":"fault","key":"emu1","kind":"reject-write","n":1}
//	                                    kinds are the server's; "clear" removes all faults
//	{"op":"list-all"}                   ok with "keys": every key, plugged in or not (type Key); one that is a
//	                                    smart card only has its port for a path, which cannot be opened
//
// # Keys on the USB of the machine
//
// A server can have plugged its keys into the kernel instead, as USB devices. None of them is on the bus of
// the socket then, or a key would be seen twice: list has no interfaces, watch sends "synced" and nothing
// more, and open is refused with gone. Control works as above, with these differences: insert and remove
// return once the kernel has set the key up or let go of it, and with failed if it does not; what a touch
// types is {"to":"usb"}, without its text; list-all tells the "usb_port" of a key, which is the kernel's name
// of it ("1-1"), and does not tell whether the kernel's side holds it; faults that strike when a key is opened
// are refused with bad-request.
package bussocket
