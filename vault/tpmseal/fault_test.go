package tpmseal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tokendesk/vault"
	"tokendesk/vault/secret"
	"tokendesk/vault/vaulttest"
)

var failuresFlag = flag.Int("failures", 1000, "how many failures TestManyFailuresLeaveNothing injects")

func commandCode(command []byte) tpm2.TPMCC {
	return tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
}

// fault is what happens to one command.
type fault struct {
	name string
	// send takes the place of the exchange. rest, if it is given, takes that of all later ones of the connection.
	send    func(r *rand.Rand, next transport.TPM, command []byte) ([]byte, error)
	lasting bool
	passes  bool // the operation succeeds all the same
}

func fails(name string, err error, done bool) fault {
	return fault{name: name, lasting: true, send: func(_ *rand.Rand, next transport.TPM, command []byte) ([]byte, error) {
		if done {
			next.Send(command)
		}
		return nil, err
	}}
}

func answers(name string, rc tpm2.TPMRC, done, lasting, passes bool) fault {
	return fault{name: name, lasting: lasting, passes: passes, send: func(_ *rand.Rand, next transport.TPM, command []byte) ([]byte, error) {
		if done {
			next.Send(command)
		}
		return answer(rc), nil
	}}
}

// mangles lets the TPM work and spoils its answer.
func mangles(name string, f func(r *rand.Rand, response []byte) []byte) fault {
	return fault{name: name, send: func(r *rand.Rand, next transport.TPM, command []byte) ([]byte, error) {
		response, err := next.Send(command)
		if err != nil {
			return nil, err
		}
		return f(r, bytes.Clone(response)), nil
	}}
}

var faults = []fault{
	fails("gone before", syscall.EPIPE, false),
	fails("gone after", syscall.ECONNRESET, true),
	fails("timeout", os.ErrDeadlineExceeded, true),
	fails("kernel's timeout", syscall.ETIME, false),
	fails("busy for ever", syscall.EBUSY, false),
	answers("retry for ever", tpm2.TPMRCRetry, false, true, false),
	answers("rate for ever", tpm2.TPMRCNVRate, false, true, false),
	answers("retry", tpm2.TPMRCRetry, false, false, true),
	answers("yielded", tpm2.TPMRCYielded, false, false, true),
	answers("testing", tpm2.TPMRCTesting, false, false, true),
	answers("rate", tpm2.TPMRCNVRate, false, false, true),
	answers("failure mode", tpm2.TPMRCFailure, false, true, false),
	answers("no room for objects", tpm2.TPMRCObjectMemory, false, false, false),
	answers("no room for sessions", tpm2.TPMRCSessionMemory, false, false, false),
	answers("refused although done", tpm2.TPMRCCanceled, true, false, false),
	answers("unknown code", 0x9FF, false, false, false),
	answers("success and nothing else", tpm2.TPMRCSuccess, true, false, false),
	{name: "busy", passes: true, send: func(*rand.Rand, transport.TPM, []byte) ([]byte, error) { return nil, &os.PathError{Err: syscall.EBUSY} }},
	{name: "nothing", passes: true, send: func(*rand.Rand, transport.TPM, []byte) ([]byte, error) { return nil, nil }},
	mangles("cut", func(r *rand.Rand, b []byte) []byte { return b[:1+r.IntN(len(b)-1)] }),
	mangles("cut and framed", func(r *rand.Rand, b []byte) []byte {
		b = b[:headerSize+r.IntN(len(b)-headerSize+1)]
		binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
		return b
	}),
	mangles("noise", func(r *rand.Rand, b []byte) []byte {
		for i := range b[headerSize:] {
			b[headerSize+i] = byte(r.Uint32())
		}
		return b
	}),
	mangles("a bit", func(r *rand.Rand, b []byte) []byte {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		return b
	}),
}

