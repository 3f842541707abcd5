package usbhid

import (
	"errors"
	"testing"
	"time"

	"github.com/karalabe/hid"

	"tokendesk/device"
)

// hidDevice is the library's side of a report: it answers with what a test has set.
type hidDevice struct {
	hid.Device
	n       int
	err     error
	onClose func()
	calls   int
	timeout int
}

func (d *hidDevice) SendFeatureReport(p []byte) (int, error) { d.calls++; return d.n, d.err }
func (d *hidDevice) GetFeatureReport(p []byte) (int, error)  { d.calls++; return d.n, d.err }
func (d *hidDevice) ReadTimeout(p []byte, ms int) (int, error) {
	d.calls++
	d.timeout = ms
	return d.n, d.err
}

func (d *hidDevice) Close() error {
	d.calls++
	if d.onClose != nil {
		d.onClose()
	}
	return nil
}

func newReport(t *testing.T) (*files, *hidDevice, *report) {
	f := newFiles(t)
	b := newBus(f.tree)
	k := f.plugKey("1-1")
	f.bind("1-1:1.0", claimed)
	b.take(k, hold{})
	d := &hidDevice{}
	d.onClose = func() { f.bind("1-1:1.0", "usbhid") }
	return f, d, &report{bus: b, key: k, device: d}
}

// calls are the methods of a report that reach the key.
func calls(r *report) map[string]func() error {
	return map[string]func() error{
		"SetFeature": func() error { return r.SetFeature(make([]byte, 9)) },
		"GetFeature": func() error { return r.GetFeature(make([]byte, 9)) },
		"ReadInput":  func() error { _, err := r.ReadInput(make([]byte, 8), 0); return err },
	}
}

func TestReportSizes(t *testing.T) {
	_, d, r := newReport(t)
	d.n = device.ReportSize
	for n := range 12 {
		p := make([]byte, n)
		if err := r.SetFeature(p); (err == nil) != (n == 9) {
			t.Errorf("writing %d bytes: %v", n, err)
		}
		if err := r.GetFeature(p); (err == nil) != (n == 9) {
			t.Errorf("reading %d bytes: %v", n, err)
		}
	}
	p := []byte{1, 0, 0, 0, 0, 0, 0, 0, 0}
	if r.SetFeature(p) == nil {
		t.Error("report number 1 is written")
	}
	if err := r.GetFeature(p); err != nil || p[0] != 0 {
		t.Errorf("a used buffer: %v", err)
	}
	d.n = 8
	if err := r.GetFeature(p); !errors.Is(err, device.ErrCorrupt) {
		t.Errorf("a short feature report: %v", err)
	}
	if n, err := r.ReadInput(make([]byte, 8), 0); n != 8 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := r.ReadInput(make([]byte, 7), 0); err == nil {
		t.Error("a keyboard report is cut")
	}
	d.n = 3
	if _, err := r.ReadInput(make([]byte, 8), 0); !errors.Is(err, device.ErrCorrupt) {
		t.Errorf("a short keyboard report: %v", err)
	}
}

func TestNitrokeyReportSizes(t *testing.T) {
	f := newFiles(t)
	f.plug("1-1", "20a0", "4108")
	f.plugInterface("1-1:1.0", "03", "00", claimed)
	k, ok := f.find("1-1:1.0")
	if !ok {
		t.Fatal("it is not found")
	}
	d := &hidDevice{n: 65}
	r := &report{bus: newBus(f.tree), key: k, device: d}
	for _, n := range []int{0, 9, 64, 65, 66} {
		p := make([]byte, n)
		if err := r.SetFeature(p); (err == nil) != (n == 65) {
			t.Errorf("writing %d bytes: %v", n, err)
		}
		if err := r.GetFeature(p); (err == nil) != (n == 65) {
			t.Errorf("reading %d bytes: %v", n, err)
		}
	}
	d.n = 9
	if err := r.GetFeature(make([]byte, 65)); !errors.Is(err, device.ErrCorrupt) {
		t.Errorf("a short feature report: %v", err)
	}
}

