//go:build guest

package e2e

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"testing"
	"time"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keys"
	"tokendesk/device"
	"tokendesk/device/usbhid"
	"tokendesk/udev"
	"tokendesk/vault/secret"
)

const (
	figuresKey device.Serial = 60000001
	rounds                   = 10
	idleTime                 = 10 * time.Second
)

// From udev's own event to the desk's word that the key is ready, with serial and slots; against one run of
// ykinfo -a on that key. Then the same daemon idles beside the inserted key.
func TestReady(t *testing.T) {
	d := start(t, absent(figuresKey))
	events := make(chan api.KeyEvent, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go d.Client.Watch(ctx, func(e api.KeyEvent) error { e.Time = time.Now(); events <- e; return nil })
	var ready, fromKernel, ykinfo []time.Duration
	for range rounds {
		at := announced(t)
		if err := d.Emulator.Insert(d.bounded(), figuresKey.String()); err != nil {
			t.Fatal(err)
		}
		e := next(t, events, "added")
		if e.Key.Serial != uint32(figuresKey) || len(e.Key.Slots) != 2 {
			t.Fatalf("the first word of the key is %+v", e)
		}
		a := <-at
		ready = append(ready, e.Time.Sub(a.udev))
		fromKernel = append(fromKernel, e.Time.Sub(a.kernel))
		begin := time.Now()
		run(t, officer, "ykinfo", "-a")
		ykinfo = append(ykinfo, time.Since(begin))
		d.remove(figuresKey)
		next(t, events, "removed")
	}
	t.Logf("ready %v after udev and %v after the kernel, ykinfo %v", ready, fromKernel, ykinfo)
	figure("ready_vs_ykinfo", float64(median(ready))/float64(median(ykinfo)))

	d.insert(figuresKey)
	run(t, nil, "udevadm", "settle")
	calm := d.bounded()
	for earlier := 0; earlier != d.wakeups() && calm.Err() == nil; <-time.After(time.Second) { // until what the insertion has started is over
		earlier = d.wakeups()
	}
	before := d.wakeups()
	<-time.After(idleTime)
	figure("idle_wakeups_per_s", float64(d.wakeups()-before)/idleTime.Seconds())
	resident, err := d.ResidentMiB()
	if err != nil {
		t.Fatal(err)
	}
	figure("idle_rss_mb", resident)
}

// announcement is when a USB device was announced, by the kernel and, once its rules were applied, by udev.
type announcement struct{ kernel, udev time.Time }

// announced tells when the next USB device is.
func announced(t *testing.T) <-chan announcement {
	t.Helper()
	monitor, err := udev.Listen("usb")
	if err != nil {
		t.Fatal(err)
	}
	at := make(chan announcement, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	go func() {
		defer cancel()
		defer monitor.Close()
		var a announcement
		for a.udev.IsZero() {
			events, err := monitor.Wait(ctx)
			now := time.Now()
			if err != nil {
				t.Error(err)
				break
			}
			for _, e := range events {
				switch {
				case e.Action != "add" || e.DevType != "usb_device":
				case e.Settled:
					a.udev = now
				default:
					a.kernel = now
				}
			}
		}
		at <- a
	}()
	return at
}

func next(t *testing.T, events <-chan api.KeyEvent, kind string) api.KeyEvent {
	t.Helper()
	for {
		select {
		case e := <-events:
			if e.Event == kind {
				return e
			}
		case <-time.After(patience):
			t.Fatalf("no key was %s", kind)
		}
	}
}

// Programming a slot as the daemon does it, from taking the key to giving it back; against one run of ykpersonalize.
func TestProgram(t *testing.T) {
	d := keyAlone(t)
	registry := keys.New(slog.New(slog.DiscardHandler), usbhid.Bus{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); registry.Run(ctx) }()
	defer func() { cancel(); <-done }()
	errReady := errors.New("ready")
	if err := registry.Watch(d.bounded(), func(e keys.Event) error { return errReady }); !errors.Is(err, errReady) {
		t.Fatal(err)
	}
	var ours, theirs []time.Duration
	for range rounds {
		begin := time.Now()
		err := registry.Use(d.bounded(), device.SlotToken(device.YubiKeyID(eyesKey), 2), func(ctx context.Context, two device.HOTPToken, _ keys.Key) error {
			return two.Program(ctx, device.HOTPConfig{Seed: secret.New([]byte(rfcSeed)), Digits: 6, Enter: true})
		})
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, time.Since(begin))
		begin = time.Now()
		run(t, officer, "ykpersonalize", "-2", "-y", "-ooath-hotp", "-oappend-cr", "-oserial-api-visible", "-a"+hex.EncodeToString([]byte(rfcSeed)))
		theirs = append(theirs, time.Since(begin))
	}
	t.Logf("ours %v, ykpersonalize's %v", ours, theirs)
	figure("program_vs_ykpersonalize", float64(median(ours))/float64(median(theirs)))
}

func (d *desk) wakeups() int {
	d.Helper()
	n, err := d.Wakeups()
	if err != nil {
		d.Fatal(err)
	}
	return n
}
