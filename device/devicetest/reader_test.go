//go:build !guest

package devicetest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/devicetest"
	"tokendesk/device/drivers"
	"tokendesk/device/emulator"
	"tokendesk/device/pcsc"
	"tokendesk/device/pcsctest"
	"tokendesk/vault/secret"
)

// home is where pcscd is: libpcsclite reads its socket's name once.
var home string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if home, err = os.MkdirTemp("", "td"); err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(home)
	os.Setenv("PCSCLITE_CSOCK_NAME", home+"/pcscd/pcscd.comm")
	return m.Run()
}

// TestOverReader has a slot and a credential of a YubiKey in a reader of a real pcscd. That sees cards come and go 2.5 times a
// second, so that all tests have one key, which is erased in between.
func TestOverReader(t *testing.T) {
	readers, err := pcsctest.Start(home, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := readers.Stop(); err != nil {
			t.Error(err)
		}
	})
	key := emulator.New(emulator.Options{
		Serial: serial, Firmware: version(t, "5.4.3"), Timing: &emulator.Timing{}, VPCD: fmt.Sprintf("127.0.0.1:%d", readers.Ports[0]),
	})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- key.ServeCard(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	open := func(ctx context.Context) (device.Card, error) { return pcsc.Bus{}.Open(ctx, readers.Readers[0]) }
	rig := devicetest.TokenRig{
		Firmware: key.Firmware(), Samples: 1, OpenCard: open,
		Insert: func(ctx context.Context) error {
			if err := awaitCard(ctx, open, false); err != nil { // or it would not be noticed
				return err
			}
			key.Insert()
			return awaitCard(ctx, open, true)
		},
		Remove: func(context.Context) error { key.Remove(); return nil },
	}
	if err := awaitCard(t.Context(), open, true); err != nil {
		t.Fatal(err)
	}
	for _, app := range []string{"otp2", "oath:alice"} {
		t.Run(app, func(t *testing.T) {
			rig.ID, rig.Touch = device.AppToken(key.ID(), app), nil
			if rig.ID.Slot() != 0 {
				rig.Touch = func(context.Context) (string, error) {
					text, _, err := key.Touch(true)
					return text, err
				}
			}
			devicetest.RunToken(t, func(t *testing.T) devicetest.TokenRig {
				t.Cleanup(func() { erase(t, rig) })
				return rig
			})
		})
	}
}

// awaitCard waits until pcscd sees the card, or sees it no more.
func awaitCard(ctx context.Context, open func(context.Context) (device.Card, error), there bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond) // so as not to be all that pcscd does
	defer again.Stop()
	for {
		card, err := open(ctx)
		if err == nil {
			err = card.Close()
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("the card should be there: %v: %w", there, err)
		case there && err == nil, !there && errors.Is(err, device.ErrGone):
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// erase leaves slots and credentials of a YubiKey empty.
func erase(t *testing.T, rig devicetest.TokenRig) {
	ctx := context.Background() // the test's has ended
	card, err := rig.OpenCard(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	s, err := drivers.OverCard(ctx, card)
	if err != nil {
		t.Fatal(err)
	}
	for slot := 1; slot <= 2; slot++ {
		id := device.SlotToken(rig.ID.Device(), slot)
		token, err := s.Token(ctx, id)
		if err == nil {
			err = token.Delete(ctx, secret.New([]byte{1, 2, 3, 4, 5, 6})) // the suite's access code
		}
		if err != nil {
			t.Error(err)
		}
	}
	for _, apdu := range [][]byte{{0, 0xA4, 4, 0, 7, 0xA0, 0, 0, 5, 0x27, 0x21, 1}, {0, 4, 0xDE, 0xAD}} { // RESET of the OATH application
		if _, status, err := card.Transmit(apdu); err != nil || status != 0x9000 {
			t.Errorf("%x: %04x, %v", apdu, status, err)
		}
	}
}
