package emulator

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebfe/scard"
	"github.com/go-piv/piv-go/v2/piv"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/pcsctest"
)

// reader is a real one: pcscd's, as its clients see it.
type reader struct {
	t   *testing.T
	rig *pcsctest.Rig
	ctx *scard.Context
}

// newReader starts a pcscd. libpcsclite reads the variable once a process, so that its value is always the same.
func newReader(t *testing.T) *reader {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("pcsc%d", os.Getpid()))
	t.Cleanup(func() { os.RemoveAll(dir) })
	rig, err := pcsctest.Start(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rig.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("PCSCLITE_CSOCK_NAME", rig.Socket)
	r := &reader{t: t, rig: rig}
	r.establish()
	t.Cleanup(func() { r.ctx.Release() })
	return r
}

func (r *reader) establish() {
	r.t.Helper()
	ctx, err := scard.EstablishContext()
	if err != nil {
		r.t.Fatal(err)
	}
	r.ctx = ctx
}

// await waits until the reader has a card, or none.
func (r *reader) await(present bool) {
	r.t.Helper()
	states := []scard.ReaderState{{Reader: r.rig.Readers[0]}}
	for deadline := time.Now().Add(20 * time.Second); ; states[0].CurrentState = states[0].EventState {
		if err := r.ctx.GetStatusChange(states, time.Until(deadline)); err != nil {
			r.t.Fatalf("waiting for the card, present %t: %v", present, err)
		}
		if states[0].EventState&scard.StatePresent != 0 == present {
			return
		}
	}
}

// in is the same reader for a subtest.
func (r *reader) in(t *testing.T) *reader {
	return &reader{t, r.rig, r.ctx}
}

// open awaits the card and opens it.
func (r *reader) open() *scard.Card {
	r.t.Helper()
	r.await(true)
	c, err := r.ctx.Connect(r.rig.Readers[0], scard.ShareExclusive, scard.ProtocolT1)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Disconnect(scard.LeaveCard) })
	return c
}

// unanswered sends an APDU whose answer must not come. vpcd makes an empty one of that, and no failure.
func (r *reader) unanswered(c *scard.Card, apdu ...byte) {
	r.t.Helper()
	if answer, err := c.Transmit(apdu); err == nil && len(answer) > 0 {
		r.t.Errorf("%x is answered %x", apdu, answer)
	}
}

// said sends an APDU in hexadecimal and returns the answer so.
func (r *reader) said(c *scard.Card, apdu string) string {
	r.t.Helper()
	b, err := hex.DecodeString(apdu)
	if err != nil {
		r.t.Fatal(err)
	}
	answer, err := c.Transmit(b)
	if err != nil {
		r.t.Fatalf("%s: %v", apdu, err)
	}
	return hex.EncodeToString(answer)
}

const (
	selectPIV    = "00a4040005a000000308"
	propertiesOf = "61114f0600001000010079074f05a0000003089000"
	askSerial    = "00f8000000"
	changePIN    = "0024008010313233343536ffff383736353433ffff" // from the factory's to 876543
	verifyPIN    = "0020008008383736353433ffff"
)

