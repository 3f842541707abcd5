package synctest

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Fault is one thing that goes wrong between a client and its server.
type Fault string

// Faults.
const (
	Delay        Fault = "delay"         // the request arrives up to 20 ms late
	ResetBefore  Fault = "reset before"  // the connection is reset, the server never sees the request
	ResetAfter   Fault = "reset after"   // the server has done it, the answer is lost
	HalfAnswer   Fault = "half answer"   // the first bytes of the answer, then the end
	Duplicate    Fault = "duplicate"     // the answer comes twice
	Reorder      Fault = "reorder"       // the answer comes after that to a later request, if there is one outstanding
	CutHandshake Fault = "cut handshake" // the connection ends in the middle of a TLS handshake
)

var (
	requestFaults = []Fault{Delay, ResetBefore, ResetAfter, HalfAnswer, Duplicate, Reorder}
	packetFaults  = []Fault{Delay, ResetBefore} // of what it cannot read, on the way there
	echoFaults    = []Fault{ResetAfter, HalfAnswer}
)

const (
	longestDelay = 20 * time.Millisecond
	startTLS     = "1.3.6.1.4.1.1466.20037" // RFC 4511 section 4.14
)

// Flaky stands between a client and one server and disturbs what they say to each other, at random. The same seed
// disturbs the same requests of the same connections, as far as these come in the same order.
type Flaky struct {
	URL    string // ldap://: every request may be disturbed; after StartTLS as TLSURL
	TLSURL string // ldaps://: handshakes and packets

	*proxy
	secured *proxy
	hook
	rate float64

	state    sync.Mutex
	seed     uint64
	number   uint64 // of connections so far
	only     []Fault
	injected map[Fault]int
}

// NewFlaky listens on loopback and disturbs each request and each TLS handshake with probability rate. Close it.
func NewFlaky(s *Slapd, seed uint64, rate float64) (*Flaky, error) {
	plain, err := newProxy(func() string { return host(s.URL) })
	if err != nil {
		return nil, err
	}
	secured, err := newProxy(func() string { return host(s.TLSURL) })
	if err != nil {
		plain.Close()
		return nil, err
	}
	f := &Flaky{URL: "ldap://" + plain.addr, TLSURL: "ldaps://" + secured.addr, proxy: plain, secured: secured,
		rate: rate, seed: seed, injected: make(map[Fault]int)}
	plain.run(f.serve)
	secured.run(f.serveTLS)
	return f, nil
}

// Close ends all connections and waits for them. It may be called again.
func (f *Flaky) Close() {
	f.proxy.Close()
	f.secured.Close()
}

// Only keeps to some of the faults from now on; none at all means all of them.
func (f *Flaky) Only(faults ...Fault) {
	f.state.Lock()
	defer f.state.Unlock()
	f.only = faults
}

// Injected counts what has gone wrong so far.
func (f *Flaky) Injected() map[Fault]int {
	f.state.Lock()
	defer f.state.Unlock()
	return maps.Clone(f.injected)
}

func (f *Flaky) count(fault Fault) {
	f.state.Lock()
	defer f.state.Unlock()
	f.injected[fault]++
}

// dice are a connection's own, one for each direction: what it meets does not depend on others.
func (f *Flaky) dice() (requests, answers *rand.Rand) {
	f.state.Lock()
	defer f.state.Unlock()
	f.number++
	return rand.New(rand.NewPCG(f.seed, 2*f.number)), rand.New(rand.NewPCG(f.seed, 2*f.number+1))
}

// draw tells what goes wrong now, of what can; mostly nothing.
func (f *Flaky) draw(r *rand.Rand, among []Fault) Fault {
	hit, pick := r.Float64() < f.rate, r.Uint64()
	f.state.Lock()
	defer f.state.Unlock()
	if len(f.only) > 0 {
		among = slices.DeleteFunc(slices.Clone(among), func(x Fault) bool { return !slices.Contains(f.only, x) })
	}
	if !hit || len(among) == 0 {
		return ""
	}
	return among[pick%uint64(len(among))]
}

func (f *Flaky) delay(r *rand.Rand) {
	f.count(Delay)
	select {
	case <-time.After(time.Duration(r.Int64N(int64(longestDelay)))):
	case <-f.done:
	}
}

