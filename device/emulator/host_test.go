package emulator

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	"tokendesk/device"
)

var (
	fw5     = device.Version{Major: 5, Minor: 4, Build: 3}
	rfcSeed = []byte("12345678901234567890") // RFC 4226, appendix D
	locked  = [codeSize]byte{1, 2, 3, 4, 5, 6}
)

// host is the other end of the OTP interface: the least that a driver does.
type host struct {
	t *testing.T
	r device.Report
}

func newKey(t *testing.T, o Options) *YubiKey {
	t.Helper()
	if o.Serial == 0 {
		o.Serial = 12345678
	}
	if o.Firmware == (device.Version{}) {
		o.Firmware = fw5
	}
	if o.Timing == nil {
		o.Timing = &Timing{}
	}
	return New(o)
}

func open(t *testing.T, k *YubiKey) host {
	t.Helper()
	r, err := k.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return host{t, r}
}

func (h host) get() (r [reportSize]byte) {
	h.t.Helper()
	p := make([]byte, device.ReportSize)
	if err := h.r.GetFeature(p); err != nil {
		h.t.Fatal(err)
	}
	if p[0] != 0 {
		h.t.Fatalf("report number %d", p[0])
	}
	return [reportSize]byte(p[1:])
}

// ready polls until write pending clears and returns the report that says so.
func (h host) ready() [reportSize]byte {
	h.t.Helper()
	for range 10_000 {
		r := h.get()
		if r[7]&flagWritePending == 0 {
			return r
		}
		<-time.After(100 * time.Microsecond)
	}
	h.t.Fatal("write pending does not clear")
	return [reportSize]byte{}
}

func (h host) set(r []byte) error { return h.r.SetFeature(append([]byte{0}, r...)) }

// reports sends feature reports given in hexadecimal, each when the key is ready.
func (h host) reports(reports ...string) {
	h.t.Helper()
	for _, s := range reports {
		b, err := hex.DecodeString(s)
		if err != nil {
			h.t.Fatal(err)
		}
		h.ready()
		if err := h.set(b); err != nil {
			h.t.Fatal(err)
		}
	}
}

// chunksOf cuts a frame up, all ten chunks of it.
func chunksOf(command byte, payload []byte) [][]byte {
	var f [frameSize]byte
	copy(f[:], payload)
	f[64] = command
	crc := crc16(f[:64])
	f[65], f[66] = byte(crc), byte(crc>>8)
	var all [][]byte
	for i := range chunks {
		all = append(all, append(bytes.Clone(f[i*7:i*7+7]), 0x80|byte(i)))
	}
	return all
}

func (h host) frame(command byte, payload []byte) {
	h.t.Helper()
	for _, c := range chunksOf(command, payload) {
		h.ready()
		if err := h.set(c); err != nil {
			h.t.Fatal(err)
		}
	}
}

// response reads a response to its end mark; nil if there is none.
func (h host) response() []byte {
	h.t.Helper()
	var data []byte
	for seq := byte(0); ; seq++ {
		r := h.ready()
		switch {
		case r[7] == 0 && seq == 0:
			return nil
		case r[7] == flagResponsePending|seq:
			data = append(data, r[:7]...)
		case r == [reportSize]byte{7: flagResponsePending} && seq > 0:
			return data
		default:
			h.t.Fatalf("report %x in place of chunk %d", r, seq)
		}
	}
}

// sequence is pgmSeq when the key is ready.
func (h host) sequence() byte { h.t.Helper(); return h.ready()[4] }

// wrote sends a write and reports whether the status says that it took.
func (h host) wrote(command byte, payload []byte) bool {
	h.t.Helper()
	before := h.sequence()
	h.frame(command, payload)
	after := h.ready()
	return after[4] == before+1 || before > 0 && after[4] == 0
}

func (h host) serial() []byte {
	h.t.Helper()
	h.frame(cmdSerial, nil)
	return h.response()
}

// input reads the reports of n strokes and returns what a window would show.
func (h host) input(n int) string {
	h.t.Helper()
	var strokes []stroke
	p := make([]byte, reportSize)
	for range n {
		for _, press := range []bool{true, false} {
			got, err := h.r.ReadInput(p, time.Minute)
			if err != nil || got != reportSize {
				h.t.Fatalf("%d bytes, %v", got, err)
			}
			if press {
				if p[2] == 0 {
					h.t.Fatalf("no press: %x", p)
				}
				strokes = append(strokes, stroke{usage: p[2], modifier: p[0]})
				p[0], p[2] = 0, 0
			}
			if !bytes.Equal(p, make([]byte, reportSize)) {
				h.t.Fatalf("unexpected bytes in %x", p)
			}
		}
	}
	return window(strokes)
}

func touch(t *testing.T, k *YubiKey, long bool) string {
	t.Helper()
	text, held, err := k.Touch(long)
	if err != nil || held {
		t.Fatalf("%v, held %v", err, held)
	}
	return text
}

// config is a configuration payload; current is the access code that opens the slot now.
type config struct {
	fixed         []byte
	key           []byte
	start         uint16
	newCode       [codeSize]byte
	current       [codeSize]byte
	ext, tkt, cfg byte
}

func (c config) payload() []byte {
	p := make([]byte, payloadSize)
	copy(p[0:16], c.fixed)
	copy(p[22:38], c.key)
	if len(c.key) > 16 {
		copy(p[16:20], c.key[16:])
	}
	p[20], p[21] = byte(c.start>>8), byte(c.start)
	copy(p[38:44], c.newCode[:])
	p[44], p[45], p[46], p[47] = byte(len(c.fixed)), c.ext, c.tkt, c.cfg
	crc := ^crc16(p[:50])
	p[50], p[51] = byte(crc), byte(crc>>8)
	copy(p[52:58], c.current[:])
	return p
}

// hotpConfig is the usual configuration: 6 digits, Enter, serial readable.
func hotpConfig() config {
	return config{key: rfcSeed, ext: extSerialAPI | extAllowUpdate, tkt: tktHOTP | tktEnter}
}

func deletion(current [codeSize]byte) []byte {
	p := make([]byte, payloadSize)
	copy(p[52:], current[:])
	return p
}
