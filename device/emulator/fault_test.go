package emulator

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"tokendesk/device"
)

func fault(t *testing.T, k *YubiKey, kind Fault, n int) {
	t.Helper()
	if err := k.SetFault(kind, n); err != nil {
		t.Fatal(err)
	}
}

// cleared checks that a lasting fault is over and the key works.
func cleared(t *testing.T, k *YubiKey, h host) {
	t.Helper()
	fault(t, k, FaultClear, 0)
	if len(k.faults.list()) != 0 {
		t.Fatalf("faults left: %v", k.faults.list())
	}
	if !h.wrote(cmdConfig1, hotpConfig().payload()) {
		t.Fatal("the key does not take a write after the fault")
	}
}

func TestUnplugAtChunk(t *testing.T) {
	for n := range chunks {
		k := newKey(t, Options{})
		h := open(t, k)
		fault(t, k, FaultUnplugAtChunk, n)
		for i, c := range chunksOf(cmdConfig1, hotpConfig().payload()) {
			err := h.set(c)
			if i < n && err != nil || i >= n && !errors.Is(err, device.ErrGone) {
				t.Fatalf("unplugged at %d, chunk %d: %v", n, i, err)
			}
		}
		if _, err := k.Open(t.Context()); !errors.Is(err, device.ErrGone) {
			t.Fatalf("opening a pulled key: %v", err)
		}
		k.Insert()
		if err := h.r.GetFeature(make([]byte, 9)); !errors.Is(err, device.ErrGone) {
			t.Fatalf("the handle came back to life: %v", err)
		}
		h = open(t, k)
		if h.sequence() != 0 || !h.wrote(cmdConfig1, hotpConfig().payload()) {
			t.Fatal("it was applied, or strikes twice")
		}
	}
}

func TestUnplugAtChunkLeftOut(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	fault(t, k, FaultUnplugAtChunk, 1)
	h.reports("0000000000000080", "00106b5b00000089") // a request
	h.reports("0000000000000080")
	if err := h.set([]byte{1, 2, 3, 4, 5, 6, 7, 0x82}); !errors.Is(err, device.ErrGone) {
		t.Fatalf("the next chunk after the missing one: %v", err)
	}
}

func TestUnplugAfterWrite(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	fault(t, k, FaultUnplugAfterWrite, 0)
	if h.serial() == nil {
		t.Fatal("a read set it off")
	}
	h.frame(cmdConfig1, hotpConfig().payload())
	if err := h.r.GetFeature(make([]byte, 9)); !errors.Is(err, device.ErrGone) {
		t.Fatalf("the status could be read: %v", err)
	}
	k.Insert()
	h = open(t, k)
	if r := h.get(); r[4] != 1 || r[5] != 0x05 {
		t.Fatalf("the write did not take: %x", r)
	}
	if !h.wrote(cmdConfig2, hotpConfig().payload()) {
		t.Fatal("it strikes twice")
	}
}

func TestStuckFlag(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	fault(t, k, FaultStuckFlag, 0)
	for range 3 {
		h.set([]byte{7: resetYubikit})
		if r := h.get(); r[7] != flagWritePending {
			t.Fatalf("flags %02x", r[7])
		}
	}
	cleared(t, k, h)
}

func TestBadCRC(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	good := func() bool { return crc16(h.serial()[:6]) == crcResidual }
	fault(t, k, FaultBadCRC, 2)
	if got := []bool{good(), good(), good()}; !slices.Equal(got, []bool{false, false, true}) {
		t.Fatal("not exactly the first two were damaged")
	}
	fault(t, k, FaultBadCRC, 0)
	if got := []bool{good(), good(), good()}; slices.Contains(got, true) {
		t.Fatal("a good response in between")
	}
	cleared(t, k, h)
}

func TestRejectWrite(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	p := hotpConfig().payload()
	fault(t, k, FaultRejectWrite, 2)
	if got := []bool{h.wrote(cmdConfig1, p), h.wrote(cmdConfig1, p), h.wrote(cmdConfig1, p)}; !slices.Equal(got, []bool{false, false, true}) {
		t.Fatal("not exactly the first two were rejected")
	}
	fault(t, k, FaultRejectWrite, 0)
	if h.wrote(cmdConfig1, p) || !h.wrote(cmdConfig1, p) {
		t.Fatal("without a number not exactly one was rejected")
	}
}