// talk is one connection of LDAP messages.
type talk struct {
	f              *Flaky
	client, server net.Conn
	out            *writer
	dice           *rand.Rand

	mu       sync.Mutex
	expected map[int64]Fault    // requests that the server has not answered in full
	partial  map[int64][][]byte // answers that are held back until they are complete
	late     [][]byte           // complete answers that wait for another one to go first
	raw      bool               // StartTLS was agreed upon
}

func (f *Flaky) serve(client net.Conn) {
	server, ok := f.proxy.dial()
	if !ok {
		f.proxy.reset(client)
		return
	}
	t := &talk{f: f, client: client, server: server, out: &writer{conn: client},
		expected: make(map[int64]Fault), partial: make(map[int64][][]byte)}
	t.dice, _ = f.dice()
	answered := make(chan struct{})
	f.proxy.wg.Go(func() { defer close(answered); t.answers() })
	t.requests(answered)
}

// end drops both connections.
func (t *talk) end() { t.f.proxy.drop(t.client, t.server) }

// requests passes on what the client asks; answered is closed when the answers have ended, which they also do
// before TLS begins.
func (t *talk) requests(answered <-chan struct{}) {
	for {
		m, err := readMessage(t.client)
		if err != nil {
			t.end()
			return
		}
		secure := m.op == ldap.ApplicationExtendedRequest && bytes.Contains(m.raw, []byte(startTLS))
		fault := Fault("")
		if m.op != ldap.ApplicationUnbindRequest && m.op != ldap.ApplicationAbandonRequest {
			fault = t.f.draw(t.dice, requestFaults)
			t.expect(m.id, fault, secure)
		}
		switch fault {
		case Delay:
			t.f.delay(t.dice)
		case ResetBefore:
			t.f.count(fault)
			t.f.proxy.reset(t.client, t.server)
			return
		}
		t.f.meet(m.op)
		if _, err := t.server.Write(m.raw); err != nil {
			t.end()
			return
		}
		if secure {
			<-answered
			if t.isRaw() {
				t.f.passTLS(t.f.proxy, t.client, t.server)
			}
			return
		}
	}
}

func (t *talk) expect(id int64, fault Fault, secure bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expected[id], t.raw = fault, secure
}

func (t *talk) isRaw() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.raw
}

func (t *talk) answers() {
	for {
		m, err := readMessage(t.server)
		if err != nil {
			t.end()
			return
		}
		if !t.answer(m) {
			return
		}
		if t.isRaw() {
			return
		}
	}
}

// answer passes one response on, or does to it what was drawn for its request; false ends the connection.
func (t *talk) answer(m message) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	fault, final := t.expected[m.id], isFinal(m.op)
	if final {
		delete(t.expected, m.id)
	}
	switch fault {
	case ResetAfter:
		if final {
			t.f.count(fault)
			t.raw = false
			t.f.proxy.reset(t.client, t.server)
		}
		return !final
	case HalfAnswer:
		t.f.count(fault)
		t.raw = false
		t.out.write(m.raw[:len(m.raw)/2])
		t.end()
		return false
	case Reorder:
		return t.hold(m, final)
	}
	copies := [][]byte{m.raw}
	if fault == Duplicate && final {
		t.f.count(fault)
		copies = append(copies, m.raw)
	}
	ok := t.out.write(copies...)
	if final {
		t.release()
	}
	return ok
}

// hold keeps an answer back while another one is still to come.
func (t *talk) hold(m message, final bool) bool {
	t.partial[m.id] = append(t.partial[m.id], m.raw)
	if !final {
		return true
	}
	whole := t.partial[m.id]
	delete(t.partial, m.id)
	if len(t.expected) == 0 {
		ok := t.out.write(whole...)
		t.release()
		return ok
	}
	t.late = append(t.late, whole...)
	time.AfterFunc(longestDelay, func() { // the other one may take long
		t.mu.Lock()
		defer t.mu.Unlock()
		t.out.write(t.late...)
		t.late = nil
	})
	return true
}

// release sends what was held back, now that something else went first.
func (t *talk) release() {
	if len(t.late) > 0 {
		t.f.count(Reorder)
		t.out.write(t.late...)
		t.late = nil
	}
}
