// Package trace records what a driver and a token say to each other, and repeats it: a token that somebody had once in their
// hands goes on being tested against.
//
// A Recorder decorates a device.Report or a device.Card, the lowest calls that the desk makes; a driver above it notices
// nothing. A Trace is what was asked of the driver, step by step, with the calls that each step has made and what it came to,
// failures included. Replay asks another driver, or the same one years later, for the same steps, gives it the same answers,
// and refuses a call or an outcome that differs, with the line of the file where it does. How often a driver looks whether a
// device is ready is a matter of time and not compared.
//
// Nothing is scrubbed, because nothing secret is there: steps name seeds and passwords of the tables Seeds and Passwords,
// which are published, and know no others. What a token types that is no code of such a seed spoils a record (ErrForeign). A
// Recorder sees the names of a device's other credentials, though, and whoever records decides whether that may be.
//
// PIV is not recorded. What the desk says to that application goes over a device.Card as well, but begins with secrets that it
// draws, and piv-go, which is the second opinion there, opens PC/SC readers itself.
package trace