// rig is a TPM with something of everything in it, and a fault to come.
type rig struct {
	*TPM
	random *rand.Rand

	fault *fault
	at    int // the command that the fault hits
	sent  int // commands of the operation so far

	plain, key, auth secret.Secret
	attended, bare   []byte
	old, wrapped     []byte
	counter          []byte
	value            uint64
}

func newRig(t testing.TB) *rig {
	r := &rig{random: rand.New(rand.NewPCG(1, 2)), at: -1}
	send := r.send
	o := cheap()
	o.Patience = 20 * time.Millisecond
	r.TPM = openTapped(t, vaulttest.StartSWTPM(t), o, &send)
	setLimits(t, r.TPM, 1<<20, 1000)
	r.plain = secret.Random(32)
	r.counter, r.value, r.auth = newCounter(t, r.TPM)
	r.key = key(t, r.TPM, rightPIN, nil)
	at := vault.Mark{Counter: r.counter, Value: r.value}
	r.attended = seal(t, r.TPM, r.plain, r.key, at)
	r.bare = seal(t, r.TPM, r.plain, secret.Secret{}, vault.Mark{})
	r.old = oldBlob(t, r.TPM, r.plain)
	var err error
	if r.wrapped, err = Wrap(parentOf(t, r.TPM), r.plain); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) send(next transport.TPM, command []byte) ([]byte, error) {
	n := r.sent
	r.sent++
	if r.fault != nil && (n == r.at || (n > r.at && r.fault.lasting)) {
		return r.fault.send(r.random, next, command)
	}
	return next.Send(command)
}

func same(got, want secret.Secret, err error) error {
	if err == nil && !got.Equal(want) {
		return errors.New("something else came back")
	}
	return err
}

// operations are all that a TPM is used for. Each returns an error if it fails or gives a wrong result.
var operations = []struct {
	name string
	do   func(r *rig) error
}{
	{"unseal with a PIN", func(r *rig) error { s, err := r.Unseal(r.attended, r.key); return same(s, r.plain, err) }},
	{"unseal without", func(r *rig) error { s, err := r.Unseal(r.bare, secret.Secret{}); return same(s, r.plain, err) }},
	{"unseal version 1", func(r *rig) error { s, err := r.Unseal(r.old, secret.Secret{}); return same(s, r.plain, err) }},
	{"seal", func(r *rig) error {
		_, err := r.Seal(r.plain, r.key, vault.Mark{Counter: r.counter, Value: r.value})
		return err
	}},
	{"count", func(r *rig) error {
		now, err := r.Count(r.counter, r.auth)
		if err == nil && now != r.value {
			err = fmt.Errorf("counted %d, not %d", now, r.value)
		}
		return err
	}},
	{"unwrap", func(r *rig) error { s, err := r.Unwrap(r.wrapped); return same(s, r.plain, err) }},
	{"guesses", func(r *rig) error { _, _, err := r.Guesses(); return err }},
	{"parent", func(r *rig) error { _, err := r.Parent(); return err }},
	{"new counter", func(r *rig) error {
		name, _, err := r.NewCounter(r.auth)
		if err == nil {
			r.fault, r.at = nil, -1
			err = r.DropCounter(name)
		}
		return err
	}},
}

// strike does an operation with a fault at one of its commands, and once more without.
func (r *rig) strike(t testing.TB, op int, f fault, at int) {
	t.Helper()
	do := operations[op]
	name := fmt.Sprintf("%s, %s at command %d", do.name, f.name, at)
	r.fault, r.at, r.sent = &f, at, 0
	began := time.Now()
	err := do.do(r)
	took := time.Since(began)
	r.fault, r.at = nil, -1
	var state *vault.StateError
	switch {
	case f.passes && err != nil:
		t.Fatalf("%s: %v", name, err)
	case err != nil && !errors.As(err, &state) && !errors.Is(err, vault.ErrStale):
		t.Fatalf("%s: the error has no state: %v", name, err)
	case err != nil && state != nil && state.Cure == "":
		t.Fatalf("%s: no cure: %v", name, err)
	case took > 5*time.Second:
		t.Fatalf("%s: took %s", name, took)
	}
}

