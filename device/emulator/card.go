package emulator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tokendesk/device/emulator/smartcard"
)

// cardFault begins the names of faults that are the smart card's: "card-mute" is smartcard.FaultMute.
const cardFault = "card-"

// Faults of the smart card, see package smartcard. One that pulls the card pulls the whole key.
const (
	FaultCardPullBefore  = cardFault + Fault(smartcard.FaultPullBefore)
	FaultCardPullAfter   = cardFault + Fault(smartcard.FaultPullAfter)
	FaultCardMute        = cardFault + Fault(smartcard.FaultMute)
	FaultCardStatus      = cardFault + Fault(smartcard.FaultStatus)
	FaultCardLyingLength = cardFault + Fault(smartcard.FaultLyingLength)
	FaultCardForeignRoot = cardFault + Fault(smartcard.FaultForeignRoot)
)

// CardFaults are all kinds that only a key with a smart card can have.
var CardFaults = []Fault{FaultCardPullBefore, FaultCardPullAfter, FaultCardMute, FaultCardStatus, FaultCardLyingLength, FaultCardForeignRoot}

// ofCard is what the smart card calls one of CardFaults.
func (k Fault) ofCard() smartcard.Fault {
	return smartcard.Fault(strings.TrimPrefix(string(k), cardFault))
}

// addCard gives a key its smart card, whose power is the reader's to give.
func (k *YubiKey) addCard() {
	k.card = smartcard.New(smartcard.Options{Serial: k.serial, Firmware: k.firmware, OTP: otpOnCard{k}, Touch: k.finger.await, Pulled: k.Remove})
	k.card.PowerDown()
	k.transmit, k.leave = k.carryOut, make(chan struct{}, 1)
	k.app.smartcard = true
}

// Card is the key's smart card; nil if it has none, because no reader is to have it.
func (k *YubiKey) Card() *smartcard.Card { return k.card }

// setCardFault must not hold k.mu: a card that waits for a touch lets nobody else have it, and the touch needs k.mu.
func (c *carrier) setCardFault(kind smartcard.Fault, n int) error {
	if c.card == nil {
		return fmt.Errorf("fault %s%s is one of smart cards, and this key has none: give it one by vpcd=HOST:PORT, or attach it with a product that has CCID", cardFault, kind)
	}
	if err := c.card.SetFault(kind, n); err != nil {
		return fmt.Errorf("the smart card refuses: %w", err)
	}
	return nil
}

// cardFaults names the active faults of the card; those of one that waits for a touch are not told, as it does nothing else
// meanwhile.
func (c *carrier) cardFaults() (names []string) {
	if c.card == nil || c.finger.awaited() {
		return nil
	}
	for _, name := range c.card.Faults() {
		names = append(names, cardFault+name)
	}
	return names
}

// cardPlace tells where the card is, with k.mu held; empty if there is none.
func (c *carrier) cardPlace() string {
	switch {
	case c.card == nil:
		return ""
	case c.gone == nil:
		return "out"
	case c.onUSB:
		return "USB"
	case c.inReader:
		return "in the reader at " + c.vpcd
	}
	return "no reader at " + c.vpcd
}

// carryOut has the card carry out an APDU. It returns nil if the card does not answer.
func (k *YubiKey) carryOut(apdu []byte) []byte {
	k.useCard()
	defer k.useCard()
	return k.card.Transmit(apdu)
}

// useCard notes that the card is used, after which the OTP interface has to be reclaimed.
func (k *YubiKey) useCard() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cardUsed = time.Now()
}

// reclaiming tells whether the OTP interface is still without the serial, because the card was used just now; with k.mu held.
func (k *YubiKey) reclaiming() bool { return time.Since(k.cardUsed) < k.timing.Reclaim }

// cardMute tells whether the card answers nothing, not even a reset.
func (c *carrier) cardMute() bool {
	return slices.Contains(c.card.Faults(), string(smartcard.FaultMute))
}

// finger is what a card waits for when it wants to be touched. It is used while the card is locked, and so calls nothing.
type finger struct {
	mu      sync.Mutex
	touched chan struct{} // nil: nobody waits
}

// await implements smartcard.Options.Touch.
func (f *finger) await(ctx context.Context) bool {
	f.mu.Lock()
	touched := make(chan struct{})
	f.touched = touched
	f.mu.Unlock()
	select {
	case <-touched:
		return true
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.touched == touched {
		f.touched = nil
	}
	return false
}

func (f *finger) awaited() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.touched != nil
}

// press releases a card that waits; false if none does.
func (f *finger) press() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.touched == nil {
		return false
	}
	close(f.touched)
	f.touched = nil
	return true
}
