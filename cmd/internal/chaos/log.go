package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// change is what the daemon has logged of an entry of the outbox.
type change struct {
	seq         uint64
	kind, token string
	failures    []failure
	ended       time.Time // zero if that was never logged
}

// failure is an attempt that failed, and when the next one may begin.
type failure struct{ at, again time.Time }

var changeLine = regexp.MustCompile(`^time=(\S+) level=\S+ msg=("[^"]*"|\S+) change=(\d+) kind=(\S+) token=(\S+) (.*)$`)

// changesIn reads the daemon's log: the entries that it tells of, in the order of their ends, and then those without. Its times are
// cut to milliseconds, of which the end counts.
func changesIn(log string) []change {
	var done []change
	open := map[uint64]*change{}
	var order []uint64
	for line := range strings.Lines(log) {
		f := changeLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if f == nil {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, f[1])
		seq, bad := strconv.ParseUint(f[3], 10, 64)
		if err != nil || bad != nil {
			continue
		}
		at = at.Add(time.Millisecond)
		c := open[seq]
		if c == nil {
			c = &change{seq: seq, kind: f[4], token: f[5]}
			open[seq] = c
			order = append(order, seq)
		}
		switch f[2] {
		case `"cannot deliver yet"`:
			again, err := time.Parse(time.RFC3339Nano, f[6][strings.LastIndexByte(f[6], '=')+1:])
			if err != nil {
				again = at
			}
			c.failures = append(c.failures, failure{at, again})
		case `"parked a change"`:
			c.failures = append(c.failures, failure{at, at})
		case "delivered", `"dropped an obsolete change"`:
			c.ended = at
			done = append(done, *c)
		}
	}
	for _, seq := range order {
		if c := open[seq]; c.ended.IsZero() {
			done = append(done, *c)
		}
	}
	return done
}
