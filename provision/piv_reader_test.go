package provision_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/emulator"
	"tokendesk/device/pcsc"
	"tokendesk/device/pcsctest"
	"tokendesk/device/pivcard"
	"tokendesk/provision"
	"tokendesk/vault"
)

// pcscd of all tests: a process has but one.
var pcscd = sync.OnceValues(func() (*pcsctest.Rig, error) {
	dir, err := os.MkdirTemp("", "td")
	if err != nil {
		return nil, err
	}
	stopPcscd = func() { os.RemoveAll(dir) }
	rig, err := pcsctest.Start(dir, 1)
	if err != nil {
		return nil, err
	}
	stopPcscd = func() { rig.Stop(); os.RemoveAll(dir) }
	return rig, os.Setenv("PCSCLITE_CSOCK_NAME", rig.Socket)
})

var stopPcscd = func() {}

func TestMain(m *testing.M) {
	code := m.Run()
	stopPcscd()
	os.Exit(code)
}

// inReader is a bench whose key has its card in a reader of pcscd.
func inReader(t *testing.T) (b *bench, await func(present bool)) {
	rig, err := pcscd()
	if err != nil {
		t.Fatal(err)
	}
	b = newBench(t)
	key := emulator.New(emulator.Options{Serial: serial, Firmware: firmware5, Timing: &emulator.Timing{}, VPCD: fmt.Sprintf("127.0.0.1:%d", rig.Ports[0])})
	b.key = key
	ctx, stop := context.WithCancel(context.Background())
	events := make(chan device.CardEvent, 100)
	var both sync.WaitGroup
	both.Go(func() {
		if err := key.ServeCard(ctx); err != nil {
			t.Error(err)
		}
	})
	both.Go(func() {
		if err := (pcsc.Bus{}).Watch(ctx, func(e device.CardEvent) { events <- e }); !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	})
	late := time.After(patience)
	await = func(present bool) {
		t.Helper()
		for {
			select {
			case e := <-events:
				if e.Removed != present {
					return
				}
			case <-late:
				t.Fatalf("pcscd does not tell of the card; present: %v", present)
			}
		}
	}
	t.Cleanup(func() {
		key.Remove()
		stop()
		both.Wait()
	})
	b.OpenPIV = func(ctx context.Context, _ device.ID, fn func(device.PIV, bool) error) error {
		p, err := pivcard.Open(ctx, rig.Readers[0], true)
		if err != nil {
			return err
		}
		defer p.Close()
		if err := p.Expect(serial); err != nil {
			return err
		}
		return fn(p, true)
	}
	await(true)
	return b, await
}

// Through pcscd: a card is pulled again and again, and each Resolve goes on from there. Then it is certified, unblocked and wiped.
func TestPIVThroughPcscd(t *testing.T) {
	b, await := inReader(t)
	ctx := t.Context()
	var requests []provision.PIVRequest
	work := func() (err error) {
		requests, err = b.provision(provision.PIVProvision{User: "alice"})
		return err
	}
	for n := 62; ; n += 9 { // the first 61 APDUs only look
		kind := []emulator.Fault{emulator.FaultCardPullBefore, emulator.FaultCardPullAfter}[n%2]
		if err := b.key.SetFault(kind, n); err != nil {
			t.Fatal(err)
		}
		err := work()
		if err == nil {
			break
		}
		if !errors.Is(err, device.ErrGone) {
			t.Fatal(err)
		}
		await(false)
		b.key.Insert()
		await(true)
		work = func() error { _, err := b.Resolve(ctx, officer, pivID, nil, b.tell); return err }
		if _, begun := b.job(pivID); !begun {
			t.Fatal("pulled before anything was begun")
		}
	}
	if err := b.key.SetFault(emulator.FaultClear, 0); err != nil {
		t.Fatal(err)
	}
	keys := b.certificates(pivID)
	if t := b.token(pivID); t.Status != vault.Active || t.Owner != "alice" || len(keys) != 1 || len(keys[0].Request) == 0 {
		b.t.Fatalf("%+v %+v", t, keys)
	}
	if len(requests) == 0 { // it was finished by Resolve: the request is on record
		requests = []provision.PIVRequest{{Slot: device.PIVAuthentication, DER: keys[0].Request}}
	}
	if _, err := b.ImportCertificate(ctx, officer, pivID, device.PIVAuthentication, newIssuer(t).issue(requests[0])); err != nil {
		t.Fatal(err)
	}
	if err := b.UnblockPIV(ctx, officer, pivID, b.tell); err != nil {
		t.Fatal(err)
	}
	pin, err := b.TakePIN(ctx, officer, pivID)
	if err != nil {
		t.Fatal(err)
	}
	err = b.OpenPIV(ctx, pivID.Device(), func(p device.PIV, _ bool) error { return p.VerifyPIN(ctx, pin) })
	if err != nil {
		t.Error(err)
	}
	if _, err := b.Wipe(ctx, officer, pivID, "", b.tell); err != nil {
		t.Fatal(err)
	}
	b.wantNoPIV(pivID)
	b.wantDue("9a CN=alice")
	err = b.OpenPIV(ctx, pivID.Device(), func(p device.PIV, _ bool) error {
		s, err := p.Describe(ctx)
		if !s.Fresh() {
			t.Errorf("%+v", s)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
