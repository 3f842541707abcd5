//go:build guest

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
)

// A key is pulled at a random moment of its enroll, many times. Afterwards at most two touches settle it: either the
// vault knows what the key types, or the slot is empty. The daemon goes on and keeps no descriptor.
func TestUnplugged(t *testing.T) {
	const first device.Serial = 50000000
	keys := []string{absent(first), absent(first + 1000), absent(first + 1001), absent(first + 1002), absent(first + 1003)}
	for i := range *moments {
		keys = append(keys, absent(first+1+device.Serial(i)))
	}
	d := start(t, keys...)
	d.insert(first)
	begin := time.Now()
	d.enroll(first)
	length := time.Since(begin)
	d.remove(first)
	before := d.descriptors(0)

	// Moments that chance may miss: at the first, a middle and the last chunk of the write, and right after it.
	unfinished := 0
	for i, fault := range []struct {
		kind string
		n    int
	}{{"unplug-at-chunk", 0}, {"unplug-at-chunk", 4}, {"unplug-at-chunk", 9}, {"unplug-after-write", 0}} {
		s := first + 1000 + device.Serial(i)
		what := fmt.Sprintf("%s %d", fault.kind, fault.n)
		agrees, wasUnfinished := d.pulled(s, what, func() <-chan struct{} {
			if err := d.Emulator.Fault(d.bounded(), s.String(), fault.kind, fault.n); err != nil {
				t.Fatal(err)
			}
			return nothing
		})
		if !agrees {
			t.Errorf("%s: a seed is lost", what)
		} else if wasUnfinished {
			unfinished++
		}
	}
	if unfinished < 3 { // at chunk 0 nothing has reached the key
		t.Errorf("only %d of the writes that were cut off left something to settle", unfinished)
	}

	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("an enroll takes %v; random seed %d", length, seed)
	survived, lost, stuck := 0, 0, 1 // a stuck daemon fails whatever waits for it, which ends this test
	defer func() { figure("unplug_stuck_daemons", float64(stuck)) }()
	for i := range *moments {
		s := first + 1 + device.Serial(i)
		moment := time.Duration(random.Int64N(int64(length + length/10)))
		agrees, _ := d.pulled(s, fmt.Sprintf("after %v", moment.Round(time.Millisecond)), func() <-chan struct{} {
			return d.removeAfter(s, moment)
		})
		if agrees {
			survived++
		} else {
			lost++
			t.Errorf("pulled after %v: a seed is lost", moment) // see the log for the random seed
		}
	}
	stuck = 0
	after := d.descriptors(before)
	figure("unplug_survived", float64(survived))
	figure("unplug_lost_seeds", float64(lost))
	figure("unplug_leaked_descriptors", float64(after-before))
	if after > before {
		t.Errorf("the daemon had %d descriptors and has %d", before, after)
	}
}

// nothing is over at once.
var nothing = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// removeAfter pulls a key after some time; then the channel is closed.
func (d *desk) removeAfter(s device.Serial, moment time.Duration) <-chan struct{} {
	gone := make(chan struct{})
	ctx := d.bounded()
	time.AfterFunc(moment, func() {
		defer close(gone)
		if err := d.Emulator.Remove(ctx, s.String()); err != nil {
			d.Error(err)
		}
	})
	return gone
}

// pulled enrolls a key that disturb makes vanish, settles what is left with at most two touches, and tells whether
// vault and key agree, and whether there was something to settle.
func (d *desk) pulled(s device.Serial, what string, disturb func() <-chan struct{}) (agrees, unfinished bool) {
	d.Helper()
	d.insert(s)
	gone := disturb()
	_, err := d.work(d.bounded(), s, "/v1/enroll", enrollment(s))
	<-gone
	d.Logf("pulled %s: %v", what, err)

	d.insert(s)
	var token api.Token
	switch err := d.Client.Get(d.bounded(), tokenPath(s), nil, &token); {
	case isNotFound(err):
	case err != nil:
		d.Fatal(err)
	case token.Unfinished != "":
		unfinished = true
		before := d.touches
		if _, err := d.work(d.bounded(), s, tokenPath(s)+"/resolve", api.Resolve{}); err != nil {
			d.Fatalf("pulled %s: it cannot be resolved: %v", what, err)
		}
		if n := d.touches - before; n > 2 {
			d.Errorf("pulled %s: it took %d touches to settle", what, n)
		}
	}
	return d.agrees(s), unfinished
}

// agrees compares what the key types with what the vault knows, and pulls the key.
func (d *desk) agrees(s device.Serial) bool {
	d.Helper()
	defer d.remove(s)
	var token api.Token
	if err := d.Client.Get(d.bounded(), tokenPath(s), nil, &token); isNotFound(err) {
		return !d.configured(s)
	} else if err != nil {
		d.Fatal(err)
	}
	if token.Status != "active" || token.Unfinished != "" {
		d.Fatalf("%s is %s, %s", token.ID, token.Status, token.Unfinished)
	}
	typed, err := d.Touch(d.bounded(), s, true, 1)
	if err != nil {
		d.Fatal(err)
	}
	_, err = d.work(d.bounded(), s, tokenPath(s)+"/test", api.Codes{Codes: typed})
	return err == nil
}

// configured asks the emulator whether slot 2 holds something.
func (d *desk) configured(s device.Serial) bool {
	d.Helper()
	keys, err := d.Emulator.List(d.bounded())
	if err != nil {
		d.Fatal(err)
	}
	for _, k := range keys {
		if k.Serial == s {
			return slices.Contains(k.Holds, "otp2")
		}
	}
	d.Fatalf("there is no key %s", s)
	return false
}

// descriptors counts the daemon's, waiting a little for those that are about to be closed.
func (d *desk) descriptors(most int) (n int) {
	d.Helper()
	for deadline := time.Now().Add(patience / 10); ; {
		entries, err := os.ReadDir("/proc/" + strconv.Itoa(d.DaemonPID()) + "/fd")
		if err != nil {
			d.Fatal(err)
		}
		if n = len(entries); n <= most || time.Now().After(deadline) {
			return n
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-d.Context().Done():
			return n
		}
	}
}

func isNotFound(err error) bool {
	refused, ok := errors.AsType[*api.Error](err)
	return ok && refused.Code == api.NotFound
}
