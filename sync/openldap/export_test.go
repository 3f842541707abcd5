package openldap

import "time"

// SetGrace has a connector wait for replication that long.
func (c *Connector) SetGrace(d time.Duration) { c.grace = d }

// AwaitRested returns when no provider is left alone any more because it could not be reached: a server can be back sooner.
func (c *Connector) AwaitRested() {
	for _, p := range c.providers {
		p.mu.Lock()
		rest := p.rest
		p.mu.Unlock()
		<-time.After(time.Until(rest))
	}
}
