package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/device/emulator"
)

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "td") // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "bus")
}

// tokenemu runs a command in this process.
func tokenemu(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, diag bytes.Buffer
	err = run(t.Context(), append([]string{"tokenemu"}, args...), &out, &diag)
	return out.String(), diag.String(), err
}

// bench serves keys in this process and returns the socket.
func bench[T emulator.Token](t *testing.T, keys ...T) string {
	t.Helper()
	socket := socketPath(t)
	s, err := emulator.Listen(socket, keys...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
	return socket
}

// TestProcess builds the program without cgo and runs it as its users do.
func TestProcess(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "tokenemu")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	socket := socketPath(t)
	server := exec.CommandContext(t.Context(), binary, "serve", "--instant", "--yubikey", "serial=12345678,fw=5.4.3", "--yubikey=serial=7,fw=2.3.1,present=false", "--nitrokey", "serial=00005d19", "--socket", socket)
	server.Stderr = os.Stderr
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			server.Process.Kill()
			server.Wait()
		}
	})
	lines := bufio.NewReader(stdout)
	for _, want := range []string{"emu1  yk-12345678  firmware 5.4.3  plugged in\n", "emu2  yk-7  firmware 2.3.1  not plugged in\n", "emu3  nk-00005d19  firmware 0.15.0  plugged in\n"} {
		if got, err := lines.ReadString('\n'); err != nil || got != want {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if i, err := os.Stat(socket); err != nil || i.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", i, err)
	}
	command := func(args ...string) (string, error) {
		c := exec.CommandContext(t.Context(), binary, args...)
		c.Env = append(os.Environ(), "TOKENEMU_SOCKET="+socket)
		out, err := c.Output()
		return string(out), err
	}
	if out, err := command("insert", "7"); err != nil || out != "" {
		t.Fatalf("%q, %v", out, err)
	}
	if out, err := command("list"); err != nil || !strings.Contains(out, "emu2  yk-7         2.3.1     in     -") {
		t.Fatalf("%s%v", out, err)
	}
	_, err = command("serve", "--yubikey", "serial=1")
	if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != 1 || !strings.Contains(string(e.Stderr), "another emulator serves it") {
		t.Fatalf("a second server: %v", err)
	}
	program(t, socket)
	if out, err := command("touch", "12345678", "--long", "--times", "2"); err != nil || out != "ubhe1234567822186581\nubhe1234567894447589\n" {
		t.Fatalf("%q, %v", out, err)
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(lines)
	err = server.Wait()
	ended = true
	if err != nil || len(rest) != 0 {
		t.Fatalf("%v, more output %q", err, rest)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Fatalf("the socket is still there: %v", err)
	}
}

// program writes the configuration that ykpersonalize makes of the RFC 4226 key, start counter 16, token
// identifier 12345678 and Enter, to slot 2.
func program(t *testing.T, socket string) {
	t.Helper()
	r, err := bussocket.New(socket).Open(t.Context(), "emu1:1.0")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, chunk := range []string{
		"\xe1\x63\x12\x34\x56\x78\x00\x80", "\x00\x007890\x00\x82", "\x01123456\x83", "7890123\x84",
		"456\x01\x02\x03\x04\x85", "\x05\x06\x06\x24\x60\x42\x00\x86", "\x00\x6c\xb3\x00\x00\x00\x00\x87", "\x00\x03\x95\x56\x00\x00\x00\x89",
	} {
		if err := r.SetFeature(append([]byte{0}, chunk...)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTouchOfAHeldKey(t *testing.T) {
	k := emulator.New(emulator.Options{Serial: 12345678, Firmware: device.Version{Major: 5}, Timing: &emulator.Timing{}})
	socket := bench(t, k)
	program(t, socket)
	h, err := k.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	stdout, stderr, err := tokenemu(t, "touch", "emu1", "--long", "--socket", socket)
	if err != nil || stdout != "" || stderr != "typed into the program that holds the key\n" {
		t.Fatalf("%q, %q, %v", stdout, stderr, err)
	}
	stdout, stderr, err = tokenemu(t, "touch", "--socket", socket, "emu1")
	if err != nil || stdout != "" || !strings.Contains(stderr, "slot 1 holds nothing that types") {
		t.Fatalf("%q, %q, %v", stdout, stderr, err)
	}
}

func TestHand(t *testing.T) {
	socket := bench[emulator.Token](t, emulator.New(emulator.Options{Serial: 7}), emulator.New(emulator.Options{Serial: 8, VPCD: "127.0.0.1:1", Absent: true}),
		emulator.NewNitrokeyPro(emulator.Options{Serial: 0x5d19, Absent: true}), emulator.NewNitrokey3(emulator.Options{Serial: 0xABCDEF01, VPCD: "127.0.0.1:1"}))
	t.Setenv("TOKENEMU_SOCKET", socket)
	for _, c := range []struct {
		args string
		want string // of the error; empty: none
	}{
		{"insert 7 8", ""},
		{"remove 7 99 8", "no key here has the serial or port 99; tokenemu list shows the keys"},
		{"touch 8", "plug it in with tokenemu insert"},
		{"fault 7 reclaim 2", ""},
		{"fault 8 stuck-flag", ""},
		{"fault 7 card-mute", "this key has none: give it one by vpcd=HOST:PORT"},
		{"fault 7 melt", "there is no fault"},
		{"insert 00005d19 abcdef01", ""},
		{"touch nk-00005d19 --long", ""},
		{"touch nk-00005d1a", "no key here has the serial or port nk-00005d1a"},
		{"fault nk-00005d19 pull-after 3", ""},
		{"fault nk-00005d19 reclaim", "there is no fault"},
		{"fault nk-abcdef01 card-mute", ""},
		{"fault nk-abcdef01 stuck-busy", "none of a device that is a smart card only"},
		{"fault 7 reclaim many", `"many" is not a number`},
		{"fault 7", "tokenemu fault --help"},
		{"remove", "needs the serial or port"},
		{"touch 7 --times", "--times needs a value"},
		{"touch 7 --times 0", "1 to 1000 times"},
		{"touch 7 --hard", "-hard; see tokenemu touch --help"},
		{"insert --socket /nonexistent/bus 7", "start it with tokenemu serve --socket /nonexistent/bus"},
		{"insert 7 --socket=", "give --socket PATH or set TOKENEMU_SOCKET"},
		{"list 7", "list takes no arguments"},
		{"dance", "there is no command"},
		{"serve", "there is nothing to serve"},
		{"serve 7", "serve takes no arguments"},
		{"serve --yubikey serial=7", "another emulator serves it"},
		{"attach", "there is nothing to attach"},
		{"attach 7", "attach takes no arguments"},
		{"attach --yubikey serial=7", "another emulator serves it"},
		{"attach --yubikey serial=7,product=0405,vpcd=localhost:4711 --socket /nonexistent/bus", "leave vpcd out"},
		{"attach --nitrokey serial=7,model=storage", "make it a Pro or a Librem Key"},
		{"attach --nitrokey serial=7,model=3", "serve it to a reader of vpcd"},
		{"serve --nitrokey model=pro", "it has no serial"},
		{"attach --yubikey serial=7,product=0407", "make it a product 0010, 0110 or 0401, or 0111 or 0405"},
	} {
		stdout, _, err := tokenemu(t, strings.Fields(c.args)...)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("tokenemu %s: %v", c.args, err)
		case stdout != "":
			t.Errorf("tokenemu %s printed %q", c.args, stdout)
		}
	}
	stdout, _, err := tokenemu(t, "list")
	want := `PORT  DEVICE       FIRMWARE  STATE  HOLDS  REQUIRED WAIT  FAULTS        CARD
emu1  yk-7         0.0.0     out    -      0s             reclaim=2     -
emu2  yk-8         0.0.0     out    -      0s             stuck-flag    out
emu3  nk-00005d19  0.15.0    in     -      0s             pull-after=3  -
emu4  nk-abcdef01  4.14.0    in     -      0s             card-mute     no reader at 127.0.0.1:1
`
	if err != nil || stdout != want {
		t.Fatalf("%s%v", stdout, err)
	}
	if stdout, _, err = tokenemu(t, "list", "--json"); err != nil || !strings.Contains(stdout, `"required_wait_us": 0`) {
		t.Fatalf("%s%v", stdout, err)
	}
}

// TestAttachedKeys has another server, which need not have a kernel with keys attached.
func TestAttachedKeys(t *testing.T) {
	socket := socketPath(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("TOKENEMU_SOCKET", socket)
	serve := func(a bussocket.Answer) {
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			bufio.NewReader(c).ReadString('\n')
			c.Write(bussocket.EncodeAnswer(a))
		}()
	}
	serve(bussocket.Answer{OK: true, Keys: []bussocket.Key{{
		Interface: bussocket.Interface{Path: "emu1:1.0", Port: "emu1"}, USBPort: "1-12", Device: "nk-00000007", Serial: 7, Firmware: "0.15.0", Present: true, Card: "USB",
		Holds: []string{"hotp1", "otp"},
	}}})
	stdout, _, err := tokenemu(t, "list")
	want := `PORT  DEVICE       FIRMWARE  STATE     HOLDS      REQUIRED WAIT  FAULTS  CARD
emu1  nk-00000007  0.15.0    USB 1-12  hotp1 otp  0s             -       USB
`
	if err != nil || stdout != want {
		t.Fatalf("%s%v", stdout, err)
	}
	serve(bussocket.Answer{OK: true, Touches: []bussocket.Touch{{To: bussocket.ToUSB}, {To: bussocket.ToChallenge}}})
	stdout, stderr, err := tokenemu(t, "touch", "7", "--times", "2")
	want = "typed over USB, into whatever reads the key there\ntyped nothing: the touch released what waited for it, a challenge or the smart card\n"
	if err != nil || stdout != "" || stderr != want {
		t.Fatalf("%q, %q, %v", stdout, stderr, err)
	}
}

func TestParseKey(t *testing.T) {
	o, err := parseKey("serial=7,fw=4.3.7,product=0401,present=false")
	if want := (emulator.Options{Serial: 7, Firmware: device.Version{Major: 4, Minor: 3, Build: 7}, Product: 0x0401, Absent: true}); err != nil || o != want {
		t.Fatalf("%+v, %v", o, err)
	}
	o, err = parseKey("serial=7,vpcd=127.0.0.1:20000,product=0405")
	if want := (emulator.Options{Serial: 7, Firmware: device.Version{Major: 5, Minor: 4, Build: 3}, Product: 0x0405, VPCD: "127.0.0.1:20000"}); err != nil || o != want {
		t.Fatalf("%+v, %v", o, err)
	}
	for _, s := range []string{"", "fw=5.4.3", "serial=x", "serial=4294967296", "serial=1,fw=5", "serial=1,present=perhaps", "serial=1,serial=2", "serial=1,color=red", "serial=1,product=0402", "serial=1,vpcd=4711", "serial=1,vpcd=localhost:0", "serial=1,vpcd=:4711", "serial=1,product=0401,vpcd=localhost:4711"} {
		if _, err := parseKey(s); err == nil || !strings.Contains(err.Error(), keyForm) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestParseNitrokey(t *testing.T) {
	for text, want := range map[string]emulator.Options{
		"serial=5D19":                             {Serial: 0x5d19, Vendor: 0x20A0, Product: 0x4108, Firmware: device.Version{Minor: 15}},
		"serial=1,model=storage,present=false":    {Serial: 1, Vendor: 0x20A0, Product: 0x4109, Firmware: device.Version{Minor: 57}, Absent: true},
		"serial=1,fw=0.7.0,model=librem":          {Serial: 1, Vendor: 0x316D, Product: 0x4C4B, Firmware: device.Version{Minor: 7}},
		"serial=ffffffff,model=3,vpcd=reader:471": {Serial: 0xFFFFFFFF, Vendor: 0x20A0, Product: 0x42B2, VPCD: "reader:471"},
	} {
		if o, err := parseNitrokey(text); err != nil || o != want {
			t.Errorf("%q: %+v, %v", text, o, err)
		}
	}
	for _, s := range []string{"", "model=pro", "serial=x", "serial=100000000", "serial=1,model=2", "serial=1,product=0405", "serial=1,vpcd=reader:471", "serial=1,serial=1", "serial=1,color=red"} {
		if _, err := parseNitrokey(s); err == nil || !strings.Contains(err.Error(), nitrokeyForm) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("serial=12345678,fw=5.4.3,present=false")
	f.Add("serial=1,,=")
	f.Fuzz(func(t *testing.T, s string) {
		_, err := parseKey(s)
		_, nitrokey := parseNitrokey(s)
		if (err == nil || nitrokey == nil) && !strings.Contains(s, "serial=") {
			t.Fatalf("%q made a key without a serial", s)
		}
	})
}
