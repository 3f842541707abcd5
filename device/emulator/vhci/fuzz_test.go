package vhci

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

// talkative always has a packet.
type talkative struct{ gadget }

func (t *talkative) In(ctx context.Context, endpoint uint8) ([]byte, error) {
	if endpoint == 1 {
		return []byte("12345678"), ctx.Err()
	}
	return t.gadget.In(ctx, endpoint)
}

// FuzzServe feeds any bytes in place of a kernel. Serving must end with them, and each answer must belong to
// a command.
func FuzzServe(f *testing.F) {
	submit := words(commandSubmit, 1, deviceID, 1, 1, 0, 8)
	f.Add(submit)
	f.Add(append(submit, words(commandUnlink, 2, deviceID, 0, 0, 1)...))
	f.Add(append(words(commandSubmit, 3, deviceID, 0, 0, 0, 8), "12345678"...))
	f.Add(words(commandSubmit, 3, deviceID, 0, 2, 0, 0xFFFFFFFF))
	f.Add(words(commandSubmit, 3, deviceID, 1, 15, 0, 0xFFFFFFFF, 0, 7))
	f.Add(append(words(commandSubmit, 3, deviceID, 0, 3, 0, 8), "12345678"...))
	f.Add([]byte("nonsense"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		ours, theirs := net.Pipe()
		ended, heard := make(chan error, 1), make(chan int64, 1)
		go func() { ended <- serve(ours, &talkative{gadget{packets: make(chan []byte)}}) }()
		go func() {
			n, _ := io.Copy(io.Discard, theirs)
			heard <- n
		}()
		n, _ := theirs.Write(stream) // serving may have ended before
		theirs.Close()
		<-ended
		if n := min(n, len(stream)); <-heard > int64(n/headerSize+1)*(headerSize+maxOut) {
			t.Fatal("more was answered than asked")
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add("hub port sta spd dev      sockfd local_busid\nhs  0000 004 000 00000000 000000 0-0\nss  0008 006 005 00010001 000003 2-1\n")
	f.Add("hs 99999999999999999999 004")
	f.Add("hs -1 004\nhs")
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := parseStatus(text)
		if err == nil && len(ports) > strings.Count(text, "hs") {
			t.Fatalf("%d ports in %q", len(ports), text)
		}
		for _, p := range ports {
			if p.number < 0 {
				t.Fatalf("port %d", p.number)
			}
		}
	})
}