func TestLostStatus(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	fault(t, k, FaultLostStatus, 0)
	if h.wrote(cmdConfig1, hotpConfig().payload()) || h.get() != [8]byte{0, 5, 4, 3} {
		t.Fatal("the status tells of the write")
	}
	if k.Touch(false); h.input(7) != "755224\n" {
		t.Fatal("the write did not take")
	}
	fault(t, k, FaultClear, 0)
	if r := h.get(); r[4] != 1 || r[5] != 0x05 {
		t.Fatalf("status after the fault: %x", r)
	}
}

func TestOpenFaults(t *testing.T) {
	k := newKey(t, Options{})
	for kind, want := range map[Fault]error{FaultExclusiveOpen: device.ErrBusy, FaultNoPermission: device.ErrPermission} {
		fault(t, k, kind, 0)
		if _, err := k.Open(t.Context()); !errors.Is(err, want) {
			t.Fatalf("%s: %v", kind, err)
		}
		fault(t, k, FaultClear, 0)
	}
	h := open(t, k)
	if _, err := k.Open(t.Context()); !errors.Is(err, device.ErrBusy) {
		t.Fatalf("the second opener: %v", err)
	}
	h.r.Close()
	open(t, k)
}

func TestSlowOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t, Options{})
		fault(t, k, FaultSlowOpen, 300)
		start := time.Now()
		h := open(t, k)
		if d := time.Since(start); d != 300*time.Millisecond {
			t.Fatalf("opening took %v", d)
		}
		h.r.Close()

		// A context, another opener and a pull in the meantime.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := k.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("interrupted: %v", err)
		}
		result := make(chan error)
		go func() { _, err := k.Open(t.Context()); result <- err }()
		synctest.Wait()
		if _, err := k.Open(t.Context()); !errors.Is(err, device.ErrBusy) {
			t.Fatalf("while another opens: %v", err)
		}
		k.Remove()
		if err := <-result; !errors.Is(err, device.ErrGone) {
			t.Fatalf("pulled while opening: %v", err)
		}
	})
}

func TestSerialFaults(t *testing.T) {
	k := newKey(t, Options{})
	h := open(t, k)
	fault(t, k, FaultSerialHidden, 0)
	answered := func() bool { return h.serial() != nil }
	if got := []bool{answered(), answered()}; slices.Contains(got, true) {
		t.Fatal("the serial shows")
	}
	cleared(t, k, h)
	fault(t, k, FaultReclaim, 2)
	if got := []bool{answered(), answered(), answered()}; !slices.Equal(got, []bool{false, false, true}) {
		t.Fatal("not exactly the first two requests failed")
	}
}

func TestFaultList(t *testing.T) {
	k := newKey(t, Options{})
	for _, f := range []struct {
		kind Fault
		n    int
	}{{"nonsense", 0}, {FaultUnplugAtChunk, 10}, {FaultReclaim, -1}, {FaultBadCRC, -1}, {FaultSlowOpen, maxSlowOpen + 1}} {
		if k.SetFault(f.kind, f.n) == nil {
			t.Errorf("fault %s %d was taken", f.kind, f.n)
		}
	}
	fault(t, k, FaultReclaim, 2)
	fault(t, k, FaultUnplugAtChunk, 0)
	fault(t, k, FaultStuckFlag, 7)
	if got, want := k.faults.list(), []string{"unplug-at-chunk=0", "stuck-flag", "reclaim=2"}; !slices.Equal(got, want) {
		t.Fatalf("faults %q, not %q", got, want)
	}
	for _, kind := range Faults {
		if err := k.SetFault(kind, 1); err != nil {
			t.Error(err)
		}
	}
}

func TestPullDuringBlockedRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t, Options{})
		h := open(t, k)
		result := make(chan error)
		go func() {
			_, err := h.r.ReadInput(make([]byte, reportSize), time.Hour)
			result <- err
		}()
		synctest.Wait()
		k.Remove()
		if err := <-result; !errors.Is(err, device.ErrGone) {
			t.Fatalf("the read ended with %v", err)
		}
	})
}
