//go:build guest

package e2e

import (
	"errors"
	"math/rand/v2"
	"os"
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
	keys := []string{absent(first)}
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

	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("an enroll takes %v; random seed %d", length, seed)
	survived, lost, stuck := 0, 0, 1 // a stuck daemon fails whatever waits for it, which ends this test
	defer func() { figure("unplug_stuck_daemons", float64(stuck)) }()
	for i := range *moments {
		s := first + 1 + device.Serial(i)
		moment := time.Duration(random.Int64N(int64(length + length/10)))
		if d.pulled(s, moment) {
			survived++
		} else {
			lost++
			t.Errorf("pulled after %v: a seed is lost", moment)
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

// pulled enrolls a key that is pulled at some moment, settles what is left, and tells whether vault and key agree.
func (d *desk) pulled(s device.Serial, moment time.Duration) bool {
	d.Helper()
	d.insert(s)
	gone := make(chan struct{})
	time.AfterFunc(moment, func() {
		defer close(gone)
		if err := d.Emulator.Remove(d.bounded(), s.String()); err != nil {
			d.Error(err)
		}
	})
	_, err := d.work(d.bounded(), s, "/v1/enroll", enrollment(s))
	<-gone
	d.Logf("pulled after %v: %v", moment.Round(time.Millisecond), err)

	d.insert(s)
	var token api.Token
	switch err := d.Client.Get(d.bounded(), tokenPath(s), nil, &token); {
	case isNotFound(err):
	case err != nil:
		d.Fatal(err)
	case token.Unfinished != "":
		if _, err := d.work(d.bounded(), s, tokenPath(s)+"/resolve", api.Resolve{}); err != nil {
			d.Fatalf("pulled after %v: it cannot be resolved: %v", moment, err)
		}
	}
	return d.agrees(s)
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
			return k.Slot2
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
