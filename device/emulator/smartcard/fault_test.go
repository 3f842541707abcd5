package smartcard

import (
	"strings"
	"testing"

	"tokendesk/device"
)

func TestPull(t *testing.T) {
	for _, c := range []struct {
		fault Fault
		tries string // after the PIN was wrong in the second APDU, or was not shown
	}{{FaultPullBefore, "63c3"}, {FaultPullAfter, "63c2"}} {
		t.Run(string(c.fault), func(t *testing.T) {
			pulled := 0
			h := host{t, New(Options{Firmware: device.Version{Major: 5, Minor: 4, Build: 3}, Pulled: func() { pulled++ }})}
			h.selectPIV()
			if err := h.card.SetFault(c.fault, 2); err != nil {
				t.Fatal(err)
			}
			h.want("00fd000000", "0504039000")
			h.want(verifyWrong, "")
			h.want("00fd000000", "")
			if pulled != 1 || len(h.card.Faults()) > 0 {
				t.Errorf("pulled %d times; left: %v", pulled, h.card.Faults())
			}
			h.card.PowerUp()
			h.selectPIV()
			h.want("0020008000", c.tries)
		})
	}
}

func TestFaults(t *testing.T) {
	h := withPIV(t, "5.4.3")
	set := func(k Fault, n int) {
		t.Helper()
		if err := h.card.SetFault(k, n); err != nil {
			t.Fatal(err)
		}
	}
	set(FaultMute, 0)
	h.want("00fd000000", "")
	set(FaultClear, 0)
	h.want("00fd000000", "0504039000")
	set(FaultStatus, 0x6F00)
	h.want("00fd000000", "6f00")
	h.want("00fd000000", "0504039000")
	set(FaultLyingLength, 0)
	h.want("00cb3fff035c017e", "7e7f4f0ba0000003080000100001005f2f0240009000")
	if got := strings.Join(h.card.Faults(), " "); got != "lying-length" {
		t.Errorf("the faults are %s", got)
	}
	h.card.PowerDown()
	h.want("00fd000000", "")
	for k, n := range map[Fault]int{FaultPullBefore: 0, FaultPullAfter: -1, FaultStatus: 0x10000, "fire": 1} {
		if h.card.SetFault(k, n) == nil {
			t.Errorf("fault %s takes %d", k, n)
		}
	}
}
