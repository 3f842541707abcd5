package synctest

import (
	"math/rand/v2"
	"net"
)

// handshake is about what a server sends before the first answer: hello, certificate and proof.
const handshake = 600

func (f *Flaky) serveTLS(client net.Conn) {
	server, ok := f.secured.dial()
	if !ok {
		f.secured.reset(client)
		return
	}
	f.passTLS(f.secured, client, server)
}

// passTLS passes on what cannot be read, and cuts it short.
func (f *Flaky) passTLS(p *proxy, client, server net.Conn) {
	requests, answers := f.dice()
	cut := 0
	if f.draw(answers, []Fault{CutHandshake}) != "" {
		cut = 1 + answers.IntN(handshake)
	}
	p.wg.Go(func() { f.packets(p, server, client, answers, cut, echoFaults) })
	f.packets(p, client, server, requests, 0, packetFaults)
}

// packets passes on one direction, all of it or the first cut bytes. Faults begin after the handshake.
func (f *Flaky) packets(p *proxy, from, to net.Conn, dice *rand.Rand, cut int, among []Fault) {
	defer p.drop(from, to)
	buf := make([]byte, 16<<10)
	passed := 0
	for {
		n, err := from.Read(buf)
		if cut > 0 && passed+n >= cut {
			f.count(CutHandshake)
			to.Write(buf[:cut-passed])
			return
		}
		fault := Fault("")
		if n > 0 && passed > handshake {
			fault = f.draw(dice, among)
		}
		switch fault {
		case Delay:
			f.delay(dice)
		case ResetBefore, ResetAfter:
			f.count(fault)
			p.reset(from, to)
			return
		case HalfAnswer:
			f.count(fault)
			to.Write(buf[:n/2])
			return
		}
		if _, bad := to.Write(buf[:n]); err != nil || bad != nil {
			return
		}
		passed += n
	}
}