// The library takes whole milliseconds, and less than none as no end.
func TestReadTimeouts(t *testing.T) {
	_, d, r := newReport(t)
	for timeout, want := range map[time.Duration]int{
		-time.Hour: 0, -1: 0, 0: 0, 1: 1, time.Millisecond: 1, 1500 * time.Microsecond: 2, time.Minute: 60000,
	} {
		if n, err := r.ReadInput(make([]byte, 8), timeout); n != 0 || err != nil || d.timeout != want {
			t.Errorf("%v becomes %d ms; %d, %v", timeout, d.timeout, n, err)
		}
	}
}

func TestFailuresOfAPulledKey(t *testing.T) {
	for _, name := range []string{"SetFeature", "GetFeature", "ReadInput"} {
		for how, pull := range map[string]func(f *files, k key){
			"pulled":                  func(f *files, k key) { f.unplug("1-1") },
			"pulled a little later":   nil,
			"pulled and back":         func(f *files, k key) { f.unplug("1-1"); f.plugKey("1-1") },
			"the kernel refuses it":   func(f *files, k key) { f.remove(f.nodePath(k)) },
			"not authorised any more": func(f *files, k key) { f.write(f.folder("1-1")+"/authorized", "0") },
		} {
			f, d, r := newReport(t)
			d.err = errors.New("hidapi: something failed")
			if pull == nil {
				r.bus.sleep = func(time.Duration) { f.unplug("1-1") }
			} else {
				pull(f, r.key)
			}
			if err := calls(r)[name](); !errors.Is(err, device.ErrGone) {
				t.Errorf("%s, %s: %v", how, name, err)
			}
			d.calls, d.onClose = 0, nil
			for other, call := range calls(r) { // whatever is in its place now
				if err := call(); !errors.Is(err, device.ErrGone) || d.calls != 0 {
					t.Errorf("%s, %s, then %s: %v", how, name, other, err)
				}
			}
			for range 2 {
				if err := r.Close(); err != nil {
					t.Errorf("%s: closing it: %v", how, err)
				}
			}
			if d.calls != 1 {
				t.Errorf("closed %d times", d.calls)
			}
		}
	}
}

func TestFailuresOfAPresentKey(t *testing.T) {
	_, d, r := newReport(t)
	d.err = errors.New("hidapi: something failed")
	var slept time.Duration
	r.bus.sleep = func(d time.Duration) { slept += d }
	for range 3 { // it is waited for once
		err := r.SetFeature(make([]byte, 9))
		if !errors.Is(err, d.err) || errors.Is(err, device.ErrGone) || slept != time.Second {
			t.Errorf("%v after %v", err, slept)
		}
	}
	d.err = nil
	if err := r.SetFeature(make([]byte, 9)); err != nil {
		t.Errorf("after a failure: %v", err)
	}
}

func TestClose(t *testing.T) {
	f, d, r := newReport(t)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r.bus.opened(r.key) {
		t.Error("a closed key is held")
	}
	r.bus.take(r.key, hold{}) // opened again in the meantime
	f.bind("1-1:1.0", claimed)
	if err := r.Close(); err != nil || !r.bus.opened(r.key) || d.calls != 1 {
		t.Errorf("the second Close: %v", err)
	}
	for name, call := range calls(r) {
		if err := call(); err == nil || d.calls != 1 {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
}

// The library gives back only what it has taken from the kernel itself.
func TestCloseGivesBackWhatWasFoundAbandoned(t *testing.T) {
	for _, lost := range []bool{false, true} { // what was not may be somebody's who is opening it
		f, d, r := newReport(t)
		r.lost = lost
		d.onClose = func() { f.bind("1-1:1.0", "") }
		asked := kernel(f, r.bus, "1-1:1.0")
		if err := r.Close(); err != nil || (*asked == 1) != lost || r.bus.opened(r.key) {
			t.Errorf("%v, asked %d times", err, *asked)
		}
	}
	f, d, r := newReport(t)
	r.lost = true
	d.onClose = func() { f.bind("1-1:1.0", "") }
	r.bus.connect = func(string, int) error { return errors.New("refused") }
	expectCure(t, r.Close(), nil, "cannot be given back", "pull it")
}