// serveCard keeps the key's card in its reader for the test.
func serveCard(t *testing.T, k *YubiKey) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.ServeCard(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestCardInAReader(t *testing.T) {
	r := newReader(t)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(r.rig.Ports[0]))
	k := newKey(t, Options{VPCD: address, Timing: &Timing{Reclaim: time.Hour}, Absent: true})
	serveCard(t, k)
	r.await(false)
	k.Insert()
	c := r.open()
	if got := r.said(c, selectPIV); got != propertiesOf {
		t.Fatalf("SELECT answers %s", got)
	}
	if got := r.said(c, askSerial); got != "00bc614e9000" { // 12345678
		t.Errorf("GET SERIAL answers %s", got)
	}
	if got := r.said(c, changePIN); got != "9000" {
		t.Errorf("CHANGE REFERENCE DATA answers %s", got)
	}
	t.Run("an APDU does not wait for acknowledgements", func(t *testing.T) {
		var took []time.Duration
		for range 200 {
			start := time.Now()
			r.said(c, askSerial)
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		t.Logf("an APDU takes %v, at most %v", took[len(took)/2], took[len(took)-1])
		if median := took[len(took)/2]; median > 10*time.Millisecond {
			t.Errorf("an APDU takes %v", median)
		}
	})
	t.Run("the OTP interface is reclaimed", func(t *testing.T) {
		h := open(t, k)
		if serial := h.serial(); serial != nil {
			t.Errorf("just after the card was used, it tells the serial %x", serial)
		}
	})
	c.Disconnect(scard.LeaveCard)
	t.Run("state survives removal", func(t *testing.T) {
		r := r.in(t)
		k.Remove()
		r.await(false)
		k.Insert()
		c := r.open()
		if r.said(c, askSerial) == "00bc614e9000" {
			t.Error("PIV is still selected")
		}
		r.said(c, selectPIV)
		if got := r.said(c, verifyPIN); got != "9000" {
			t.Errorf("the PIN that was set before is answered %s", got)
		}
	})
	t.Run("a card that is pulled takes the key along", func(t *testing.T) {
		r := r.in(t)
		for _, fault := range []Fault{FaultCardPullBefore, FaultCardPullAfter} {
			c := r.open()
			if err := k.SetFault(fault, 2); err != nil {
				t.Fatal(err)
			}
			r.said(c, selectPIV)
			r.unanswered(c, 0, 0xFD, 0, 0)
			if _, err := k.Open(t.Context()); !errors.Is(err, device.ErrGone) {
				t.Errorf("%s: the OTP interface opens: %v", fault, err)
			}
			c.Disconnect(scard.LeaveCard)
			r.await(false)
			k.Insert()
		}
	})
	t.Run("a mute card", func(t *testing.T) {
		r := r.in(t)
		c := r.open()
		if err := k.SetFault(FaultCardMute, 0); err != nil {
			t.Fatal(err)
		}
		r.unanswered(c, 0, 0xFD, 0, 0)
		c.Disconnect(scard.LeaveCard)
		// pcscd lets a client have a card that it has not found out yet.
		if c, err := r.ctx.Connect(r.rig.Readers[0], scard.ShareExclusive, scard.ProtocolT1); err == nil {
			r.unanswered(c, 0, 0xFD, 0, 0)
			c.Disconnect(scard.LeaveCard)
		}
		if err := k.SetFault(FaultClear, 0); err != nil {
			t.Fatal(err)
		}
		k.Remove() // pcscd may not know yet that the card has left
		r.await(false)
		k.Insert()
		r.open()
	})
	t.Run("a touch releases a signature", func(t *testing.T) {
		r.in(t).await(true)
		touchToSign(t, k, r.rig.Readers[0])
	})
	t.Run("pcscd is restarted", func(t *testing.T) {
		r := r.in(t)
		if err := r.rig.Restart(); err != nil {
			t.Fatal(err)
		}
		r.ctx.Release()
		r.establish()
		if got := r.said(r.open(), selectPIV); got != propertiesOf {
			t.Errorf("after a restart, SELECT answers %s", got)
		}
	})
}

// touchToSign makes a key that asks for a touch, signs with it, and pulls it while it asks again.
func touchToSign(t *testing.T, k *YubiKey, reader string) {
	t.Helper()
	yk, err := piv.Open(reader)
	if err != nil {
		t.Fatal(err)
	}
	defer yk.Close()
	public, err := yk.GenerateKey(piv.DefaultManagementKey, piv.SlotSignature, piv.Key{Algorithm: piv.AlgorithmEC256, PINPolicy: piv.PINPolicyNever, TouchPolicy: piv.TouchPolicyAlways})
	if err != nil {
		t.Fatal(err)
	}
	key, err := yk.PrivateKey(piv.SlotSignature, public, piv.KeyAuth{PINPolicy: piv.PINPolicyNever})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("signed"))
	type signed struct {
		signature []byte
		err       error
	}
	sign := func() <-chan signed {
		done := make(chan signed, 1)
		go func() {
			signature, err := key.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA256)
			done <- signed{signature, err}
		}()
		for !k.finger.awaited() {
			if len(done) > 0 {
				t.Fatalf("it signed without a touch: %+v", <-done)
			}
			runtime.Gosched()
		}
		return done
	}
	done := sign()
	if touch, err := k.touch(false); err != nil || touch.To != bussocket.ToChallenge {
		t.Fatalf("a touch went to %q, %v", touch.To, err)
	}
	if got := <-done; got.err != nil || !ecdsa.VerifyASN1(public.(*ecdsa.PublicKey), digest[:], got.signature) {
		t.Fatalf("it signed %x, %v", got.signature, got.err)
	}
	done, start := sign(), time.Now()
	k.Remove()
	if got := <-done; got.err == nil || time.Since(start) > touchPatience/2 {
		t.Errorf("pulled while it asks for a touch, after %v it signed %x, %v", time.Since(start), got.signature, got.err)
	}
	k.Insert()
}

func TestTouchOfACard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKey(t, Options{VPCD: "127.0.0.1:1"})
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan bool)
		go func() { result <- k.finger.await(ctx) }()
		synctest.Wait()
		touch, err := k.touch(false)
		if touched := <-result; err != nil || touch.To != bussocket.ToChallenge || !touched {
			t.Fatalf("a touch went to %q, %v, and the card was touched: %t", touch.To, err, touched)
		}
		go func() { result <- k.finger.await(ctx) }()
		synctest.Wait()
		if !k.finger.awaited() {
			t.Error("the card does not wait for a touch")
		}
		cancel()
		if <-result || k.finger.awaited() {
			t.Error("a card without power was touched, or still waits for it")
		}
	})
}

func TestCardFaults(t *testing.T) {
	k := newKey(t, Options{VPCD: "127.0.0.1:1"})
	for kind, n := range map[Fault]int{FaultCardPullBefore: 3, FaultCardMute: 0, FaultStuckFlag: 0} {
		if err := k.SetFault(kind, n); err != nil {
			t.Fatal(err)
		}
	}
	p := &place{token: k}
	if got := p.describe().Faults; !slices.Equal(got, []string{"stuck-flag", "card-pull-before=3", "card-mute"}) {
		t.Errorf("the faults are told as %q", got)
	}
	if err := k.SetFault(FaultClear, 0); err != nil {
		t.Fatal(err)
	}
	if got := p.describe().Faults; len(got) != 0 {
		t.Errorf("after clear there are %q", got)
	}
	if err := newKey(t, Options{}).SetFault(FaultCardMute, 0); err == nil {
		t.Error("a key without a smart card has got a fault of one")
	}
	if err := k.SetFault("card-melt", 0); err == nil {
		t.Error("a fault that there is not was set")
	}
	if err := newKey(t, Options{}).ServeCard(t.Context()); err == nil {
		t.Error("a key without a smart card serves one")
	}
}
