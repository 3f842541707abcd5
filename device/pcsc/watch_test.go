package pcsc

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"tokendesk/device"
	"tokendesk/device/pcsctest"
)

func TestCardsComeAndGo(t *testing.T) {
	r := startRig(t, 3)
	first := plug(t, r.Ports[0], yubikeyATR, ok)
	o := observe(t, Bus{Emulated: []string{r.Readers[2]}})
	if info := o.expect(r.Readers[0], false); info != (device.CardInfo{Reader: r.Readers[0]}) {
		t.Errorf("%+v", info)
	}
	plug(t, r.Ports[2], yubikeyATR, ok)
	if info := o.expect(r.Readers[2], false); !info.Emulated || info.Problem != "" {
		t.Errorf("%+v", info)
	}
	first.pull()
	o.expect(r.Readers[0], true)
	plug(t, r.Ports[0], yubikeyATR, ok)
	o.expect(r.Readers[0], false)
}

func TestEmulatedByTheBeginningOfItsName(t *testing.T) {
	r := startRig(t, 1)
	plug(t, r.Ports[0], yubikeyATR, ok)
	o := observe(t, Bus{Emulated: []string{"", "Another", pcsctest.ReaderName}})
	if info := o.expect(r.Readers[0], false); !info.Emulated {
		t.Errorf("%+v", info)
	}
}

// What others do with a card is no change of it.
func TestOpeningIsNoEvent(t *testing.T) {
	r := startRig(t, 2)
	plug(t, r.Ports[0], yubikeyATR, ok)
	o := observe(t, Bus{})
	o.expect(r.Readers[0], false)
	for range 3 {
		openCard(t, r.Readers[0]).Close()
	}
	plug(t, r.Ports[1], yubikeyATR, ok)
	o.expect(r.Readers[1], false)
}

func TestMuteCardIsNamed(t *testing.T) {
	r := startRig(t, 2)
	o := observe(t, Bus{})
	plug(t, r.Ports[0], make([]byte, 40), ok) // more than an answer to reset can be
	info := o.expect(r.Readers[0], false)
	if !strings.Contains(info.Problem, "does not answer") || info.Cure == "" {
		t.Errorf("%+v", info)
	}
	_, err := Bus{}.Open(t.Context(), r.Readers[0])
	expectError(t, err, device.ErrMute, mute().Cure)
}

func TestTwoReadersOfOneName(t *testing.T) {
	r := started(t, pcsctest.StartTwins)
	plug(t, r.Ports[0], yubikeyATR, ok)
	o := observe(t, Bus{})
	if info := o.expect(r.Readers[0], false); !strings.HasPrefix(info.Problem, "2 readers have the name") || info.Cure != "pull all but one" {
		t.Errorf("%+v", info)
	}
}

func TestWatchEndsAtOnce(t *testing.T) {
	r := startRig(t, 1)
	plug(t, r.Ports[0], yubikeyATR, ok)
	for _, waits := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 3 * settle} {
		o := observe(t, Bus{})
		o.expect(r.Readers[0], false)
		<-time.After(waits) // how long it has waited when it is ended
		begin := time.Now()
		o.cancel()
		if err := o.end(); err != context.Canceled {
			t.Error(err)
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("after %v it ends within %v", waits, d)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (Bus{}).Watch(ctx, nil); err != context.Canceled {
		t.Error(err)
	}
}

// A second Watch begins when the first has ended.
func TestOneWatchAtATime(t *testing.T) {
	r := startRig(t, 1)
	plug(t, r.Ports[0], yubikeyATR, ok)
	first, second := observe(t, Bus{}), observe(t, Bus{})
	var running *observer
	select {
	case <-first.events:
		running = first
	case <-second.events:
		running, second = second, first
	}
	running.cancel()
	running.end()
	second.expect(r.Readers[0], false)
}

const startIt = "start pcscd: as root: systemctl start pcscd.socket"

func TestDaemonIsAbsentAndComesBack(t *testing.T) {
	expectError(t, Bus{}.Watch(t.Context(), nil), ErrNoService, startIt)
	_, err := Bus{}.Open(t.Context(), "any")
	expectError(t, err, ErrNoService, startIt)
	r := startRig(t, 1)
	for _, lose := range []func() error{r.Stop, r.Kill} {
		p := plug(t, r.Ports[0], yubikeyATR, ok)
		o := observe(t, Bus{})
		o.expect(r.Readers[0], false)
		c := openCard(t, r.Readers[0])
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		expectError(t, o.end(), ErrNoService, startIt)
		_, _, err := c.Transmit([]byte{0, 1, 2, 3})
		expectError(t, err, ErrNoService, startIt)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		p.pull()
		if err := r.Restart(); err != nil {
			t.Fatal(err)
		}
	}
}

// pcscd hangs up on whom polkit does not allow to use it.
func TestRefusedByTheDaemon(t *testing.T) {
	if err := os.MkdirAll(home+"/pcscd", 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", os.Getenv("PCSCLITE_CSOCK_NAME"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	const cure = "let polkit allow org.debian.pcsc-lite.access_pcsc to it, by a rule in /etc/polkit-1/rules.d"
	expectError(t, Bus{}.Watch(t.Context(), nil), device.ErrPermission, cure)
	_, err = Bus{}.Open(t.Context(), "any")
	expectError(t, err, device.ErrPermission, cure)
	l.Close()
	<-ended
}

func TestServiceThatIsNotInstalled(t *testing.T) {
	expectError(t, noService(t.TempDir()+"/pcscd"), ErrNoService, "install pcscd: as root: apt install pcscd libccid")
}

func TestYubiKeysAreKnown(t *testing.T) {
	for _, c := range []struct {
		reader, atr string
		is          bool
	}{
		{"ACS ACR122U 00 00", "\x3b\x8d\x80\x01\x80\x73\xc0\x21\xc0\x57YubiKey\xf9", true}, // over NFC
		{"Reader", "\x3b\xfc\x13\x00\x00\x81\x31\xfe\x15\x59\x75\x62\x69\x6b\x65\x79\x4e\x45\x4f\x72\x33\xe1", true},
		{"Yubico YubiKey CCID 00 00", "\x3b\x00", true},
		{"Gemalto PC Twin Reader", "\x3b\x7f\x96\x00\x00\x80\x31\x80\x65\xb0\x85\x03\x00\xef\x12\x0f\xff\x82\x90\x00", false},
	} {
		if isToken(c.reader, []byte(c.atr)) != c.is {
			t.Errorf("%q, %x", c.reader, c.atr)
		}
	}
}

func TestOpenIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Bus{}).Open(ctx, "any"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
