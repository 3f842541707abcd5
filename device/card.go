package device

import "context"

// CardInfo describes a smart card that a CardBus has seen, before it is opened.
type CardInfo struct {
	Reader   string // the name PC/SC gives the reader; it may come to name another one once this is unplugged
	Port     string // the USB port that the reader is plugged into, as Info.Port names it: "1-1"; empty if that is not known
	Emulated bool   // not a hardware token (rule D6)
	// Problem says why it cannot be used, if that is known without opening it, and Cure what to do about it.
	Problem, Cure string
}

// CardEvent is one change on a bus of smart cards.
type CardEvent struct {
	Info    CardInfo
	Removed bool // otherwise it was added
}

// CardBus lists and opens smart cards. Implementations are safe for concurrent use.
type CardBus interface {
	// Name is a short word for messages: "pcsc".
	Name() string
	// Watch calls fn with an addition for every card present, then with each change as it happens, from one goroutine. It
	// returns when ctx ends, or when the bus is lost, with an error that says why nothing is seen.
	Watch(ctx context.Context, fn func(CardEvent)) error
	// Open opens a card exclusively. It fails with ErrGone, ErrBusy, ErrPermission or ErrMute, wrapped in what is known of the
	// cause.
	Open(ctx context.Context, reader string) (Card, error)
}

// Card is an open smart card. It is used by one goroutine at a time. Every method fails with ErrGone once the card was pulled.
type Card interface {
	// Transmit sends a command APDU (ISO/IEC 7816-4, section 5.1) and returns all of its response data, and the status word.
	// Commands that are too long for one APDU go in several, and long responses are collected.
	Transmit(apdu []byte) (data []byte, status uint16, err error)
	// Close lets others have the card, and leaves it as it is. A second Close does nothing.
	Close() error
}
