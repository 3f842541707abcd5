package openldap

import "time"

// SetGrace has a connector wait for replication that long.
func (c *Connector) SetGrace(d time.Duration) { c.grace = d }
