package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"tokendesk/cmd/internal/api"
	"tokendesk/device/pcsctest"
)

// cardCommands are those of TestScripts that are about smart cards.
var cardCommands = map[string]func(*testscript.TestScript, bool, []string){
	"pcscd":     cmdPCSCD,
	"carded":    cmdCarded,
	"uncarded":  cmdUncarded,
	"pinletter": cmdPINLetter,
	"holding":   cmdHolding,
}

// readersEnv lets a script's programs find the world's pcscd. $READER1, $READER2 … are the names of its readers.
func readersEnv(ts *testscript.TestScript, rig *pcsctest.Rig) {
	if rig == nil {
		return
	}
	ts.Setenv("PCSCLITE_CSOCK_NAME", rig.Socket)
	for i, name := range rig.Readers {
		ts.Setenv(fmt.Sprintf("READER%d", i+1), name)
	}
}

func cmdPCSCD(ts *testscript.TestScript, _ bool, args []string) {
	rig := on(ts).Readers
	switch args[0] {
	case "stop":
		ts.Check(rig.Stop())
	case "kill":
		ts.Check(rig.Kill())
	case "start":
		ts.Check(rig.Restart())
	default:
		ts.Fatalf("pcscd start, stop or kill, not %q", args[0])
	}
}

// cmdCarded waits until the desk sees the smart card of a key.
func cmdCarded(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "until the desk sees the card of "+args[0], func(ctx context.Context) bool {
		k, found := keyOf(ctx, ts, args[0])
		return found && k.Card != nil && k.Card.PIV != nil && k.Card.Problem == ""
	})
}

// cmdUncarded waits until the desk sees it no more.
func cmdUncarded(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, "until the desk misses the card of "+args[0], func(ctx context.Context) bool {
		k, found := keyOf(ctx, ts, args[0])
		return !found || k.Card == nil
	})
}

func keyOf(ctx context.Context, ts *testscript.TestScript, serial string) (api.Key, bool) {
	var found api.Keys
	ts.Check(on(ts).Client.Get(ctx, "/v1/devices", nil, &found))
	for _, k := range found.Keys {
		if k.ID == "yk-"+serial {
			return k, true
		}
	}
	return api.Key{}, false
}

var letterPIN = regexp.MustCompile(`(?m)^ +PIN +([0-9]{6,8})$`)

// cmdPINLetter sets a variable to the PIN in the letter that was just printed, and a second one to a PIN that it is not.
func cmdPINLetter(ts *testscript.TestScript, _ bool, args []string) {
	m := letterPIN.FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("what was printed is no PIN letter")
	}
	ts.Setenv(args[0], m[1])
	wrong := strings.Map(func(r rune) rune { return '0' + (r-'0'+1)%10 }, m[1])
	ts.Setenv(args[0]+"_WRONG", wrong)
}

// cmdHolding runs tokendesk while another program has the card in its hands: yubico-piv-tool, which waits for a PIN.
func cmdHolding(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	holder := exec.CommandContext(ctx, "stdbuf", "-o0", "yubico-piv-tool", "--stdin-input", "-r", args[0], "-a", "verify-pin")
	holder.Env = append(os.Environ(), "PCSCLITE_CSOCK_NAME="+ts.Getenv("PCSCLITE_CSOCK_NAME"))
	in, err := holder.StdinPipe()
	ts.Check(err)
	out, err := holder.StdoutPipe()
	ts.Check(err)
	holder.Stderr = holder.Stdout
	ts.Check(holder.Start())
	prompt := make([]byte, 64)
	_, err = out.Read(prompt) // it asks once it has the card
	ts.Check(err)
	play(ts, neg, "tokendesk", args[2:], nil)
	in.Close()
	holder.Wait() // without a PIN it fails
}
