package secret

import "time"

// SetGrace is called before the first Secret is abandoned.
func SetGrace(d time.Duration) { grace = d }
