package emulator

import (
	"context"
	"time"
)

// neoMajor is the major version of NEOs, whose card is not there while another interface is used, and comes back some 3 s
// later (ykman/device.py; yubikey-manager, issue 34). Of later keys nothing of the kind is known: other programs only wait
// before they change from one interface to another, 3 s, or 0.1 s from firmware 5.6 on (Yubico.NET.SDK, ConnectionFactory).
const neoMajor = 3

// eject takes the card out of the reader of vpcd for d at least, with mu held.
func (c *carrier) eject(d time.Duration) {
	if d == 0 {
		return
	}
	c.away = time.Now().Add(d)
	select {
	case c.leave <- struct{}{}:
	default:
	}
}

// stayAway waits until the card may be in the reader.
func (c *carrier) stayAway(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.Lock()
		left := time.Until(c.away)
		c.mu.Unlock()
		if left <= 0 {
			break
		}
		_ = pause(ctx, nil, left) // that the key is pulled ends ctx
	}
	select {
	case <-c.leave: // it is out
	default:
	}
}