// commands counts what an operation sends.
func (r *rig) commands(t testing.TB, op int) int {
	t.Helper()
	r.sent = 0
	if err := operations[op].do(r); err != nil {
		t.Fatalf("%s: %v", operations[op].name, err)
	}
	return r.sent
}

// indices lists the counters that are there.
func (r *rig) indices(t testing.TB) (n int) {
	t.Helper()
	err := r.run("look", func() error {
		list, err := r.handles(firstIndex)
		n = len(list)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Every fault at every command of every operation: a named error or success, then the next use works and finds nothing
// left behind.
func TestEveryFaultAtEveryCommand(t *testing.T) {
	r := newRig(t)
	struck := 0
	for op := range operations {
		for _, f := range faults {
			for at := range r.commands(t, op) {
				r.strike(t, op, f, at)
				empty(t, r.TPM)
				struck++
			}
			r.commands(t, op)
		}
	}
	if n := r.indices(t); n != 1 {
		t.Errorf("%d counters are there, want 1", n)
	}
	t.Logf("%d faults", struck)
}

func TestManyFailuresLeaveNothing(t *testing.T) {
	began := time.Now()
	r := newRig(t)
	var length []int
	for op := range operations {
		length = append(length, r.commands(t, op))
	}
	for n := range *failuresFlag {
		op := r.random.IntN(len(operations))
		r.strike(t, op, faults[r.random.IntN(len(faults))], r.random.IntN(length[op]))
		if n%100 == 99 {
			empty(t, r.TPM)
		}
	}
	empty(t, r.TPM)
	if n := r.indices(t); n != 1 {
		t.Errorf("%d counters are there, want 1", n)
	}
	for op := range operations {
		r.commands(t, op)
	}
	t.Logf("%d failures in %s", *failuresFlag, time.Since(began).Round(time.Millisecond))
}

// Behind the kernel's resource manager nothing is listed and flushed wholesale: what an operation has loaded it flushes
// itself, also when a command in its midst is refused.
func TestRefusedCommandsLeaveNothing(t *testing.T) {
	r := newRig(t)
	refused, kept := answers("refused", tpm2.TPMRCCanceled, false, false, false), 0
	for op := range operations {
		for at := range r.commands(t, op) {
			conn := r.link.conn
			r.owned = false
			r.strike(t, op, refused, at)
			r.owned = true
			// If it was a flush that was refused, the connection was given up, which the kernel takes as a reason to flush, and
			// here empty's connecting does. Otherwise empty looks at what is there.
			if r.link.conn == conn {
				kept++
			} else {
				r.link.drop()
			}
			empty(t, r.TPM)
		}
	}
	if kept == 0 {
		t.Error("no refusal was survived by the connection, so nothing is proven")
	}
	t.Logf("%d refusals, after which the connection was used further", kept)
}

// On an error an increment may have happened, once, and Count tells.
func TestIncrementHappensAtMostOnce(t *testing.T) {
	r := newRig(t)
	r.sent = 0
	if err := r.Increment(r.counter, r.auth); err != nil {
		t.Fatal(err)
	}
	length, before := r.sent, r.value+1
	for _, f := range faults {
		for at := range length {
			r.fault, r.at, r.sent = &f, at, 0
			err := r.Increment(r.counter, r.auth)
			r.fault, r.at = nil, -1
			after, countErr := r.Count(r.counter, r.auth)
			if countErr != nil {
				t.Fatal(countErr)
			}
			if after > before+1 || (err == nil && after != before+1) || (f.passes && err != nil) {
				t.Fatalf("%s at command %d: from %d to %d, %v", f.name, at, before, after, err)
			}
			before = after
		}
	}
	empty(t, r.TPM)
}
